"""Replaced functions are detected, named, and restored for the process's last message."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys

import pytest

import scythe.errors
from scythe.leaf.settings import ProcessSettings
from scythe.leaf.watch import Watch


def test_nothing_is_replaced_by_itself() -> None:
    assert Watch().replaced() == []


def test_what_is_replaced_deleted_or_added_is_named_and_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch, dumps, module = Watch(), json.dumps, scythe.errors
    monkeypatch.setattr(json, "dumps", None)
    monkeypatch.delattr(os, "getcwd")
    monkeypatch.setattr(logging.Logger, "info", None)
    setattr(socket.socket, "send", None)  # noqa: B010 - an inherited method
    monkeypatch.delitem(sys.modules, "scythe.errors")
    assert sorted(watch.replaced()) == [
        "json.dumps",
        "logging.Logger.info",
        "os.getcwd",
        "socket.socket.send",
        "sys.modules.scythe.errors",
    ]
    assert watch.replaced() == []
    assert json.dumps is dumps
    assert sys.modules["scythe.errors"] is module
    assert socket.socket.send is not None


def test_settings_are_put_back() -> None:
    settings, path, limit = ProcessSettings(), list(sys.path), sys.getrecursionlimit()
    sys.path[:] = ["/damaged"]
    sys.setrecursionlimit(limit + 7)
    old = os.umask(0o777)
    assert settings.restore() == []
    assert (sys.path, sys.getrecursionlimit()) == (path, limit)
    assert os.umask(old) == old

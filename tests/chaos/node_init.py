"""The first process of a node of the test bed. With its end, the kernel ends all others there."""

from __future__ import annotations

import signal
import socket
import sys

if __name__ == "__main__":
    socket.sethostname(sys.argv[1])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans of the node are not kept as zombies
    print("ready", flush=True)
    sys.stdin.read()  # until the test bed closes it, or is gone itself

"""A process like one that Ray starts, which runs leaves one after another until it is ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from scythe_ray.on_node.leaf_process import LeafProcess

if __name__ == "__main__":
    folder, how = Path(sys.argv[1]), sys.argv[2]
    process = LeafProcess(folder / "records", str(folder))
    Path(folder, "scratch").write_text(process.folder)
    number = 0
    while True:
        number += 1
        token = f"{how}-{number}"
        with process.running(token, importing=True):
            process.imported()
            log = Path(folder, "log")
            if how == "quick":
                with log.open("a") as file:
                    file.write(f"{token}\n")
                time.sleep(0.001 * (number % 4))
            elif how == "child":
                child = subprocess.Popen(["sleep", "600"], start_new_session=True)
                log.write_text(f"{os.getpid()} {child.pid}")
                if number > 1:
                    time.sleep(600)
            elif how == "crash":
                log.write_text(str(subprocess.Popen(["sleep", "600"], start_new_session=True).pid))
                os.abort()
            elif how == "exit":
                os._exit(3)
            else:
                log.write_text(token)
                time.sleep(600)
        log.with_suffix(".done").write_text(token)

"""What a sandbox process owes its parent: tell when it is ready, and do not outlive it."""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
import time
from pathlib import Path

_LOOK_EVERY_SECONDS = 0.5


def announce(ready_file: Path | None, **facts: str) -> None:
    """Print the facts as one JSON line; into `ready_file` too, written whole or not at all."""
    line = json.dumps(facts)
    print(line, flush=True)
    if ready_file:
        draft = ready_file.with_name(f"{ready_file.name}.{os.getpid()}")
        draft.write_text(line)
        draft.replace(ready_file)


def end_with_parent() -> None:
    """Send this process SIGTERM once the process that started it is gone (it was adopted by another one)."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_EVERY_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that both functions above are about."""
    parser.add_argument("--ready-file", type=Path, help="written when the process is ready: a JSON object with its address")
    parser.add_argument("--outlive-parent", action="store_true", help="keep running when the starting process ends")

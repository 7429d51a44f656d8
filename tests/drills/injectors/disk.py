"""A small disk that gets full: a tmpfs of its own (needs root), and a file that fills it."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def missing() -> str | None:
    """Why this machine cannot do it; None when it can."""
    if os.geteuid() != 0:
        return "mounting a tmpfs needs root"
    try:
        with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder), 1):
            return None
    except (subprocess.CalledProcessError, FileNotFoundError):
        return "this machine does not let us mount a tmpfs"


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """`folder` is a disk of so many MiB inside."""
    folder.mkdir(parents=True, exist_ok=True)
    size = f"size={mebibytes}m,mode=0755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "enrollstream-drill", str(folder)], check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


@contextmanager
def full(folder: Path) -> Iterator[int]:
    """Not a byte is free inside; yields how many were taken."""
    filler = folder / "filler"
    taken = 0
    with filler.open("wb", buffering=0) as sink:
        for size in (1024 * 1024, 4096, 1):
            with suppress(OSError):
                while True:
                    taken += sink.write(b"\0" * size)
    try:
        yield taken
    finally:
        filler.unlink()


def prove() -> None:
    """A write fails with ENOSPC inside and works before and after."""
    with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder) / "disk", 2) as disk:
        probe = disk / "probe"
        probe.write_bytes(b"1" * 4096)
        with full(disk):
            assert _error_of_writing(probe.with_name("other")) == errno.ENOSPC
        assert _error_of_writing(probe.with_name("other")) is None


def _error_of_writing(path: Path) -> int | None:
    try:
        path.write_bytes(b"1" * 4096)
    except OSError as error:
        return error.errno
    return None

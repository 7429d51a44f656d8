"""A name that can be taken away from one process, and given back (`names.c` by ``LD_PRELOAD``)."""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.drills.injectors import clock

NAME = "canvas.drill.test"
_SOURCE = Path(__file__).with_name("names.c")
_PROOF = f"""
import asyncio, socket, sys, uvloop
def look():
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(ask())[0][4][0]
    except socket.gaierror:
        return "unknown"
async def ask():
    return await asyncio.get_running_loop().getaddrinfo("{NAME}", 443, type=socket.SOCK_STREAM)
for _line in sys.stdin:
    print(look(), socket.getaddrinfo("localhost", 1)[0][4][0] in ("127.0.0.1", "::1"), flush=True)
"""


class Resolver:
    """What `NAME` is for the processes that were started with `environment`."""

    def __init__(self, folder: Path) -> None:
        """It is this machine."""
        self._file = folder / "names"
        self._known()

    @property
    def environment(self) -> Mapping[str, str]:
        """Of a process that asks this resolver."""
        return {"LD_PRELOAD": str(_library()), "DRILL_NAMES": str(self._file)}

    @contextmanager
    def silenced(self) -> Iterator[None]:
        """Nobody knows the name inside."""
        self._file.unlink()
        try:
            yield
        finally:
            self._known()

    def _known(self) -> None:
        self._file.write_text("127.0.0.1")


missing = clock.missing


@functools.cache
def _library() -> Path:
    library = Path(tempfile.mkdtemp(prefix="enrollstream-drills-names-")) / "names.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(_SOURCE), "-ldl"], check=True)
    return library


def prove() -> None:
    """The event loop's own resolver knows the name, forgets it while it is silenced, and knows it again; others are as ever."""
    with tempfile.TemporaryDirectory() as folder:
        resolver = Resolver(Path(folder))
        child = subprocess.Popen(
            [sys.executable, "-c", _PROOF],
            env=dict(resolver.environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        questions, answers = child.stdin, child.stdout
        assert questions is not None
        assert answers is not None

        def asked() -> str:
            questions.write("\n")
            questions.flush()
            return answers.readline().strip()

        try:
            assert asked() == "127.0.0.1 True"
            with resolver.silenced():
                assert asked() == "unknown True"
            assert asked() == "127.0.0.1 True"
        finally:
            questions.close()
            child.wait(10)
            answers.close()

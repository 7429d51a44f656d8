"""A TCP proxy that misbehaves on demand: cut, one way, slow, refusing, ending after so many bytes.

A cut holds bytes back instead of throwing them away, as a network does that loses packets and finds them again: after healing
the connection goes on. What it cannot do is vanish: the kernel still acknowledges. `firewall` is there for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

Address = tuple[str, int]
Direction = Literal["up", "down"]
"""`up`: from the client to the server; `down`: the answers."""

_CHUNK = 64 * 1024
_LINGER_NOT = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Toxins:
    """How a link behaves at the moment. Plain values, changed from any thread."""

    held: set[Direction] = field(default_factory=set)
    refusing: bool = False
    latency_ms: float = 0
    jitter_ms: float = 0
    limit_bytes: int | None = None
    """A connection is reset after so many bytes of answers."""


@dataclass(slots=True)
class Bites:
    """How often a fault really did something."""

    held: int = 0
    refused: int = 0
    delayed: int = 0
    limited: int = 0
    reset: int = 0


class Link:
    """One listening port in front of one server, or of several that take turns. Made by `Network.link`."""

    def __init__(self, network: Network, targets: tuple[Address, ...], tls: ssl.SSLContext | None) -> None:
        self.toxins = Toxins()
        self.bites = Bites()
        self.port = 0
        self._network = network
        self._targets = targets
        self._tls = tls
        self._turn = itertools.count()
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    # -- from any thread ---------------------------------------------------------------------------------------------------

    @contextmanager
    def cut(self, *directions: Direction) -> Iterator[None]:
        """Hold everything (or one direction) inside."""
        self.toxins.held = set(directions or ("up", "down"))
        try:
            yield
        finally:
            self.toxins.held = set()

    def heal(self) -> None:
        """Be a good link again. Connections stay."""
        self.toxins = Toxins()

    def aim(self, *targets: Address) -> None:
        """Connect to these from now on; connections that are open are reset."""
        self._targets = targets
        self.reset()

    def sever(self) -> None:
        """Refuse from now on; connections are reset, and what the link held of them never arrives."""
        self.toxins.refusing = True
        self.reset()

    def reset(self) -> None:
        """Reset every connection (RST)."""
        self._network.call(self._reset())

    @property
    def connections(self) -> int:
        """Both sides counted."""
        return len(self._open)

    # -- in the loop -------------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=_CHUNK, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self.toxins = Toxins(refusing=True)
        if self._server is not None:
            self._server.close()
        await self._reset()

    async def _reset(self) -> None:
        for writer in list(self._open):
            _abort(writer)
            self.bites.reset += 1

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.toxins.refusing:
            self.bites.refused += 1
            _abort(writer)
            return
        self._open.add(writer)
        try:
            await self._pass("up")
            upstream_reader, upstream = await self._connect()
        except OSError:
            self._open.discard(writer)
            _abort(writer)
            return
        self._open.add(upstream)
        try:
            up = asyncio.create_task(self._pump(reader, upstream, "up"))
            down = asyncio.create_task(self._pump(upstream_reader, writer, "down"))
            await asyncio.wait([up, down], return_when=asyncio.FIRST_EXCEPTION)
            for task in (up, down):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await task
        finally:
            for each in (writer, upstream):
                self._open.discard(each)
                each.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The next server in turn that takes connections; raises `OSError` when none does."""
        first = next(self._turn)
        for number in range(len(self._targets)):
            try:
                return await asyncio.open_connection(*self._targets[(first + number) % len(self._targets)], limit=_CHUNK)
            except OSError:
                if number == len(self._targets) - 1:
                    raise
        raise OSError("no server")

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, direction: Direction) -> None:
        passed = 0
        while data := await source.read(_CHUNK):
            await self._pass(direction)
            passed += len(data)
            limit = self.toxins.limit_bytes
            if direction == "down" and limit is not None and passed > limit:
                self.bites.limited += 1
                sink.write(data[: max(0, limit - (passed - len(data)))])
                await sink.drain()
                raise ConnectionResetError("limit")
            sink.write(data)
            await sink.drain()
        with contextlib.suppress(OSError):
            if sink.can_write_eof():
                sink.write_eof()
            else:
                sink.close()  # TLS has no half of a connection

    async def _pass(self, direction: Direction) -> None:
        """Wait until the link lets something through."""
        toxins = self.toxins
        if direction in toxins.held:
            self.bites.held += 1
            while direction in self.toxins.held:  # noqa: ASYNC110  (changed by other threads)
                await asyncio.sleep(0.02)
        if toxins.latency_ms:
            self.bites.delayed += 1
            await asyncio.sleep((toxins.latency_ms + random.random() * toxins.jitter_ms) / 1000)  # noqa: S311


def _abort(writer: asyncio.StreamWriter) -> None:
    known = writer.get_extra_info("socket")
    if known is not None:
        with contextlib.suppress(OSError):
            known.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    writer.transport.abort()


class Network:
    """All links of one world, served by one thread."""

    def __init__(self) -> None:
        self.links: dict[str, Link] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()

    def link(self, name: str, *targets: Address, tls: ssl.SSLContext | None = None) -> Link:
        """A new link, listening on a port of the loopback; with `tls` clients have to speak it, servers hear what is inside."""
        link = self.links[name] = Link(self, targets, tls)
        self.call(link._listen())
        return link

    def matching(self, start: str) -> list[Link]:
        """Every link whose name starts like that."""
        return [link for name, link in self.links.items() if name.startswith(start)]

    @contextmanager
    def cut(self, start: str, *directions: Direction) -> Iterator[list[Link]]:
        """Cut every link whose name starts like that."""
        links = self.matching(start)
        assert links, start
        with contextlib.ExitStack() as stack:
            for link in links:
                stack.enter_context(link.cut(*directions))
            yield links

    def heal(self) -> None:
        """Every link is good again."""
        for link in self.links.values():
            link.heal()

    def call(self, work: object) -> None:
        """Run a coroutine in the loop and wait for it."""
        assert asyncio.iscoroutine(work)
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def close(self) -> None:
        """Drop every connection and end the thread."""
        for link in self.links.values():
            self.call(link._close())
        self.call(asyncio.sleep(0.1))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def prove() -> None:
    """Each fault of a link is felt by a client of an echo server, and is over when it is over."""
    with _echo() as server, Network() as network:
        link = network.link("echo", server)
        address = ("127.0.0.1", link.port)
        assert _ask(address) == b"hello"
        for direction in ("up", "down"):
            with link.cut(direction):
                assert _ask(address, 0.3) is None, direction
        assert _ask(address) == b"hello"
        with socket.create_connection(address) as kept:
            with link.cut():
                kept.sendall(b"late")
                kept.settimeout(0.2)
                assert _heard(kept) is None
            kept.settimeout(5)
            assert _heard(kept) == b"late", "held bytes arrive after healing"
            link.reset()
            assert _heard(kept) is None, "reset"
        link.toxins.latency_ms = 300
        begun = time.monotonic()
        assert _ask(address) == b"hello"
        assert time.monotonic() - begun >= 0.3
        link.heal()
        link.toxins.refusing = True
        assert _ask(address) is None
        link.heal()
        link.toxins.limit_bytes = 2
        assert _ask(address) in (b"he", None)
        link.heal()
        assert _ask(address) == b"hello"
        bites = link.bites
        assert min(bites.held, bites.refused, bites.delayed, bites.limited, bites.reset) > 0


def _ask(address: Address, seconds: float = 5) -> bytes | None:
    try:
        with socket.create_connection(address, seconds) as client:
            client.settimeout(seconds)
            client.sendall(b"hello")
            return _heard(client)
    except OSError:
        return None


def _heard(client: socket.socket) -> bytes | None:
    try:
        return client.recv(100) or None
    except OSError:
        return None


@contextmanager
def _echo() -> Iterator[Address]:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=answer, args=[client], daemon=True).start()

        def answer(client: socket.socket) -> None:
            with client, contextlib.suppress(OSError):
                while data := client.recv(100):
                    client.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()

"""The sending side behaves like the Integration Broker: it repeats a 503, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from services.sandbox.sis.client import Poster, Progress
from services.sandbox.sis.messages import Message


@contextmanager
def publisher(answers: Callable[[int], int]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that answers request n (from 1) with `answers(n)`; yields its address and the headers it saw."""
    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            seen.append(dict(self.headers.items()))
            self.send_response(answers(len(seen)))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/intake/peoplesoft", seen
        server.shutdown()
        thread.join()


def messages(count: int) -> list[Message]:
    return [Message(number, "ZZ_ENRL_SYNC", (), at=0.001 * number, post_at=0.0) for number in range(count)]


async def test_a_503_is_repeated_until_it_is_accepted_with_the_same_timestamp() -> None:
    with publisher(lambda number: 503 if number < 3 else 200) as (url, seen):
        (delivery,) = await Poster(url, "psoft", "secret").play(messages(1))
    assert delivery.accepted
    assert delivery.attempts == 3
    assert len({headers["origtimestamp"] for headers in seen}) == 1


async def test_any_other_refusal_is_final() -> None:
    progress: list[Progress] = []
    with publisher(lambda _number: 401) as (url, seen):
        deliveries = await Poster(url, "psoft", "secret").play(messages(2), progress.append)
    assert [delivery.accepted for delivery in deliveries] == [False, False]
    assert len(seen) == 2
    assert progress[-1].refused == 2


async def test_every_message_is_sent_once_when_all_is_well() -> None:
    with publisher(lambda _number: 200) as (url, seen):
        deliveries = await Poster(url, "psoft", "secret", concurrency=4).play(messages(30))
    assert sum(delivery.attempts for delivery in deliveries) == len(seen) == 30
    assert len({headers["origtimestamp"] for headers in seen}) == 30

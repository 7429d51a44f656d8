"""The publisher alone: posts and rows a second, and its own CPU a row, beside the naive receiver that has no database."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from statistics import median

from bench.figures import Result, ratio, spread
from bench.ground import Ground
from bench.load import Post, Sender, Sis
from bench.machine import cpu_seconds
from services.sandbox.demo.processes import Process
from services.sandbox.demo.system import INTAKE_USER, Service

METHOD = """\
Closed loop: so many clients post the next body as soon as the last is answered. Every row is new to the mirror. The naive
receiver parses the same body and waits for Kafka's acknowledgement, without a database. Rounds alternate; median (range).
The sender shares the two cores. The goals for many rows were 10,000 rows/s and 35 µs of CPU a row on a machine whose naive
receiver took 50,000 rows/s at 17 µs; here they are the same as multiples of naive."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What is posted."""

    rows: int
    clients: int
    posts: int


@dataclass(slots=True)
class Seen:
    """By round."""

    posts_per_second: list[float] = field(default_factory=list)
    cpu_micros_per_row: list[float] = field(default_factory=list)


def run(ground: Ground, quick: bool) -> Result:
    """The scenario."""
    return asyncio.run(_run(ground, quick))


async def _run(ground: Ground, quick: bool) -> Result:
    share = 5 if quick else 1
    shapes = [Shape(1, 64, 10_000 // share), Shape(100, 16, 600 // share), Shape(2000, 4, 40 // share)]
    rounds = 1 if quick else 3
    seen: dict[tuple[int, str], Seen] = {}
    with ground.site("publishing") as site:
        site.make_topics(f"{site.topics.prefix}.naive")
        publisher = site.system.publisher()
        variables = {**site.system.wiring.kafka, "TOPIC_PREFIX": site.topics.prefix}
        receiver = Service(site.processes, "receive", "bench.naive.receive", variables)
        site.start(publisher, receiver)
        bodies = _Bodies()
        for _ in range(rounds):
            for shape in shapes:
                posts = bodies.make(shape)
                for name, service in (("naive", receiver), ("ours", publisher)):
                    found = seen.setdefault((shape.rows, name), Seen())
                    await _play(service, site.system.intake_password, shape, posts, found)
    return _judge(shapes, seen)


async def _play(service: Service, password: str, shape: Shape, posts: list[Post], seen: Seen) -> None:
    assert isinstance(service.process, Process)  # noqa: S101  (started above)
    pid = service.process.pid
    async with Sender(f"{service.url}/intake/peoplesoft", INTAKE_USER, password) as sender:
        before = cpu_seconds(pid)
        taken, seconds = await sender.closed_loop(posts, shape.clients)
    seen.posts_per_second.append(taken / seconds)
    seen.cpu_micros_per_row.append(1e6 * (cpu_seconds(pid) - before) / (taken * shape.rows))


class _Bodies:
    """Bodies with people that were never used before."""

    def __init__(self) -> None:
        self._sis = Sis()
        self._next = 1_000_000

    def make(self, shape: Shape) -> list[Post]:
        posts = []
        for _ in range(shape.posts):
            people = [str(number) for number in range(self._next, self._next + shape.rows)]
            self._next += shape.rows
            posts.append(self._sis.change(people, "E"))
        return posts


def _judge(shapes: list[Shape], seen: dict[tuple[int, str], Seen]) -> Result:
    result = Result("Publisher", METHOD, ["rows a post, clients", "chain", "posts/s", "rows/s", "own CPU µs/row", "rate / naive"])
    for shape in shapes:
        base = median(seen[shape.rows, "naive"].posts_per_second)
        for name in ("naive", "ours"):
            found = seen[shape.rows, name]
            rate = median(found.posts_per_second)
            result.rows.append([
                f"{shape.rows:,}, {shape.clients}", name, spread(found.posts_per_second), f"{rate * shape.rows:,.0f}",
                spread(found.cpu_micros_per_row), f"{ratio(rate, base):.2f}",
            ])  # fmt: skip
    single = ratio(*(median(seen[1, name].posts_per_second) for name in ("ours", "naive")))
    result.expect("1-row posts ≥ 0.6 × naive", f"{single:.2f} ×", single >= 0.6)
    for rows in (100, 2000):
        rate = ratio(*(median(seen[rows, name].posts_per_second) for name in ("ours", "naive")))
        result.expect(f"posts of {rows:,} rows: ≥ 0.2 × naive", f"{rate:.2f} ×", rate >= 0.2)
        cpu = ratio(*(median(seen[rows, name].cpu_micros_per_row) for name in ("ours", "naive")))
        result.expect(f"posts of {rows:,} rows: ≤ 2.1 × the CPU of naive a row", f"{cpu:.2f} ×", cpu <= 2.1)
    return result

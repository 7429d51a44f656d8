"""From the SIS's post to Canvas's answer: ours beside the naive chain, round by round in one run."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.figures import Result, percentile, ratio
from bench.ground import Ground, Site
from bench.load import Sender, Sis, until
from services.sandbox.demo.system import INTAKE_USER, Service

METHOD = """\
Each chain has its own topics and its own cheap Canvas (`bench/canvas.py`). Every person is enrolled and dropped once, so
that our ledger has seen each seat; what is timed is the second enrolment, one person a post, from the moment the post leaves
until Canvas has answered the POST for that person. Rounds of the two chains alternate. *Naive* (`bench/naive/`) receives,
produces, waits for the acknowledgement, consumes with a task per record and POSTs; the FastStream row is the same handler
under a FastStream subscriber. *Failing*: one person in a hundred gets a 500 for ever; the figures are those of the other
ninety-nine. Where Canvas answers at once, the goal was to add 6 ms (p99: 20) on a machine whose naive chain took 2.8 (6.9); here
it is the same as a multiple of naive."""

IN_FLIGHT = "50"


@dataclass(frozen=True, slots=True)
class Cell:
    """One way of posting at one Canvas."""

    name: str
    latency_ms: int
    per_second: float | None
    """None: one at a time."""
    posts: int
    """A round."""
    failing: bool = False


@dataclass(slots=True)
class Chain:
    """A site, its intake address, and the delays seen."""

    name: str
    site: Site
    url: str
    password: str
    delays: dict[str, list[float]] = field(default_factory=dict)


def cells(quick: bool) -> list[Cell]:
    """What is measured."""
    share = 4 if quick else 1
    return [
        Cell("150 ms, one at a time", 150, None, 40 // share),
        Cell("150 ms, 40/s", 150, 40, 400 // share),
        Cell("150 ms, 40/s, 1 % failing", 150, 40, 400 // share, failing=True),
        Cell("150 ms, 200/s", 150, 200, 1000 // share),
        Cell("0 ms, one at a time", 0, None, 150 // share),
        Cell("0 ms, 40/s", 0, 40, 400 // share),
        Cell("0 ms, 200/s", 0, 200, 1000 // share),
    ]


def run(ground: Ground, quick: bool) -> Result:
    """The scenario."""
    return asyncio.run(_run(ground, quick))


async def _run(ground: Ground, quick: bool) -> Result:
    rounds = 1 if quick else 3
    plan = cells(quick)
    with (
        _naive(ground, "naive", "bench.naive.deliver") as naive,
        _naive(ground, "faststream", "bench.naive.faststream_deliver") as peer,
        _ours(ground) as ours,
    ):
        chains = [naive, peer, ours]
        people = [f"{number:07d}" for number in range(100_000, 100_000 + rounds * sum(cell.posts for cell in plan))]
        for chain in chains:
            await _acquaint(chain, people)
        taken = iter(people)
        for _ in range(rounds):
            for cell in plan:
                chunk = [next(taken) for _ in range(cell.posts)]
                for chain in chains:
                    await _play(chain, cell, chunk)
    return _judge(plan, chains)


async def _acquaint(chain: Chain, people: Sequence[str]) -> None:
    """Enrol and drop everybody, as fast as it goes."""
    sis = Sis()
    groups = [people[at : at + 100] for at in range(0, len(people), 100)]
    async with Sender(chain.url, INTAKE_USER, chain.password) as sender:
        for status in ("E", "D") if chain.name == "ours" else ("E",):
            await sender.closed_loop([sis.change(group, status) for group in groups], 4)
            seen: set[str] = set()

            def done(seen: set[str] = seen) -> bool:
                seen.update(user for _, user, _, _, code in chain.site.canvas.log() if code == 200)
                return len(seen) == len(people)

            await until(done, 300, f"{chain.name} has told Canvas about {len(people)} people")
    if chain.name == "ours":
        with chain.site.ledger() as ledger:
            await until(lambda: ledger.execute("select not exists (select from work)").fetchone() == (True,), 120, "all settled")


async def _play(chain: Chain, cell: Cell, people: Sequence[str]) -> None:
    canvas = chain.site.canvas
    failing = [person for number, person in enumerate(people) if cell.failing and number % 100 == 50]
    canvas.set(latency_seconds=cell.latency_ms / 1000, failing=failing)
    canvas.log()
    sis = Sis()
    sis._stamp = sis._stamp.replace(year=2028)
    posts = [sis.change([person], "E") for person in people]
    wanted = set(people) - set(failing)
    answered: dict[str, float] = {}

    def all_there() -> bool:
        for _, user, _, at, code in canvas.log():
            if code == 200:
                answered.setdefault(user, at)
        return wanted <= answered.keys()

    def arrived(person: str) -> bool:
        return all_there() or person in answered

    async with Sender(chain.url, INTAKE_USER, chain.password) as sender:
        if cell.per_second is None:
            left = []
            for person, post in zip(people, posts, strict=True):
                left.append(await sender.send(post))
                await until(functools.partial(arrived, person), 30, "one change")
        else:
            left = await sender.open_loop(posts, cell.per_second, seed=len(chain.delays.get(cell.name, ())))
        await until(all_there, 120, f"{cell.name}: {chain.name} has told Canvas everything")
    delays = [answered[person] - at for person, at in zip(people, left, strict=True) if person in wanted]
    chain.delays.setdefault(cell.name, []).extend(1000 * delay for delay in delays)
    canvas.set()
    if failing and chain.name == "ours":
        with chain.site.ledger() as ledger:
            await until(lambda: ledger.execute("select not exists (select from work)").fetchone() == (True,), 300, "healed")


def _judge(plan: Sequence[Cell], chains: Sequence[Chain]) -> Result:
    naive, _, ours = chains
    result = Result("Overhead", METHOD, ["Canvas, load", "chain", "samples", "p50 ms", "p99 ms", "p50 / naive", "p99 / naive"])
    seen: dict[tuple[str, str], tuple[float, float]] = {}
    for cell in plan:
        for chain in chains:
            delays = chain.delays[cell.name]
            seen[chain.name, cell.name] = p50, p99 = percentile(delays, 0.5), percentile(delays, 0.99)
            base = seen[naive.name, cell.name]
            multiples = [f"{ratio(p50, base[0]):.2f}", f"{ratio(p99, base[1]):.2f}"]
            result.rows.append([cell.name, chain.name, str(len(delays)), f"{p50:.1f}", f"{p99:.1f}", *multiples])
    for name in ("150 ms, one at a time", "150 ms, 40/s", "150 ms, 200/s"):
        p50, p99 = (ratio(mine, base) for mine, base in zip(seen[ours.name, name], seen[naive.name, name], strict=True))
        result.expect(f"{name}: p50 ≤ 1.05 ×, p99 ≤ 1.15 × naive", f"{p50:.2f} ×, {p99:.2f} ×", p50 <= 1.05 and p99 <= 1.15)
    for name in ("0 ms, one at a time", "0 ms, 40/s"):
        p50, p99 = (ratio(mine - base, base) for mine, base in zip(seen[ours.name, name], seen[naive.name, name], strict=True))
        promise = f"{name}: added ≤ 2.1 × naive's own p50, ≤ 2.9 × its p99"
        result.expect(promise, f"{p50:.2f} ×, {p99:.2f} ×", p50 <= 2.1 and p99 <= 2.9)
    disturbed = ratio(seen[ours.name, "150 ms, 40/s, 1 % failing"][1], seen[ours.name, "150 ms, 40/s"][1])
    result.expect("1 % failing seats: the others' p99 ≤ 1.1 × that without", f"{disturbed:.2f} ×", disturbed <= 1.1)
    return result


@contextmanager
def _ours(ground: Ground) -> Iterator[Chain]:
    with ground.site("overhead-ours", consumer={"MAX_IN_FLIGHT": IN_FLIGHT}) as site:
        publisher, consumer = site.system.publisher(), site.system.consumer()
        publisher.start().await_ready(60)
        consumer.start().await_ready(60)
        yield Chain("ours", site, f"{publisher.url}/intake/peoplesoft", site.system.intake_password)


@contextmanager
def _naive(ground: Ground, name: str, deliver: str) -> Iterator[Chain]:
    with ground.site(f"overhead-{name}") as site:
        site.make_topics(f"{site.topics.prefix}.naive")
        variables = {**site.system.wiring.kafka, "TOPIC_PREFIX": site.topics.prefix}
        receiver = Service(site.processes, "receive", "bench.naive.receive", variables)
        site.start(receiver)
        site.run("deliver", deliver)
        yield Chain(name, site, f"{receiver.url}/intake/peoplesoft", site.system.intake_password)

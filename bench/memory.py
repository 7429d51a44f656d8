"""How much memory each service holds when it has most to do."""

from __future__ import annotations

import asyncio
import time

from bench import seeding
from bench.figures import Result
from bench.ground import Ground, Site
from bench.intake import Feed
from bench.load import Sender, Sis
from bench.machine import peak_mb, resident_mb
from services.sandbox.demo.processes import Process
from services.sandbox.demo.system import INTAKE_USER

BOUND_MB = 130


def run(ground: Ground, quick: bool) -> Result:
    """The scenario."""
    backlog = 50_000 if quick else 500_000
    method = (
        f"Resident size. The consumer starts on {backlog:,} unread events and {backlog:,} seats to remove, at a Canvas of 150 ms "
        "with 50 calls in flight; a minute of it. The publisher takes 80,000 rows in posts of 2,000, four at a time."
    )
    result = Result("Memory", method, ["process", "MB at the end", "MB at most"])
    with ground.site("memory-consumer", consumer={"MAX_IN_FLIGHT": "50"}) as site:
        consumer = _consumer(site, backlog, 20 if quick else 60)
    with ground.site("memory-publisher") as site:  # beside a log that the feed above filled, its mirror would be behind
        publisher = asyncio.run(_publisher(site, 10 if quick else 40))
    for name, (now, most) in {"consumer": consumer, "publisher": publisher}.items():
        result.rows.append([name, f"{now:.0f}", f"{most:.0f}"])
        result.expect(f"{name} ≤ {BOUND_MB} MB", f"{most:.0f} MB", most <= BOUND_MB)
    return result


def _consumer(site: Site, backlog: int, seconds: int) -> tuple[float, float]:
    site.prepare_ledger()
    site.make_topics(*site.topics.all())
    with site.ledger() as ledger:
        seeding.settle(ledger, 0, backlog)
        seeding.want_removed(ledger, 0, backlog)
    site.canvas.seed(seeding.LMS_SECTION, backlog)
    site.canvas.set(latency_seconds=0.15)
    Feed(site).produce(backlog, backlog)
    consumer = site.system.consumer().start()
    assert isinstance(consumer.process, Process)  # noqa: S101  (started)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        consumer.process.check()
        time.sleep(1)
    seen = resident_mb(consumer.process.pid), peak_mb(consumer.process.pid)
    consumer.stop()
    return seen


async def _publisher(site: Site, posts: int) -> tuple[float, float]:
    publisher = site.system.publisher().start().await_ready(60)
    assert isinstance(publisher.process, Process)  # noqa: S101  (started)
    sis = Sis()
    bodies = [sis.change([str(number) for number in range(first, first + 2000)], "E") for first in range(0, 2000 * posts, 2000)]
    async with Sender(f"{publisher.url}/intake/peoplesoft", INTAKE_USER, site.system.intake_password) as sender:
        await sender.closed_loop(bodies, 4)
    return resident_mb(publisher.process.pid), peak_mb(publisher.process.pid)

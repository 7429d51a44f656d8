"""The driver alone: calls a second without a throttle, and goodput with one."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import uvloop

from bench import seeding
from bench.figures import Result, percentile, ratio, spread
from bench.ground import Ground, Site
from bench.machine import cpu_seconds
from services.sandbox.canvas.throttle import ThrottleSettings

METHOD = """\
A consumer process whose ledger holds so many seats to remove, each known to be there: one DELETE a seat, with its intent
written before and its outcome after. Calls and CPU are counted between 10 % and 90 % of the work, so that start and end do
not count. The limit of n calls in flight at a Canvas of L seconds is n / L. Without latency there is none; the bare client is
aiohttp alone, sending the same calls without any ledger. The goal was 4,000 calls/s where that client made 11,500."""

THROTTLE_METHOD = """\
The sandbox's leaky bucket (600 units, 10 a second leak, 50 held by each request in flight) and a cost of {cost} units a call
at {latency} ms: in the long run it admits {rate:.1f} calls a second. Measured once the bucket is full, over {seconds} s,
with the setting for other tools (`RATE_LIMIT_RESERVE`) at its default."""


def run(ground: Ground, quick: bool) -> Result:
    """Calls a second."""
    result = Result("Driver", METHOD, ["Canvas", "in flight", "seats", "calls/s", "of the limit", "own CPU µs/call"])
    share = 5 if quick else 1
    rounds = 1 if quick else 3
    plan = [(0, 50, 30_000 // share), (150, 11, 1_000 // share), (150, 50, 5_000 // share), (150, 200, 15_000 // share)]
    for latency_ms, in_flight, seats in plan:
        rates, cpu, bare = [], [], []
        for _ in range(rounds):
            rate, micros = _drive(ground, latency_ms, in_flight, seats)
            rates.append(rate)
            cpu.append(micros)
            if not latency_ms:
                bare.append(_bare(ground, in_flight, seats))
        limit = in_flight / (latency_ms / 1000) if latency_ms else None
        rate = percentile(rates, 0.5)
        of_limit = f"{100 * rate / limit:.0f} %" if limit else "-"
        result.rows.append([f"{latency_ms} ms", str(in_flight), f"{seats:,}", spread(rates), of_limit, spread(cpu)])
        if limit is None:
            result.rows.append([f"{latency_ms} ms, bare client", str(in_flight), f"{seats:,}", spread(bare), "-", "-"])
            share_of_bare = ratio(rate, percentile(bare, 0.5))
            result.expect("0 ms: ≥ 0.35 × a bare client", f"{share_of_bare:.2f} ×", share_of_bare >= 0.35)
        elif in_flight <= 50:
            result.expect(f"150 ms, {in_flight} in flight: ≥ 92 % of the limit", of_limit, rate >= 0.92 * limit)
    return result


def throttle(ground: Ground, quick: bool) -> Result:
    """Goodput under the bucket."""
    cost, latency_ms, seconds = 0.5, 150, 30 if quick else 120
    bucket = ThrottleSettings()
    theory = bucket.outflow / cost
    method = THROTTLE_METHOD.format(cost=cost, latency=latency_ms, rate=theory, seconds=seconds)
    result = Result(
        "Throttled Canvas", method, ["calls/s", "of the bucket's rate", "refused of 1,000", "left in the bucket at the end"]
    )
    seats = int(theory * seconds + 3 * bucket.high_water_mark / cost)
    with _site(ground, seats, in_flight=50) as site:
        site.canvas.set(latency_seconds=latency_ms / 1000, throttled=True, cost=cost)
        site.system.consumer().start()
        _until_steady(site, theory)
        before = site.canvas.counts()
        time.sleep(seconds)  # a fixed window is what a rate needs
        after = site.canvas.counts()
    calls, refused = after["calls"] - before["calls"], after["refused"] - before["refused"]
    rate = (calls - refused) / (after["now"] - before["now"])
    all_refused = 1000 * after["refused"] / after["calls"]
    result.rows.append([f"{rate:.1f}", f"{100 * rate / theory:.0f} %", f"{1000 * refused / calls:.2f}", f"{after['left']:.0f}"])
    result.expect("≥ 95 % of the bucket's theoretical rate", f"{100 * rate / theory:.0f} %", rate >= 0.95 * theory)
    result.expect("< 1 refusal per 1,000 calls (whole run, burst included)", f"{all_refused:.2f}", all_refused < 1)
    return result


def _until_steady(site: Site, theory: float) -> None:
    """The bucket starts empty, so that a burst goes first; it is over when the rate has come down to the leak's and stays."""
    deadline = time.monotonic() + 180
    last, steady = site.canvas.counts(), 0
    while steady < 2:
        if time.monotonic() > deadline:
            raise TimeoutError("the driver never came down to the bucket's rate")
        time.sleep(3)
        now = site.canvas.counts()
        rate = (now["calls"] - last["calls"]) / (now["now"] - last["now"])
        steady = steady + 1 if 0 < rate < 1.15 * theory else 0
        last = now


def _drive(ground: Ground, latency_ms: int, in_flight: int, seats: int) -> tuple[float, float]:
    with _site(ground, seats, in_flight) as site:
        site.canvas.set(latency_seconds=latency_ms / 1000)
        consumer = site.system.consumer().start()
        assert consumer.process is not None  # noqa: S101  (started)
        answered: list[float] = []
        spent: list[tuple[int, float]] = []
        while len(answered) < seats:
            consumer.process.check()
            time.sleep(0.1)
            answered += [at for _, _, _, at, _ in site.canvas.log()]
            spent.append((len(answered), cpu_seconds(consumer.process.pid)))
    answered.sort()
    start, end = answered[seats // 10], answered[9 * seats // 10]
    (first, before), (last, after) = (next(one for one in spent if one[0] >= share * seats) for share in (0.1, 0.9))
    micros = 1e6 * (after - before) / (last - first) if last > first else math.nan
    return 0.8 * seats / (end - start), micros


def _bare(ground: Ground, in_flight: int, seats: int) -> float:
    """Calls a second of aiohttp alone."""
    with ground.site("bare-client") as site:
        site.canvas.seed(seeding.LMS_SECTION, seats)
        return uvloop.run(_call(f"{site.canvas.url}/api/v1/courses/1/enrollments", in_flight, seats))


async def _call(url: str, in_flight: int, seats: int) -> float:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), trust_env=False) as session:
        numbers, begun = iter(range(seats)), time.monotonic()

        async def worker() -> None:
            for number in numbers:
                async with session.delete(f"{url}/1{number:08d}?task=delete") as answer:
                    answer.raise_for_status()
                    await answer.read()

        await asyncio.gather(*(worker() for _ in range(in_flight)))
        return seats / (time.monotonic() - begun)


@contextmanager
def _site(ground: Ground, seats: int, in_flight: int) -> Iterator[Site]:
    """A ledger with work for `seats` seats; Canvas has them all; the consumer is not started."""
    with ground.site("driver", consumer={"MAX_IN_FLIGHT": str(in_flight)}) as site:
        site.prepare_ledger()
        with site.ledger() as ledger:
            seeding.settle(ledger, 0, seats)
            seeding.want_removed(ledger, 0, seats)
        site.canvas.seed(seeding.LMS_SECTION, seats)
        yield site

"""The intake alone: events a second into a ledger of growing size, beside a bare consume-and-upsert loop."""

from __future__ import annotations

import time

from confluent_kafka import Producer

from bench import seeding
from bench.figures import Result, percentile, ratio, spread
from bench.ground import Ground, Site
from bench.machine import cpu_seconds
from schemas import codec, headers, keys
from services.kit.postgres import Connection

METHOD = """\
A ledger with so many settled seats; then a topic full of events, four in five about seats that are there, is read by a
consumer process whose driver stands by (another holder has the lease). Timed in the ledger from the first stored offset to
the last. The bare loop reads the same records with the same client, parses the JSON, and upserts 500 at a time into one
table of the same size with the same array-literal binding, the offset in the same transaction. Warm: the same seats were
touched shortly before, so that full-page images after a checkpoint do not count."""


def run(ground: Ground, quick: bool) -> Result:
    """The scenario."""
    sizes = [10_000, 200_000] if quick else [10_000, 1_000_000, 5_000_000]
    events, rounds = (20_000, 1) if quick else (60_000, 3)
    columns = ["seats", "ours events/s", "bare loop events/s", "ours / bare", "own CPU µs/event"]
    result = Result("Intake", METHOD, columns)
    medians: dict[int, float] = {}
    with ground.site("intake", consumer={"KAFKA_GROUP_PROTOCOL": "classic"}) as site:
        site.prepare_ledger()
        site.make_topics(*site.topics.all())
        with site.ledger() as ledger:
            _keep_the_driver_out(ledger)
            ledger.execute("create table bare (key text primary key, version bigint not null, event jsonb not null)")
            ledger.execute("create table bare_offset (topic text, part int, next bigint, primary key (topic, part))")
        filled, feed = 0, Feed(site)
        for size in sizes:
            with site.ledger() as ledger:
                seeding.settle(ledger, filled, size)
                ledger.execute("insert into bare select key, version, event from entity on conflict (key) do nothing")
                ledger.execute("checkpoint")
            filled = size
            ours, bare, cpu = [], [], []
            for number in range(rounds + 1):
                feed.produce(events, size)
                rate, micros = _intake(site, events)
                base = _bare(site, events)
                if number:  # the first round warms the pages
                    ours.append(rate)
                    bare.append(base)
                    cpu.append(micros)
            medians[size] = percentile(ours, 0.5)
            share = ratio(medians[size], percentile(bare, 0.5))
            result.rows.append([f"{size:,}", spread(ours), spread(bare), f"{share:.2f}", spread(cpu)])
            if size == sizes[-1]:
                result.expect("≥ 0.3 × the bare loop", f"{share:.2f} × at {size:,} seats", share >= 0.3)
    cost = ratio(medians[sizes[0]], medians[sizes[-1]])
    result.expect(f"cost an event at {sizes[-1]:,} seats ≤ 1.2 × that at {sizes[0]:,}", f"{cost:.2f} ×", cost <= 1.2)
    return result


def _keep_the_driver_out(ledger: Connection) -> None:
    ledger.execute(
        """insert into lease (target, owner, epoch, expires_at)
           values ('canvas', 'bench', (extract(epoch from clock_timestamp()) * 1e6)::bigint,
                   clock_timestamp() + interval '1 day')"""
    )


class Feed:
    """Fills the enrollment topic; versions go up from call to call."""

    def __init__(self, site: Site) -> None:
        self._producer = Producer(site.kafka.producer(60_000) | {"linger.ms": 5, "queue.buffering.max.messages": 200_000})
        self._topic = site.topics.entity("enrollment")
        self._version = 1_800_000_000_000_000
        self._stranger = 90_000_000

    def produce(self, count: int, seats: int) -> None:
        """`count` events: four in five about seats below `seats`, spread evenly and alternately dropped and enrolled."""
        self._version += 1_000_000_000
        step = max(1, seats // count)
        for number in range(count):
            if number % 5 == 4:
                self._stranger += 1
                person = f"{self._stranger:08d}"
            else:
                person = f"{number * step % seats:08d}"
            status = "dropped" if self._version // 1_000_000_000 % 2 else "withdrawn"
            event = codec.build("enrollment", seeding.event_fields(person, self._version + number, status))
            while True:
                try:
                    self._producer.produce(
                        self._topic,
                        codec.encode(event),
                        keys.record_key(event.entity_key),
                        headers=[
                            *headers.event_headers(
                                "enrollment", event.version, event.content_hash, event.accepted_at, "bench"
                            ).items()
                        ],
                    )
                    break
                except BufferError:
                    self._producer.poll(0.1)
        assert self._producer.flush(60) == 0  # noqa: S101  (a run without its input is void)


def _intake(site: Site, events: int) -> tuple[float, float]:
    consumer = site.system.consumer().start()
    assert consumer.process is not None  # noqa: S101  (started)
    pid = consumer.process.pid
    with site.ledger() as ledger:
        seen = _stored(ledger)
        goal = seen + events
        first: tuple[float, int, float] | None = None
        while True:
            consumer.process.check()
            now = _stored(ledger)
            if first is None and now > seen:
                first = (time.monotonic(), now, cpu_seconds(pid))
            if now >= goal:
                break
            time.sleep(0.02)
        assert first is not None  # noqa: S101  (goal > seen)
        rate = (now - first[1]) / (time.monotonic() - first[0])
        micros = 1e6 * (cpu_seconds(pid) - first[2]) / (now - first[1])
    consumer.stop()
    return rate, micros


def _stored(ledger: Connection) -> int:
    row = ledger.execute("select coalesce(sum(next), 0)::bigint from intake_offset").fetchone()
    return int(row[0]) if row else 0


def _bare(site: Site, events: int) -> float:
    process = site.run("bare", "bench.naive.upsert", DATABASE_URL=site.system.wiring.ledger_url, EVENTS=str(events))
    site.processes.excuse(process)
    if process.wait(600) != 0:
        raise RuntimeError(f"the bare loop failed:\n{process.tail()}")
    return float(process.log.read_text().splitlines()[-1])

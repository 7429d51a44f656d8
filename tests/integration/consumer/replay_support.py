"""What the replay tests share: records in a log that may lose its beginning, a ledger that has taken them, and a runner."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from confluent_kafka import TopicPartition

from schemas import codec
from schemas.events import AnyEvent, Event
from schemas.topics import Topics
from services.consumer.ledger import recovery, replay_report, replays
from services.consumer.ledger.replay_report import Line
from services.consumer.ledger.replay_scopes import Scope
from services.consumer.ledger.replays import Order, Range, Replay
from services.consumer.log.ranges import RangeLog
from services.consumer.metrics import Metrics
from services.consumer.nouns import SeatRef
from services.consumer.replay.runner import Pace, ReplayRunner
from services.kit.kafka import KafkaSettings
from services.sandbox.broker import EmbeddedBroker
from tests.integration.consumer.api_support import Api
from tests.integration.consumer.ledger_support import TENANT, Ledger
from tests.kafka_clients import admin, producer

PACE = Pace(lease=5, look=0.05, wait=0.1, seats_per_second=10_000)


def produce(kafka: KafkaSettings, topic: str, values: Sequence[bytes | None], partition: int = 0) -> None:
    """Append records without keys to one partition, in order; returns when they are in the log."""
    shared = producer(kafka)
    for value in values:
        shared.produce(topic, value=value, partition=partition)
    assert shared.flush(10) == 0


def trim(request: pytest.FixtureRequest, kafka: KafkaSettings, topic: str, before: int, partition: int = 0) -> None:
    """Delete the records of a partition below an offset, as retention would."""
    broker: EmbeddedBroker = request.getfixturevalue("embedded_broker")
    if kafka.bootstrap_servers == broker.bootstrap_servers:
        broker.trim(topic, partition, before)
        return
    for answer in admin(kafka).delete_records([TopicPartition(topic, partition, before)]).values():
        answer.result(10)


class Operator:
    """Somebody who plans replays of a site and applies them; the runner runs when they wait for it."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site = site
        self.api = Api(site.ledger, folder, site.topics, site.log)

    async def plan(self, scope: dict[str, Any], *, verify: bool = False) -> dict[str, Any]:
        """Plan and wait for its end; returns the report."""
        answer = await self.api.call("POST", "/replays", json={"scope": scope, "verify": verify})
        assert answer.status_code == 202, answer.text
        return await self.ended(answer.json()["replay"])

    async def apply(self, plan: dict[str, Any], digest: str | None = None) -> httpx.Response:
        """Ask for a plan to be carried out."""
        asked = {"digest": digest or plan["digest"]}
        return await self.api.call("POST", f"/replays/{plan['replay']}/apply", json=asked)

    async def carry_out(self, scope: dict[str, Any], *, verify: bool = False) -> dict[str, Any]:
        """Plan, apply, wait; returns the report."""
        answer = await self.apply(await self.plan(scope, verify=verify))
        assert answer.status_code == 202, answer.text
        return await self.ended(answer.json()["replay"])

    async def ended(self, replay: str) -> dict[str, Any]:
        """The report of a replay after all that is stored was run."""
        await asyncio.to_thread(self.site.runner.run_stored)
        report = await self.report(replay)
        assert report["state"] == "done"
        return report

    async def report(self, replay: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.api.call("GET", f"/replays/{replay}")).json()
        return found

    async def changes(self, plan: dict[str, Any]) -> list[dict[str, Any]]:
        """What a plan would change."""
        found: list[dict[str, Any]] = (await self.api.call("GET", f"/replays/{plan['replay']}/changes")).json()["changes"]
        return found


def seat_told(person: str = "9000001", section: str = "1001") -> dict[str, str]:
    """A student's seat as the API tells it."""
    return {"target": "canvas", "lms_section": f"PSUNV-1259-{section}", "lms_user": person, "role": "StudentEnrollment"}


class Site:
    """A log, a ledger and a runner of replays over both."""

    def __init__(self, kafka: KafkaSettings, topics: Topics, ledger: Ledger) -> None:
        self.kafka = kafka
        self.topics = topics
        self.ledger = ledger
        self.metrics = Metrics()
        self.log = RangeLog(kafka, "replay-test")
        self.woken: set[SeatRef] = set()
        self.runner = self.new_runner()
        self._end: dict[str, int] = {}
        recovery.begin_session(ledger.connection, 0)  # the intake has been there before

    def new_runner(self, pace: Pace = PACE, pause: Callable[[float], object] | None = None) -> ReplayRunner:
        """A runner as another process would have it."""
        return ReplayRunner(self.ledger.url, self.log, self.topics, self.ledger.policies, self.metrics, self._wake, pace, pause)

    def _wake(self, seats: Collection[SeatRef]) -> bool:
        self.woken |= set(seats)
        return False

    def publish(self, *values: AnyEvent | bytes | None) -> range:
        """Put records into partition 0 of one topic (raw ones: enrollment's); returns their offsets."""
        kinds = {value.entity_key.kind for value in values if isinstance(value, Event)}
        topic = self.topics.entity(kinds.pop() if kinds else "enrollment")
        produce(self.kafka, topic, [codec.encode(value) if isinstance(value, Event) else value for value in values])
        self._end[topic] = self._end.get(topic, 0) + len(values)
        return range(self._end[topic] - len(values), self._end[topic])

    def replay(self, first: int = 0, last: int | None = None, *, kind: Any = "enrollment", **options: bool) -> UUID:
        """Order a replay and run it to its end."""
        replay = self.order(first, last, kind=kind, **options)
        self.runner.run_stored()
        assert self.state(replay).state == "done"
        return replay

    def order(self, first: int = 0, last: int | None = None, *, kind: Any = "enrollment", **options: bool) -> UUID:
        """Store a replay of offsets without running it."""
        topic = self.topics.entity(kind)
        bounds = self.log.bounds(topic, 0)
        assert bounds is not None
        end = bounds.high - 1 if last is None else last
        scope = {"offsets": {"topic": topic, "partition": 0, "from": first, "to": end}}
        return self.order_scope(scope, Range(topic, bounds.topic_id, 0, first, end, first), **options)

    def order_scope(self, scope: dict[str, Any], *ranges: Range, **options: bool) -> UUID:
        """Store a replay of any scope without running it."""
        asked = Scope.model_validate_json(json.dumps(scope)).at_home(TENANT, "canvas")
        flags: Any = {"dry_run": False, "verify": False} | options
        with self.ledger.connection.transaction():  # as the API does: a runner must not find it without its ranges
            return replays.create(self.ledger.connection, Order(asked, ranges, **flags), "tester")

    def replay_scope(self, scope: dict[str, Any], **options: bool) -> UUID:
        """Order a replay of a scope of the ledger and run it to its end."""
        replay = self.order_scope(scope, **options)
        self.runner.run_stored()
        assert self.state(replay).state == "done"
        return replay

    def state(self, replay: UUID) -> Replay:
        found = replays.find(self.ledger.connection, replay)
        assert found is not None
        return found

    def lines(self, replay: UUID) -> list[Line]:
        return replay_report.lines(self.ledger.connection, replay, 0, 10_000)

    def verdicts(self, replay: UUID) -> list[str]:
        """In the order of the offsets; the counts agree."""
        verdicts = [line.verdict for line in self.lines(replay)]
        counted = replay_report.counts(self.ledger.connection, replay)
        assert counted == {verdict: verdicts.count(verdict) for verdict in verdicts}
        return list(verdicts)

    def expire(self) -> None:
        """The owner of every replay has been silent for too long."""
        self.ledger.connection.execute("update replay set owned_until = clock_timestamp() - interval '1 second'")

    def fail(self, ref: SeatRef, state: str, reason: str | None = "refused") -> None:
        """Let the seat's work be as a driver leaves it after a failure; `waiting` waits for the user."""
        if state == "waiting":
            self.ledger.connection.execute(
                """insert into dependency (target, kind, object, state, next_probe_at)
                   values (%s, 'user', '9000001', 'missing', now() + interval '1 hour') on conflict do nothing""",
                [ref.target],
            )
        self.ledger.connection.execute(
            """update work set state = %(state)s, reason = %(reason)s, attempts = 7, next_at = now() + interval '1 hour',
                               waits_kind = case when %(state)s = 'waiting' then 'user' end,
                               waits_object = case when %(state)s = 'waiting' then '9000001' end
                where target = %(target)s and seat = %(seat)s""",
            {"state": state, "reason": reason, "target": ref.target, "seat": ref.seat},
        )

    def work_row(self, ref: SeatRef) -> tuple[Any, ...] | None:
        """(state, attempts, due, read_first, reason, waits_object) of a seat's work."""
        rows = self.ledger.rows(
            """select state, attempts, next_at <= clock_timestamp(), read_first, reason, waits_object
                 from work where target = %s and seat = %s""",
            *ref,
        )
        return rows[0] if rows else None

    def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every table of the ledger but those that say what was replayed and who asked."""
        names = self.ledger.rows(
            """select tablename from pg_tables
                where schemaname = 'ledger' and tablename <> 'audit' and not starts_with(tablename, 'replay')"""
        )
        return {name: sorted(self.ledger.rows(f"select * from {name}"), key=str) for (name,) in names}  # noqa: S608

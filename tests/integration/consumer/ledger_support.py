"""What the ledger's tests share: invented events, and a ledger that takes them as the intake does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from schemas import codec
from schemas.events import (
    AnyEvent,
    EnrollmentEvent,
    EnrollmentRole,
    EnrollmentStatus,
    OrderToken,
    PersonEvent,
    SectionEvent,
    SourceRow,
)
from services.consumer.ledger import database, members, policies
from services.consumer.ledger.assertions import violations
from services.consumer.ledger.dead_letters import Timer, Timers
from services.consumer.ledger.deciding import decide_persons
from services.consumer.ledger.decision_writing import Cause
from services.consumer.ledger.entities import Arrival, Fate, take
from services.consumer.ledger.policies import Policies
from services.consumer.nouns import PersonRef, SeatRef, seat_key
from services.kit.postgres import Connection
from tests.policies import unguarded

TENANT = "main"
START = datetime(2026, 9, 1, 8, tzinfo=UTC)
TIMERS = Timers({"concluded": Timer(86_400, None), "refused": Timer(21_600, 2)}, otherwise=Timer(21_600, 1))


class Heard(list[SeatRef]):
    """Keeps the seats that a driver would hear of; another process drives."""

    def wake(self, seats: Collection[SeatRef]) -> bool:
        self.extend(seats)
        return False


def enrollment(
    status: EnrollmentStatus = "enrolled",
    *,
    version: int = 1,
    person: str = "9000001",
    section: str = "1001",
    role: EnrollmentRole = "student",
    tenant: str = TENANT,
    channel: str | None = None,
) -> EnrollmentEvent:
    """One person in one section; `channel` is the way its source row came by."""
    token = OrderToken(channel=channel) if channel else None
    return hashed(
        EnrollmentEvent(
            tenant=tenant,
            version=version,
            content_hash="0" * 32,
            accepted_at=START + timedelta(seconds=version),
            institution="PSUNV",
            term="1259",
            section=section,
            person=person,
            role_family="learner" if role in ("student", "auditor") else "staff",
            status=status,
            role=role,
            source_rows=[SourceRow(record="STDNT_ENRL", key={"EMPLID": person}, values={}, order=token)] if token else [],
        )
    )


def section_event(
    status: Any = "active",
    *,
    version: int = 1,
    section: str = "1001",
    course: str | None = None,
    component: str | None = None,
) -> SectionEvent:
    """One section's own event."""
    return hashed(
        SectionEvent(
            tenant=TENANT,
            version=version,
            content_hash="0" * 32,
            accepted_at=START + timedelta(seconds=version),
            institution="PSUNV",
            term="1259",
            section=section,
            status=status,
            course=course,
            component=component,
        )
    )


_Event = TypeVar("_Event", EnrollmentEvent, SectionEvent, PersonEvent)


def hashed(event: _Event) -> _Event:
    """The event with the hash of its own content."""
    return event.model_copy(update={"content_hash": codec.content_hash(codec.state(event))})


def seat(person: str = "9000001", section: str = "1001", role: str = "StudentEnrollment") -> SeatRef:
    """The seat that the packaged policy gives."""
    return SeatRef("canvas", seat_key(f"PSUNV-1259-{section}", person, role))


def arrivals(*events: AnyEvent, first_offset: int = 0) -> list[Arrival]:
    """The events as records of one partition."""
    return [
        Arrival.of(event, codec.encode(event), f"enrollstream.{event.entity_key.kind}.v1", 0, first_offset + number)
        for number, event in enumerate(events)
    ]


class Ledger:
    """A ledger with the packaged policy, but its guard, in a database of its own."""

    def __init__(self, url: str) -> None:
        database.migrate(url)
        self.url = url
        self.connection = database.connect(url)
        self.policies = Policies("canvas", swap_settle_seconds=3)
        policies.ensure(self.connection, TENANT, unguarded())
        self.effects: Counter[Any] = Counter()

    def take(self, *events: AnyEvent) -> list[Fate]:
        """Take the events in one transaction, as the intake does; returns what became of each."""
        return [fate for _, fate in self.take_batch(self.connection, arrivals(*events))]

    def take_batch(self, connection: Connection, batch: Sequence[Arrival]) -> list[tuple[Arrival, Fate]]:
        with connection.transaction():
            taken = take(connection, batch, self.policies)
            self.decide(connection, taken.persons)
        return taken.fates

    def kill(self, ref: SeatRef, reason: str, code: str | None = None) -> None:
        """What the driver does when the LMS refuses a seat."""
        self.connection.execute(
            "update work set state = 'dead', reason = %s, code = %s, attempts = 1 where (target, seat) = (%s, %s)",
            [reason, code, *ref],
        )

    def decide(self, connection: Connection, persons: set[PersonRef], cause: Cause = "intake") -> set[SeatRef]:
        return decide_persons(connection, persons, self.policies, cause=cause, effects=self.effects)

    def decide_queued(self) -> int:
        """Decide the members of large sections that changed, as the housekeeping does; how many transactions that took."""
        rounds = 0
        while (decided := members.decide_next(self.connection, self.policies)) is not None:
            self.effects.update(decided.effects)
            rounds += 1
        return rounds

    def desired(self) -> dict[SeatRef, str]:
        return {SeatRef(*ref): state for *ref, state in self.rows("select target, seat, desired from seat")}

    def work(self) -> dict[SeatRef, str]:
        return {SeatRef(*ref): state for *ref, state in self.rows("select target, seat, state from work")}

    def settle(self, *refs: SeatRef) -> None:
        """What the driver does when the LMS confirmed everything that is wanted."""
        for ref in refs or tuple(self.work()):
            self.connection.execute("update seat set applied = desired where (target, seat) = (%s, %s)", ref)
            self.connection.execute("delete from work where (target, seat) = (%s, %s)", ref)

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self.connection.execute(query.encode(), parameters).fetchall()

    def history(self, what: str) -> list[dict[str, Any]]:
        return [detail or {} for (detail,) in self.rows("select detail from history where what = %s order by at", what)]

    def check(self) -> None:
        """The assertions hold."""
        assert violations(self.connection, self.policies) == []

    def close(self) -> None:
        self.connection.close()

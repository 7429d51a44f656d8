"""What the driver's tests share: seats written straight into a ledger, and an LMS that does what a test says."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from services.consumer.drive.driver import Driver
from services.consumer.drive.lease import Lease, acquire
from services.consumer.guard.reviewing import Review
from services.consumer.ledger import database
from services.consumer.ledger.policies import Policies
from services.consumer.metrics import Metrics
from services.consumer.nouns import PRIORITY_DROP, Effect, MissingKind, Seat, SeatState
from services.consumer.rosters.comparing import Comparison
from services.consumer.targets.port import (
    Done,
    Failure,
    NotThere,
    Observation,
    ObservedState,
    Outcome,
    Presence,
    RosterPage,
    RosterRow,
    Target,
    Usage,
)

TARGET = "canvas"


@dataclass(frozen=True, slots=True)
class Timing:
    """Settings in which a lease passes over within two seconds."""

    lease_seconds: float = 2.0
    lease_renew_seconds: float = 0.4
    call_timeout_seconds: float = 1.0
    late_bound_seconds: float = 0.6
    replica_lag_seconds: float = 0.1
    max_in_flight: int = 10
    rate_limit_reserve: float = 0.0
    rate_limit_reserve_percent: float = 0.0
    compare_every_hours: float = 0.0
    stop_seconds: float = 7.0


def seat_of(
    person: str,
    section: str = "S-1",
    course: str | None = "C-1",
    role: str = "StudentEnrollment",
    *,
    term: str = "1259",
    target: str = TARGET,
) -> Seat:
    """A seat of one invented person."""
    return Seat(target, "main", person, f"PSUNV/{term}/{section}", course, section, person, role, role)


class SeatLedger:
    """A ledger whose seats and work a test writes itself."""

    def __init__(self, url: str) -> None:
        database.migrate(url)
        self.url = url
        self.connection = database.connect(url)

    def want(
        self,
        seat: Seat,
        desired: SeatState = "active",
        *,
        applied: str = "unknown",
        effect: Effect | None = None,
        priority: int | None = None,
        enrollment: str | None = None,
        due_in: float = 0.0,
    ) -> str:
        """A seat with pending work, as deciding and guard leave it; wanted already: with the next decision. Returns its key."""
        drop = desired != "active"
        self.connection.execute(
            """insert into seat (target, seat, tenant, person, section, course, lms_section, lms_user, role, base_role, desired,
                                 effect, version, policy_version, accepted_at, applied, lms_enrollment, lms_course)
               values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 1, 1, clock_timestamp(), %s, %s, %s)
               on conflict (target, seat) do update
                  set desired = excluded.desired, effect = excluded.effect, version = seat.version + 1,
                      decision = seat.decision + 1, accepted_at = excluded.accepted_at""",
            [
                *(seat.target, seat.ref.seat, seat.tenant, seat.person, seat.section, seat.course),
                *(seat.lms_section, seat.lms_user, seat.role, seat.base_role, desired),
                *(effect or ("drop" if drop else "add"), applied, enrollment, enrollment and "c1"),
            ],
        )
        self.connection.execute(
            """insert into work (target, seat, tenant, person, course, state, priority, next_at, cleared)
               select target, seat, tenant, person, course, 'pending', %s, clock_timestamp() + %s * interval '1 s', decision
                 from seat where (target, seat) = (%s, %s)
               on conflict (target, seat) do update
                  set state = 'pending', priority = excluded.priority, next_at = excluded.next_at, attempts = 0, reason = null,
                      waits_kind = null, waits_object = null, cleared = excluded.cleared""",
            [priority if priority is not None else (0 if drop else 2), due_in, *seat.ref],
        )
        return seat.ref.seat

    def backlog(
        self, count: int, *, term: str = "1259", priority: int = 2, target: str = TARGET, waits_for: str | None = None
    ) -> None:
        """So many seats of as many people that are due, or wait for a section that the LMS lacks. Asked for again: more."""
        start = self.one("select count(*) from seat")
        values = {"first": start + 1, "last": start + count, "term": term, "priority": priority, "target": target}
        values["waits_for"] = waits_for
        values["desired"] = "deleted" if priority == PRIORITY_DROP else "active"
        self.connection.execute(
            """insert into seat (target, seat, tenant, person, section, lms_section, lms_user, role, base_role, desired, effect,
                                 version, policy_version, accepted_at, applied)
               select %(target)s, 'seat-' || i, 'main', 'person-' || i, 'PSUNV/' || %(term)s || '/S', %(term)s || '-S',
                      'person-' || i, 'StudentEnrollment', 'StudentEnrollment', %(desired)s, 'add', 1, 1, clock_timestamp(),
                      case when %(desired)s = 'active' then 'absent' else 'active' end
                 from generate_series(%(first)s::int, %(last)s::int) as i""",
            values,
        )
        self.connection.execute(
            """insert into work (target, seat, tenant, person, term, state, priority, next_at, cleared, waits_kind, waits_object)
               select %(target)s, 'seat-' || i, 'main', 'person-' || i, 'PSUNV/' || %(term)s,
                      case when %(waits_for)s::text is null then 'pending' else 'waiting' end, %(priority)s, clock_timestamp(), 1,
                      case when %(waits_for)s::text is not null then 'section' end, %(waits_for)s::text
                 from generate_series(%(first)s::int, %(last)s::int) as i""",
            values,
        )

    def one(self, query: str, *parameters: object) -> Any:
        """The first row: its value if it has one column, None without a row."""
        row = self.connection.execute(query.encode(), parameters).fetchone()
        return row if row is None or len(row) > 1 else row[0]

    def seat(self, key: str) -> dict[str, Any]:
        """The seat's row."""
        cursor = self.connection.execute("select * from seat where seat = %s", [key])
        row = cursor.fetchone()
        assert row is not None
        assert cursor.description is not None
        return {column.name: value for column, value in zip(cursor.description, row, strict=True)}

    def applied(self, key: str) -> str:
        """What the ledger believes."""
        return str(self.one("select applied from seat where seat = %s", key))

    def work(self, key: str) -> str | None:
        """The state of the seat's work, None when it has none."""
        state = self.one("select state from work where seat = %s", key)
        return None if state is None else str(state)

    def outcomes(self, key: str) -> list[str]:
        """The outcomes in the seat's history, oldest first."""
        rows = self.connection.execute(
            "select detail ->> 'outcome' from history where seat = %s and what = 'outcome' order by at", [key]
        ).fetchall()
        return [outcome for (outcome,) in rows]

    def lease(self, owner: str = "somebody", ttl_seconds: float = 60.0) -> Lease:
        """Take the lease, which must be free."""
        lease = acquire(self.connection, TARGET, owner, ttl_seconds)
        assert lease is not None
        return lease

    def close(self) -> None:
        self.connection.close()


Script = Callable[["ScriptedLms", Seat, SeatState], Awaitable[Outcome]]


@dataclass
class ScriptedLms:
    """An LMS in memory that keeps rows, and whose next answers a test may script per person. `Target` by shape.

    Rules for scripts: an exception is a defect; a script decides itself whether the change takes effect (`apply`).
    """

    rows: dict[tuple[str, str], ObservedState] = field(default_factory=dict)
    missing: set[tuple[MissingKind, str]] = field(default_factory=set)
    writes: list[tuple[str, str, SeatState]] = field(default_factory=list)
    """(person, section, wanted) of every change that was asked for."""
    reads: list[tuple[float, str]] = field(default_factory=list)
    """(monotonic time, person)."""
    scripts: defaultdict[str, deque[Script]] = field(default_factory=lambda: defaultdict(deque))
    """Per person, used up one by one."""
    always: dict[str, Script] = field(default_factory=dict)
    read_scripts: dict[str, Callable[[Seat], Awaitable[Observation | Failure]]] = field(default_factory=dict)
    seconds: float = 0.0
    in_flight: int = 0
    most_in_flight: int = 0
    people: list[str] = field(default_factory=list)
    """People with a change under way."""
    overlaps: int = 0

    async def read(self, seat: Seat) -> Observation | Failure:
        self.reads.append((time.monotonic(), seat.person))
        await asyncio.sleep(self.seconds)
        if seat.person in self.read_scripts:
            return await self.read_scripts[seat.person](seat)
        lacking = self._lacking(seat)
        return lacking or self.observe(seat)

    async def write(self, seat: Seat, wanted: SeatState, seen: Observation) -> Outcome:
        self.writes.append((seat.person, seat.lms_section, wanted))
        self.overlaps += seat.person in self.people
        self.people.append(seat.person)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.seconds)
            script = self.scripts[seat.person].popleft() if self.scripts[seat.person] else self.always.get(seat.person)
            if script is not None:
                return await script(self, seat, wanted)
            return self._lacking(seat) or self.apply(seat, wanted)
        finally:
            self.in_flight -= 1
            self.people.remove(seat.person)

    async def probe(self, kind: MissingKind, sis_id: str) -> Presence | Failure:
        await asyncio.sleep(self.seconds)
        return Presence((kind, sis_id) not in self.missing)

    async def roster(self, lms_section: str, page: str | None = None) -> RosterPage | Failure:
        await asyncio.sleep(self.seconds)
        if ("section", lms_section) in self.missing:
            return NotThere("section")
        rows = [
            RosterRow(person, "StudentEnrollment", "StudentEnrollment", Observation(state, f"e-{person}-{section}", "c1"))
            for (person, section), state in self.rows.items()
            if section == lms_section and state != "absent"
        ]
        return RosterPage(tuple(rows), None)

    async def close(self) -> None:
        pass

    def apply(self, seat: Seat, wanted: SeatState) -> Done:
        """Change the row and say so."""
        self.rows[seat.person, seat.lms_section] = wanted
        return Done(self.observe(seat), Usage(1))

    def observe(self, seat: Seat) -> Observation:
        state = self.rows.get((seat.person, seat.lms_section), "absent")
        return Observation(state, None if state == "absent" else f"e-{seat.person}-{seat.lms_section}", "c1")

    def _lacking(self, seat: Seat) -> NotThere | None:
        user, section = ("user", seat.lms_user) in self.missing, ("section", seat.lms_section) in self.missing
        if not (user or section):
            return None
        return NotThere("both" if user and section else "user" if user else "section")


def answering(outcome: Outcome, *, applies: bool = False) -> Script:
    """A script: this answer, after the change took effect or without it."""

    async def script(lms: ScriptedLms, seat: Seat, wanted: SeatState) -> Outcome:
        if applies:
            lms.apply(seat, wanted)
        return outcome

    return script


async def _never(lms: ScriptedLms, seat: Seat, wanted: SeatState) -> Outcome:
    await asyncio.Event().wait()
    raise AssertionError


def hanging() -> Script:
    """A script: no answer and no effect."""
    return _never


@dataclass
class Told:
    """An observer that remembers."""

    confirmations: list[tuple[Effect, float]] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    reviews: list[Review] = field(default_factory=list)
    failures: int = 0
    comparisons: list[Comparison] = field(default_factory=list)
    compared_times: int = 0

    def called(self, endpoint: str, outcome: str, seconds: float, usage: Usage | None) -> None:
        self.calls.append((endpoint, outcome))

    def confirmed(self, effect: Effect, age_seconds: float) -> None:
        self.confirmations.append((effect, age_seconds))

    def died(self, reason: str) -> None:
        self.dead.append(reason)

    def lease(self, *, held: bool) -> None:
        pass

    def guarded(self, review: Review) -> None:
        self.reviews.append(review)

    def guard_failed(self) -> None:
        self.failures += 1

    def roster_read(self, comparison: Comparison) -> None:
        self.comparisons.append(comparison)

    def compared(self) -> None:
        self.compared_times += 1

    def rosters_failed(self) -> None:
        self.failures += 1


@contextlib.asynccontextmanager
async def driving(
    url: str, lms: Target, timing: Timing | None = None, told: Told | None = None, target: str = TARGET
) -> AsyncIterator[Driver]:
    """A driver at work; stopped, and awaited, on leaving."""
    driver = Driver(timing or Timing(), url, target, lms, Policies(target), Metrics(), told or Told())
    running = asyncio.create_task(driver.run())
    try:
        yield driver
        driver.stop()
        await asyncio.wait_for(running, 20)
    finally:
        if not running.done():
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def eventually(condition: Callable[[], object], within: float = 10.0) -> None:
    """Until `condition` holds; fails after `within` seconds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.02)

"""Beside the work of one lease: reads the rosters that a comparison asks for, at a pace that leaves the token to the work."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable
from functools import partial

import psycopg
import structlog

from services.consumer.drive.backoff import FAULT
from services.consumer.drive.caller import Caller
from services.consumer.drive.lease import Lease, holding
from services.consumer.drive.observer import Observer
from services.consumer.drive.owner import Owner, ledger_may_be_away
from services.consumer.drive.pacing import Gate
from services.consumer.drive.settings import DriveSettings, suspect_seconds
from services.consumer.ledger.policies import Policies
from services.consumer.rosters import adopting, adoptions, recording, runs, sections
from services.consumer.rosters.adopting import Adopted
from services.consumer.rosters.runs import Scope
from services.consumer.rosters.sections import Section
from services.consumer.targets.port import (
    Failure,
    NoPermission,
    NotThere,
    Observation,
    Refused,
    RosterRow,
    ServerFault,
    Throttled,
    WrongShape,
)
from services.kit.intervals import Intervals
from services.kit.postgres import AWAY, Connection

log = structlog.get_logger()

_EVERY_SECONDS = 1.0
_SHARE = 0.2
"""Of the token's calls in flight; the others are left to the seats that can be worked on."""
_SCHEDULE_EVERY_SECONDS = 60.0
_TIDY_EVERY_SECONDS = 3.0
_MOST_PAGES = 200
"""Of one roster: 20,000 people."""
_MANY_DOUBTS = 50
"""Seats to be read one by one where the LMS shows no SIS id at all: then the token lacks the right to see them."""
_TOO_MUCH = (
    psycopg.errors.QueryCanceled,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.IdleInTransactionSessionTimeout,
)
"""The ledger is there, and one section was too much for it, or met somebody who had the same seats."""


class Rostering:
    """Runs beside the work of one lease. A section's roster is read page by page; what it leaves in doubt is read seat by seat;
    then all of it is recorded at once."""

    def __init__(
        self,
        caller: Caller,
        gate: Gate,
        keeping: Owner,
        policies: Policies,
        observer: Observer,
        settings: DriveSettings,
        wake: Callable[[], None],
    ) -> None:
        """`wake` is called when seats may have become ready."""
        self._caller = caller
        self._gate = gate
        self._keeping = keeping
        self._policies = policies
        self._observer = observer
        self._every_seconds = settings.compare_every_hours * 3600
        """So often everything is compared without being asked; 0: never."""
        self._quiet_seconds = suspect_seconds(settings)
        self._wake = wake
        self._intervals = Intervals()

    async def run(self, lease: Lease) -> None:
        """Until cancelled."""
        while True:
            read = 0
            try:
                with ledger_may_be_away(lease.target, "rosters"):
                    await self._now_and_then(lease)
                    read = await self._some(lease)
            except Exception as error:  # a defect of ours: rosters stay unread, everything else goes on
                self._observer.rosters_failed()
                log.error("rosters_failed", target=lease.target, exc_info=error)
            await asyncio.sleep(0 if read else _EVERY_SECONDS)

    async def _now_and_then(self, lease: Lease) -> None:
        if self._intervals.is_due("tidy", _TIDY_EVERY_SECONDS):
            await self._keeping.run(lambda it: sections.forget_cured(it, lease.target))
            await self._adopt(lease)
        if self._every_seconds and self._intervals.is_due("schedule", _SCHEDULE_EVERY_SECONDS):
            await self._keeping.run(lambda it: self._start_when_due(it, lease))

    async def _adopt(self, lease: Lease) -> None:
        """What rosters were recorded with and is not adopted yet, whoever recorded them."""
        for lms_section in await self._keeping.run(lambda it: adoptions.due(it, lease.target)):
            try:
                adopted = await self._keeping.run(partial(self._adopt_section, lease, lms_section))
            except _TOO_MUCH as error:
                log.warning("roster_not_adopted", target=lease.target, error_type=type(error).__name__)
            except AWAY:
                raise
            except Exception as error:  # a defect of ours in one section: what is marked in it is left to the next comparison
                self._observer.rosters_failed()
                log.error("roster_not_adopted", target=lease.target, exc_info=error)
                await self._keeping.run(partial(adoptions.forget, target=lease.target, lms_section=lms_section))
            else:
                log.info("roster_adopted", target=lease.target, count=adopted.seats)
                if adopted.work:
                    self._wake()

    def _adopt_section(self, lease: Lease, lms_section: str, connection: Connection) -> Adopted:
        return adopting.adopt(connection, lease.target, lms_section, self._policies, holding(lease))

    def _start_when_due(self, connection: Connection, lease: Lease) -> None:
        if sections.is_running(connection, lease.target) or not runs.is_due(connection, lease.target, self._every_seconds):
            return
        with connection.transaction():
            run = uuid.uuid4()
            count = runs.start(connection, lease.target, run, Scope(), self._policies, "schedule", repair=True, ended_terms=False)
            runs.forget_old(connection, lease.target)
        log.info("rosters_begun", target=lease.target, run=str(run), count=count)

    async def _some(self, lease: Lease) -> int:
        """Read a few sections at once; how many."""
        if not await self._keeping.run(lambda it: sections.is_running(it, lease.target)):
            return 0
        capacity = self._gate.capacity()
        if capacity == 0:
            return 0
        limit = max(1, int(capacity * _SHARE))
        due = await self._keeping.run(lambda it: sections.due(it, lease.target, limit, self._quiet_seconds))
        if due:
            await asyncio.gather(*(self._attempt(lease, section) for section in due))
        else:
            ended = await self._keeping.run(lambda it: sections.end_if_done(it, lease.target, holding(lease)))
            if ended is not None:
                if ended.failed == 0:
                    self._observer.compared()
                log.info("rosters_compared", target=lease.target, run=str(ended.run), count=ended.failed)
        return len(due)

    async def _attempt(self, lease: Lease, section: Section) -> None:
        try:
            await self._section(lease, section)
        except _TOO_MUCH as error:
            log.warning("roster_not_recorded", target=lease.target, error_type=type(error).__name__)
            await self._put_off(lease, section, ServerFault("ledger"))
        except AWAY:
            raise
        except Exception as error:  # a defect of ours in one section; the others are compared
            self._observer.rosters_failed()
            log.error("roster_failed", target=lease.target, exc_info=error)
            await self._put_off(lease, section, ServerFault("defect"))

    async def _section(self, lease: Lease, section: Section) -> None:
        roster = await self._roster(section)
        if isinstance(roster, NotThere):
            await self._keeping.run(lambda it: sections.missing(it, lease.target, section, holding(lease)))
        elif isinstance(roster, list):
            await self._record(lease, section, roster)
        else:
            await self._put_off(lease, section, roster)

    async def _roster(self, section: Section) -> list[RosterRow] | Failure:
        rows: list[RosterRow] = []
        following = None
        for _ in range(_MOST_PAGES):
            page = await self._caller.roster(section.lms_section, following)
            if isinstance(page, Failure):
                return page
            rows += page.rows
            following = page.next_page
            if following is None:
                return rows
        return WrongShape("endless_list")

    async def _record(self, lease: Lease, section: Section, roster: list[RosterRow]) -> None:
        reads: dict[str, Observation] = {}
        accountless = set()
        doubtful = await self._keeping.run(lambda it: recording.doubtful(it, lease.target, section, roster))
        if len(doubtful) > _MANY_DOUBTS and all(row.lms_user is None for row in roster):
            await self._put_off(lease, section, Refused("no_sis_ids"))
            return
        for key, seat in doubtful.items():
            seen = await self._caller.look(seat)
            if isinstance(seen, Throttled) or (isinstance(seen, NoPermission) and seen.whole_token):
                await self._put_off(lease, section, seen)
                return
            if isinstance(seen, Observation):
                reads[key] = seen
            elif isinstance(seen, NotThere):
                reads[key] = Observation("absent")
                accountless.add(key)
            # Of what cannot be read nothing is said; the others are.
        recorded = await self._keeping.run(
            lambda it: recording.record(it, lease.target, section, roster, reads, self._policies, holding(lease), accountless)
        )
        if recorded is not None:
            self._observer.roster_read(recorded)
            self._wake()

    async def _put_off(self, lease: Lease, section: Section, failure: Failure) -> None:
        """What concerns the whole token is none of the section's failures."""
        counts = not (isinstance(failure, Throttled) or (isinstance(failure, NoPermission) and failure.whole_token))
        delay = FAULT.delay(section.attempts + 1, random.random())  # noqa: S311
        code = getattr(failure, "code", None)
        reason = f"{failure.label}:{code}" if code else failure.label
        await self._keeping.run(
            lambda it: sections.put_off(it, lease.target, section, reason, delay, holding(lease), counts=counts)
        )

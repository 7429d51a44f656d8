"""One attempt at one seat: read if need be, change if need be, within the intent's time and the token's pace."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import structlog

from services.consumer.drive.observer import Observer
from services.consumer.drive.orders import Order
from services.consumer.drive.pacing import Clock, Gate
from services.consumer.drive.reactions import Attempt, NotSent
from services.consumer.nouns import MissingKind, Seat, satisfied, takes_away
from services.consumer.targets.objects import NoObject, NoParent, ObjectOutcome, ObjectTarget, ShownObject, WantedObject
from services.consumer.targets.port import (
    AlreadySo,
    Failure,
    NoPermission,
    Observation,
    Outcome,
    Presence,
    RosterPage,
    ServerFault,
    Target,
    Throttled,
    Unknown,
    WrongShape,
)

log = structlog.get_logger()
_Answer = Outcome | Observation | Presence | RosterPage | ShownObject | NoObject | NoParent
Result = TypeVar("Result", bound=_Answer)


class Caller:
    """Makes all calls to the target. A defect of the target costs the seat an attempt, never the driver its life."""

    def __init__(self, target: Target, gate: Gate, observer: Observer, call_timeout_seconds: float, clock: Clock) -> None:
        self._target = target
        self._gate = gate
        self._observer = observer
        self._timeout = call_timeout_seconds
        self._clock = clock

    async def attempt(self, order: Order) -> Attempt:
        """Never raises, not even when cancelled: what was sent has to be recorded."""
        started = self._clock()
        result, seen, wrote = await self._attempt(order)
        return Attempt(result, seen, wrote, self._clock() - started)

    async def _attempt(self, order: Order) -> tuple[Outcome | NotSent, Observation | None, bool]:
        """Result, what was read, and whether a change was begun."""
        seen = None
        if order.must_read:
            result = await self._read(order)
            if not isinstance(result, Observation):
                return result, None, False
            seen = result
        known = seen or order.believed
        if satisfied(order.desired, known.state):
            return AlreadySo(known), seen, False
        if order.call == "read" or (takes_away(order.desired, known.state) and not order.cleared):
            # Nothing seemed to be left to do when the intent was written, or nothing that takes access away: it allows no change.
            # The next one will, perhaps after the guard has let it through.
            return NotSent(), seen, False
        outcome = await self._write(order, known)
        return outcome, seen, not isinstance(outcome, NotSent)

    async def _read(self, order: Order) -> Observation | Failure | NotSent:
        if not await self._entered(order.send_by):
            return NotSent()
        try:
            return await self._timed("read", order.key, self._timeout, ServerFault, lambda: self._target.read(order.seat))
        except asyncio.CancelledError:
            return NotSent()

    async def _write(self, order: Order, known: Observation) -> Outcome | NotSent:
        write = partial(self._target.write, order.seat, order.desired, known)
        try:
            return await self._change("write", order.key, order.send_by, write)
        except asyncio.CancelledError:
            return Unknown("cancelled")

    async def _change(
        self, endpoint: str, subject: str, send_by: float, operation: Callable[[], Awaitable[Result]]
    ) -> Result | ServerFault | Unknown | NotSent:
        """Something that changes the LMS, not sent after its time."""
        if not await self._entered(send_by):
            return NotSent()
        left = send_by - self._clock()
        if left < 0:
            # Another driver may take our silence for death soon; what is sent now might land after its first call.
            self._gate.leave()
            return NotSent()
        return await self._timed(endpoint, subject, left + self._timeout, Unknown, operation)

    async def _entered(self, send_by: float) -> bool:
        """Wait for a slot no longer than the intent is good for: a pause of the token must not hold people back after it."""
        if self._gate.enter_at_once():
            return True
        try:
            async with asyncio.timeout(max(0.0, send_by - self._clock())):
                await self._gate.enter()
        except (TimeoutError, asyncio.CancelledError):
            return False
        return True

    async def probe(self, kind: MissingKind, sis_id: str) -> Presence | Failure:
        """Whether the LMS has an object."""
        return await self._look("probe", sis_id, lambda: self._target.probe(kind, sis_id))

    async def look(self, seat: Seat) -> Observation | Failure:
        """One seat, whose row a roster does not show."""
        return await self._look("read", seat.ref.seat, lambda: self._target.read(seat))

    async def roster(self, lms_section: str, page: str | None) -> RosterPage | Failure:
        """A page of a section's roster."""
        return await self._look("roster", lms_section, lambda: self._target.roster(lms_section, page))

    async def find(self, objects: ObjectTarget, wanted: WantedObject) -> ShownObject | NoObject | Failure:
        """An object as the LMS has it."""
        return await self._look(f"find_{wanted.kind}", wanted.sis_id, lambda: objects.find(wanted))

    async def move(
        self, endpoint: str, wanted: WantedObject, send_by: float, operation: Callable[[], Awaitable[ObjectOutcome]]
    ) -> ObjectOutcome | NotSent:
        """Make or change an object, not later than `send_by` (monotonic)."""
        return await self._change(endpoint, wanted.sis_id, send_by, operation)

    async def _look(
        self, endpoint: str, subject: str, operation: Callable[[], Awaitable[Result]]
    ) -> Result | ServerFault | Unknown:
        """Something that changes nothing, whenever there is a slot."""
        await self._gate.enter()
        return await self._timed(endpoint, subject, self._timeout, ServerFault, operation)

    async def _timed(
        self,
        endpoint: str,
        subject: str,
        seconds: float,
        lost: Callable[[str], ServerFault | Unknown],
        operation: Callable[[], Awaitable[Result]],
    ) -> Result | ServerFault | Unknown:
        """Run an operation in the slot that was entered, and leave it. `lost` makes the outcome when there is none in time: an
        answer that a stopped process finds when it goes on is as old as the stop was long."""
        started = self._clock()
        result: Result | ServerFault | Unknown | None = None
        try:
            async with asyncio.timeout(seconds):
                result = await operation()
            if self._clock() - started > seconds:
                result = lost("late")
        except TimeoutError:
            result = lost("timeout")
        except Exception as error:
            log.error("target_defect", call=endpoint, exc_info=error)
            result = lost("defect")
        finally:
            if result is not None:
                self._learn(endpoint, subject, result, self._clock() - started)
            self._gate.leave()
        return result

    def _learn(self, endpoint: str, subject: str, result: _Answer, seconds: float) -> None:
        label = "done" if isinstance(result, Observation | Presence | RosterPage) else result.label
        self._observer.called(endpoint, label, seconds, result.usage)
        self._gate.observe(result.usage)
        was_paused = self._gate.pause_left > 0
        match result:
            case Throttled():
                self._gate.throttled()
            case NoPermission(whole_token=True):
                self._gate.denied()
            case ServerFault() | Unknown() | WrongShape():
                self._gate.failed(subject)
            case _:
                self._gate.succeeded()
        if self._gate.pause_left > 0 and not was_paused and not isinstance(result, Throttled):
            log.warning("calls_paused", call=endpoint, outcome=label, code=getattr(result, "code", None))

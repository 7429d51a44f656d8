"""What each outcome of an attempt does to its seat. Pure; the table of `targets.port` in code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, assert_never

from services.consumer.drive.backoff import FAULT, PERMISSION, WAIT_TIMER_SECONDS
from services.consumer.drive.orders import Order
from services.consumer.nouns import AppliedState, MissingKind, Origin, satisfied
from services.consumer.targets.port import (
    AlreadySo,
    Concluded,
    Done,
    IdentityMismatch,
    NoPermission,
    NotThere,
    Observation,
    Outcome,
    Refused,
    ServerFault,
    Throttled,
    Unknown,
    WrongShape,
)

_FAILURES_BEFORE_DEAD = 3
"""In a row, the last two of them answers about somebody else: a cache in between may once mix up two answers, and an LMS that
fails in every way may do it among other things; a wrong seat stays wrong."""


@dataclass(frozen=True, slots=True)
class NotSent:
    """The attempt ended before its call: too late to send, or the intent allowed no change. Reaction: try again at once."""

    label = "not_sent"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one attempt did and what came of it."""

    result: Outcome | NotSent
    seen: Observation | None
    """Read during this attempt, before any change."""
    wrote: bool
    """A changing operation was started, so `result` is its outcome."""
    seconds: float = 0.0
    """Spent in operations of the target."""


Then = Literal["now", "retry", "wait", "dead"]
"""What becomes of the work if the seat is not as wanted: due at once, later, when an object appears, or when a person looked."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What to record about one seat when its intent is closed."""

    order: Order
    outcome: str
    then: Then
    delay_seconds: float = 0.0
    attempts: int = 0
    applied: AppliedState | None = None
    """None leaves what the ledger believes."""
    before: AppliedState | None = None
    """Of an attempt that changed something: what the seat was."""
    lms_enrollment: str | None = None
    lms_course: str | None = None
    origin: Origin | None = None
    """Taken only while the ledger has none."""
    touched: bool = False
    """The LMS may have been changed; that starts the time of a suspect seat anew."""
    late: bool = False
    """The change may land later: the seat becomes suspect."""
    read: bool = False
    """`applied` was read in this attempt and nothing was changed since; only that may clear a suspect seat."""
    looked: bool = False
    """The LMS was asked about the seat in this attempt, whatever was done afterwards."""
    waits: tuple[MissingKind, str] | None = None
    code: str | None = None
    """The outcome's own code, for the timeline."""
    seconds: float = 0.0
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class _Reaction:
    then: Then
    delay_seconds: float = 0.0
    applied: AppliedState | None = None
    found: Observation | None = None
    counts: bool = True
    """As one more attempt in a row."""
    touched: bool = False
    late: bool = False
    waits: tuple[MissingKind, str] | None = None


def react(order: Order, attempt: Attempt, random: float) -> Settlement:
    """The reaction to `attempt`; `random` in [0, 1) spreads retries."""
    reaction = _reaction(order, attempt, random)
    found = reaction.found or attempt.seen
    applied = reaction.applied or (None if found is None else found.state)
    usage = None if isinstance(attempt.result, NotSent) else attempt.result.usage
    return Settlement(
        order=order,
        outcome=attempt.result.label,
        then=reaction.then,
        delay_seconds=reaction.delay_seconds,
        attempts=order.attempts + reaction.counts,
        applied=applied,
        before=_before(order, attempt),
        lms_enrollment=None if found is None else found.lms_enrollment,
        lms_course=None if found is None else found.lms_course,
        origin=_origin(attempt, reaction),
        touched=reaction.touched,
        late=reaction.late,
        read=(attempt.seen is not None and not attempt.wrote) or _never_there(order, attempt),
        looked=attempt.seen is not None or _never_there(order, attempt),
        waits=reaction.waits,
        code=getattr(attempt.result, "code", None),
        seconds=attempt.seconds,
        cost=None if usage is None else usage.cost,
    )


def _before(order: Order, attempt: Attempt) -> AppliedState | None:
    if not attempt.wrote:
        return None
    return order.believed.state if attempt.seen is None else attempt.seen.state


def _reaction(order: Order, attempt: Attempt, random: float) -> _Reaction:  # noqa: PLR0911, PLR0912  (a table)
    """By the result alone, one case a class."""
    failures = order.attempts + 1
    later = FAULT.delay(failures, random)
    wrote = attempt.wrote
    lost: AppliedState | None = "unknown" if wrote else None
    match attempt.result:
        case Done(observation):
            return _done(order, attempt, observation, later)
        case AlreadySo(observation):
            return _Reaction("now", found=observation, counts=False)
        case NotThere("elsewhere", observation):
            # After a removal this may be a deletion that another call of ours made, or one that is still to come.
            late = wrote and order.desired != "active"
            return _Reaction("retry", _at_once_first(failures, later), "unknown", observation, touched=wrote, late=late)
        case NotThere(missing):
            if _never_there(order, attempt):
                return _Reaction("now", applied="absent", counts=False)
            return _Reaction("wait", WAIT_TIMER_SECONDS, counts=False, waits=_missing_object(order, missing))
        case NoPermission(whole_token=True) | Throttled():
            return _Reaction("now", counts=False)
        case NoPermission():
            return _Reaction("retry", PERMISSION.delay(failures, random))
        case Refused() | Concluded():
            return _Reaction("dead")
        case ServerFault() | WrongShape():
            return _Reaction("retry", later, lost, touched=wrote)
        case Unknown():
            return _Reaction("retry", _at_once_first(failures, later), lost, touched=wrote, late=wrote)
        case IdentityMismatch():
            again = failures >= _FAILURES_BEFORE_DEAD and order.failed_as == attempt.result.label
            then: Then = "dead" if again else "retry"
            return _Reaction(then, later, lost, touched=wrote)
        case NotSent():
            return _Reaction("now", counts=False)
        case _ as never:
            assert_never(never)


def _done(order: Order, attempt: Attempt, observation: Observation, later: float) -> _Reaction:
    before = order.believed.state if attempt.seen is None else attempt.seen.state
    if satisfied(order.desired, observation.state) or observation.state != before:
        return _Reaction("now", found=observation, counts=False, touched=True)
    # The LMS said yes and did nothing; asking again at once would say yes again.
    return _Reaction("retry", later, found=observation, touched=True)


def _at_once_first(failures: int, later: float) -> float:
    """The first unknown outcome is read back at once; when that keeps happening, the LMS needs rest."""
    return 0.0 if failures == 1 else later


def _never_there(order: Order, attempt: Attempt) -> bool:
    """A seat that should be gone, of a person or section that the LMS does not have, and no row of it was ever known."""
    missing = isinstance(attempt.result, NotThere) and attempt.result.missing != "elsewhere"
    return missing and not attempt.wrote and order.desired == "deleted" and order.lms_enrollment is None


def _missing_object(order: Order, missing: Literal["user", "section", "both", "elsewhere"]) -> tuple[MissingKind, str]:
    """What to wait for. Of two missing objects the first one will do: the next attempt finds the other one missing."""
    return ("section", order.seat.lms_section) if missing == "section" else ("user", order.seat.lms_user)


def _origin(attempt: Attempt, reaction: _Reaction) -> Origin | None:
    """Who made the row: a row that gave or could give access before our first write was not made by us."""
    if attempt.seen is not None and attempt.seen.state not in ("absent", "deleted"):
        return "adopted"
    return "ours" if reaction.touched else None

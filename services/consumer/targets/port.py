"""What the driver needs from an LMS: reading one seat, moving it one step, and asking whether an object exists.

Every answer of an LMS ends as exactly one of the classes below; each names the one reaction of the driver. A target never
raises for what an LMS does: it raises only for its own defects.

A *section* is the object of the LMS that people are enrolled in, whatever the LMS calls it: in Canvas a section, elsewhere
perhaps a course. `tests/contract/consumer/targets` holds the promises of a target as tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from services.consumer.nouns import MissingKind, Seat, SeatState

ObservedState = Literal["absent", "active", "inactive", "completed", "deleted", "other"]
"""`AppliedState` without `unknown`: what a read can tell."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What an operation cost at the LMS, from the LMS's own headers."""

    calls: int = 0
    """HTTP calls made; an operation may need more than one."""
    cost: float | None = None
    """Sum of the costs, in the LMS's unit; None when it does not say."""
    remaining: float | None = None
    """What the token had left after the last call, in the same unit; None when the LMS does not say."""

    def __add__(self, later: Usage) -> Usage:
        """Both together; the later one knows better what remains."""
        if self.calls == 0:
            return later
        known = [cost for cost in (self.cost, later.cost) if cost is not None]
        remaining = self.remaining if later.remaining is None else later.remaining
        return Usage(self.calls + later.calls, sum(known) if known else None, remaining)


NO_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class Observation:
    """What the LMS says about one seat, identity checked."""

    state: ObservedState
    lms_enrollment: str | None = None
    """What names the row: the LMS's id of it, or, where the LMS tells none, what the target finds it by. None while absent."""
    lms_course: str | None = None
    """Where the row lives now, as the LMS names it; it may move (a cross-listing)."""
    sis_owned: bool = False
    """The LMS says that a SIS import touched the row: somebody else's feed may know it, too."""
    usage: Usage = field(default=NO_USAGE, compare=False)


@dataclass(frozen=True, slots=True)
class Presence:
    """Whether an object exists in the LMS."""

    exists: bool
    usage: Usage = field(default=NO_USAGE, compare=False)


@dataclass(frozen=True, slots=True)
class RosterRow:
    """One person in one role in a section, whoever put them there."""

    lms_user: str | None
    """The SIS id that the LMS shows of the user. None when it shows none: a user made by hand, or a token that may not read SIS
    ids. It may be another one than the ledger's: a user may have several."""
    role: str
    base_role: str
    observation: Observation


@dataclass(frozen=True, slots=True)
class RosterPage:
    """Some rows of a section's roster."""

    rows: tuple[RosterRow, ...]
    next_page: str | None
    """What to ask for next, in words that only the target understands; None: this was the last page."""
    usage: Usage = field(default=NO_USAGE, compare=False)


@dataclass(frozen=True, slots=True)
class Done:
    """The LMS shows the seat as `observation`: in the body of its answer to the change or, where such answers say nothing, in a
    read after it. Reaction: record it; settle if it is what is wanted by now."""

    label: ClassVar = "done"
    observation: Observation
    usage: Usage = field(default=NO_USAGE, compare=False)


@dataclass(frozen=True, slots=True)
class AlreadySo:
    """The seat was as wanted and nothing was changed. Reaction: as for `Done`, and no call is counted as an effect."""

    label: ClassVar = "already_so"
    observation: Observation
    usage: Usage = field(default=NO_USAGE, compare=False)


@dataclass(frozen=True, slots=True)
class NotThere:
    """An object is missing. Reaction: an add waits for it (`user`, `section`, `both`) and is woken when it appears; a removal
    of what cannot exist is satisfied. `elsewhere`: the objects exist but the row is not where we believed (cross-listed, or
    changed by somebody): read it again and retry; after a removal the seat is suspect. Never success.

    If the LMS shows nothing of what may not be seen, the target makes sure that it may see before it says so."""

    label: ClassVar = "not_there"
    missing: Literal["user", "section", "both", "elsewhere"]
    observation: Observation | None = None
    """Of `elsewhere`: where the row was found, None when it was not."""
    usage: Usage = field(default=NO_USAGE, compare=False)


@dataclass(frozen=True, slots=True)
class NoPermission:
    """The token may not do this. Nothing was changed. Reaction: the seat retries slowly; with `whole_token` (revoked,
    expired, unreadable) nobody calls for a while."""

    label: ClassVar = "permission"
    whole_token: bool
    usage: Usage = field(default=NO_USAGE, compare=False)


@dataclass(frozen=True, slots=True)
class Throttled:
    """Refused for having asked too much. Nothing was changed. Reaction: the whole token pauses; no attempt is counted."""

    label: ClassVar = "throttled"
    usage: Usage = field(default=NO_USAGE, compare=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """The request is wrong: the LMS says so, or it has no such role or state. Nothing was changed. Reaction: dead letter; asking
    again cannot help."""

    label: ClassVar = "refused"
    code: str
    """Which rule, from a closed list of the target; never the LMS's text, which may quote people."""
    usage: Usage = field(default=NO_USAGE, compare=False)


@dataclass(frozen=True, slots=True)
class Concluded:
    """The course takes no more enrollments. Nothing was changed. Reaction: dead letter."""

    label: ClassVar = "concluded"
    usage: Usage = field(default=NO_USAGE, compare=False)


@dataclass(frozen=True, slots=True)
class ServerFault:
    """The LMS failed, could not be reached, or accepted a change of which a read then shows nothing. Reaction: back off; after a
    change that may have got through, read first. Every failure to get an answer to a *read* is this one: a read has no effect
    that could be unknown."""

    label: ClassVar = "server_fault"
    code: str
    usage: Usage = field(default=NO_USAGE, compare=False)


@dataclass(frozen=True, slots=True)
class Unknown:
    """A change was sent and no answer came; it may still land. Reaction: the seat is suspect, and is read before all else."""

    label: ClassVar = "unknown"
    code: str
    usage: Usage = field(default=NO_USAGE, compare=False)


@dataclass(frozen=True, slots=True)
class WrongShape:
    """An answer that no working LMS gives: a page instead of data, a redirect, half a document. Reaction: confirms nothing;
    back off, and read before the next change."""

    label: ClassVar = "wrong_shape"
    code: str
    usage: Usage = field(default=NO_USAGE, compare=False)


@dataclass(frozen=True, slots=True)
class IdentityMismatch:
    """The answer is about somebody or something else. Reaction: confirms nothing; after a few attempts a dead letter."""

    label: ClassVar = "identity_mismatch"
    what: Literal["user", "section", "role", "enrollment", "object"]
    usage: Usage = field(default=NO_USAGE, compare=False)


Failure = NotThere | NoPermission | Throttled | Refused | Concluded | ServerFault | Unknown | WrongShape | IdentityMismatch
Outcome = Done | AlreadySo | Failure


class Target(Protocol):
    """One LMS account. Safe for many operations at once; each ends within the target's call timeout, cancellation included.

    A cancelled `write` may have changed the LMS; the caller has to treat it as `Unknown`. The writes of one person come one after
    the other; one that follows an `Unknown` may find the LMS still at work on that.
    """

    async def read(self, seat: Seat) -> Observation | Failure:
        """The seat as it is now, in whatever state; never `Unknown`."""
        ...

    async def write(self, seat: Seat, wanted: SeatState, seen: Observation) -> Outcome:
        """Move the seat one step from `seen` towards `wanted`: at most one changing call. A `Done` whose state is not yet
        `wanted` was a step on the way; call again. A state that the LMS does not have is `Refused`, not replaced."""
        ...

    async def probe(self, kind: MissingKind, sis_id: str) -> Presence | Failure:
        """Whether the LMS has the user or section by now; never `Unknown` or `NotThere`."""
        ...

    async def roster(self, lms_section: str, page: str | None = None) -> RosterPage | Failure:
        """A page of everybody in the section, in whatever state; the first one without `page`. Left out is what the LMS puts
        there by itself and no policy asks for: observers, test people. `NotThere` (`section`) when the LMS has no such section;
        never `Unknown`."""
        ...

    async def close(self) -> None:
        """Give connections back."""
        ...

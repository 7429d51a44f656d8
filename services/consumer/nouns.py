"""The consumer's nouns: seats, what they should be and what they are. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from schemas import keys

SeatState = Literal["active", "inactive", "completed", "deleted"]
"""What a seat should be. `active` gives access; `inactive` is listed without access; `completed` reads on; `deleted` is gone."""

AppliedState = Literal["unknown", "absent", "active", "inactive", "completed", "deleted", "other"]
"""What the LMS confirmed. `unknown` from intent until outcome, and before the first read; `absent`: the LMS never had the seat;
`other`: a state of the LMS that no policy asks for (an invitation, for example)."""

Effect = Literal["add", "drop", "update"]
"""What a decision does to a person's access: gives it, takes it away, or changes what they see."""

WorkState = Literal["pending", "retrying", "waiting", "guarded", "held", "dead", "suspect"]
"""`waiting`: an object is missing in the LMS; `guarded`: a removal, or access by a re-used number, that the guard has not let
through yet; `held`: one that needs a person's approval; `dead`: a person has to look; `suspect`: right, but a late call may still
land."""

Origin = Literal["ours", "adopted", "foreign"]
"""Who made the LMS's row: we did, we found it as wanted before our first write, or somebody else's that we leave alone."""

MissingKind = Literal["user", "section"]

ObjectKind = Literal["term", "course", "section", "person"]
"""What the LMS has besides seats, and may have made for it."""

_STATES: Mapping[AppliedState, SeatState] = {
    "absent": "deleted",
    "active": "active",
    "inactive": "inactive",
    "completed": "completed",
    "deleted": "deleted",
}

PRIORITY_SUSPECT = -1
"""What nobody knows may give access that was taken away: it is looked at before all else."""
PRIORITY_DROP = 0
PRIORITY_INSTRUCTOR = 1
PRIORITY_ADD = 2
PRIORITY_CLAIM = 3
PRIORITY_REPAIR = 4

WORK_CHANNEL = "work"
"""PostgreSQL notification channel: new work is committed; the payload is the target."""


class SeatRef(NamedTuple):
    """The identity of one seat: sorts by target, then seat; that is the order in which seats are locked."""

    target: str
    seat: str
    """The LMS section, LMS user, role and associated user, encoded and joined; see `seat_key`."""


class PersonRef(NamedTuple):
    """One person of one tenant: sorts in the order in which persons are locked."""

    tenant: str
    person: str


class Seat(NamedTuple):
    """One row of the LMS as the policy names it: what a target needs to find, make or remove it."""

    target: str
    tenant: str
    person: str
    """SIS id."""
    section: str
    """Section key text, ``institution/term/section``."""
    course: str | None
    """Course key text, None while the SIS has not said."""
    lms_section: str
    """SIS id of the section as the LMS knows it."""
    lms_user: str
    """SIS id of the user as the LMS knows it."""
    role: str
    """The LMS's role label; equal to `base_role` unless the role is a custom one."""
    base_role: str
    associated_user: str = ""
    """SIS id of the observed user, empty for all other roles."""

    @property
    def ref(self) -> SeatRef:
        """The seat's identity."""
        return SeatRef(self.target, seat_key(self.lms_section, self.lms_user, self.role, self.associated_user))


def seat_key(lms_section: str, lms_user: str, role: str, associated_user: str = "") -> str:
    """The text that names a seat within its target."""
    return keys.join(lms_section, lms_user, role, associated_user)


def satisfied(desired: SeatState, applied: AppliedState) -> bool:
    """Whether the LMS is as wanted. A seat that should be gone and never was there is. `SATISFIED` says the same in SQL."""
    return desired == applied or (desired == "deleted" and applied == "absent")


def state_of(applied: AppliedState) -> SeatState | None:
    """What a seat should be, so that the LMS is as wanted. None: nobody knows what the LMS has, or no policy asks for it."""
    return _STATES.get(applied)


def takes_away(desired: SeatState, applied: AppliedState) -> bool:
    """Whether making the seat as wanted takes somebody's access away. `TAKES_AWAY` says the same in SQL."""
    return desired != "active" and applied in ("active", "other")


TERM = "split_part(seat.section, '/', 1) || '/' || split_part(seat.section, '/', 2)"
"""The term key of a row called ``seat``, as an SQL expression: whoever writes much work gives it, for the rest a trigger does."""

SATISFIED = "(seat.desired = seat.applied or (seat.desired = 'deleted' and seat.applied = 'absent'))"
"""`satisfied` as an SQL expression over a row called ``seat``."""

TAKES_AWAY = "(seat.desired <> 'active' and seat.applied in ('active', 'other'))"
"""`takes_away` as an SQL expression over a row called ``seat``."""

INTO_REUSED = """(seat.desired = 'active' and seat.applied <> 'active' and exists (
  select from section_course where section_course.tenant = seat.tenant and section_course.section = seat.section
                               and section_course.reused_as is not null))"""
"""An SQL expression over a row called ``seat``: whether making it as wanted lets somebody into a section whose number was given
to another class, which nobody has agreed to."""

NEEDS_LEAVE = f"({TAKES_AWAY} or {INTO_REUSED})"
"""An SQL expression over a row called ``seat``: whether it is the guard's to allow that it is made as wanted."""

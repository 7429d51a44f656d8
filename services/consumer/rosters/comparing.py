"""One section: the seats that the ledger knows against the roster that the LMS shows. Pure.

A roster tells much for one call, yet less surely than a read of one seat: a person may have several SIS ids, of which it shows
one. So a seat that it does not show is not believed to be missing, and somebody whom we do not know is not believed to be a
stranger, before the seats that are not shown were read one by one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from services.consumer.nouns import AppliedState, SeatState, satisfied
from services.consumer.targets.port import Observation, ObservedState, RosterRow

Kind = Literal["missing", "wrong_state", "wrong_role", "extra_manual", "extra_sis", "unknown_user"]
"""What differs. `missing`: a seat that should be there is not; `wrong_state`: it is there in another state; `wrong_role`: the
person is there in another role only; `extra_manual`, `extra_sis`: somebody has access whom the student system gives none, put
there by hand or by another feed; `unknown_user`: the same, and the LMS tells no SIS id of them."""

KINDS: tuple[Kind, ...] = get_args(Kind)
_ABSENT = Observation("absent")
_NOT_THERE: frozenset[ObservedState] = frozenset({"absent", "deleted"})
_GIVES_ACCESS: frozenset[ObservedState] = frozenset({"active", "other"})


class KnownSeat(NamedTuple):
    """A seat of the section as the ledger has it."""

    seat: str
    """Its key within the target."""
    person: str
    """SIS id."""
    section: str
    """Section key text: several sections of the student system may be one of the LMS."""
    lms_user: str
    role: str
    base_role: str
    desired: SeatState
    applied: AppliedState
    live: bool
    """Its term may be written to."""
    ours: bool
    """Some event or override is behind it; if not, it stands for somebody else's row that should be gone."""
    settled: bool
    """It has no work."""
    moving: bool
    """A call is or may be under way, or one has ended since the roster was read: what was read may be old."""
    queued: bool
    """Its work has not begun, and nothing has failed yet."""
    accountless: bool
    """It waits for its user, whom the LMS does not have, or not under this id."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that the roster shows otherwise than the ledger."""

    kind: Kind
    seat: KnownSeat | None
    """None: a row that is none of ours."""
    row: RosterRow | None
    """What the LMS shows; of `wrong_role` the other role. None: nothing."""
    shown: ObservedState
    """Of the seat, if it is one of ours."""
    certain: bool = True
    """Nobody is left of whom the row could be."""
    proven: bool = True
    """A row or a read of the seat says so. False: it is not in the roster, and was not read, or has no user in the LMS."""

    @property
    def subject(self) -> str:
        """What stays the same as long as the difference stands."""
        if self.seat is not None:
            return self.seat.seat
        row = self.row
        assert row is not None  # noqa: S101  (one of the two is there)
        return f"row {row.observation.lms_enrollment}" if row.observation.lms_enrollment else f"row {row.lms_user} {row.role}"

    @property
    def confirmed(self) -> bool:
        """The LMS had the seat as wanted; somebody changed it since."""
        return self.seat is not None and self.seat.live and satisfied(self.seat.desired, self.seat.applied)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a roster says about the section's seats."""

    learnt: dict[str, Observation]
    """Seats of which the ledger did not know, or may simply believe, what the LMS shows."""
    differences: list[Difference]
    doubtful: set[str]
    """Seats that the roster does not show, and whose people may be in it under other ids: to be read one by one."""
    untold: set[str]
    """Seats about which it says nothing for certain: in motion, or being worked on."""


class _Key(NamedTuple):
    """What a seat and a row have in common."""

    lms_user: str | None
    role: str
    base_role: str


def compare(
    seats: Collection[KnownSeat],
    roster: Iterable[RosterRow],
    reads: Mapping[str, Observation],
    extra_roles: Collection[str],
    accountless: Collection[str] = (),
) -> Comparison:
    """What `roster` says of `seats`; `reads` holds what was read of single seats since, and `accountless` those of them whose
    user the LMS did not have. Who has access without a seat of ours is a difference in the base roles `extra_roles`."""
    rows: defaultdict[_Key, list[RosterRow]] = defaultdict(list)
    for row in roster:
        rows[_Key(row.lms_user, row.role, row.base_role)].append(row)
    mine = {_Key(seat.lms_user, seat.role, seat.base_role): seat for seat in seats}
    peopled = {key[1:] for key, found in rows.items() if any(row.observation.state not in _NOT_THERE for row in found)}
    # Whom a read found under another id is no stranger.
    known = {seen.lms_enrollment for seen in reads.values() if seen.lms_enrollment is not None}
    others = [row for key, found in rows.items() if key not in mine for row in found]
    strangers = _Strangers(_once(row for row in others if row.observation.lms_enrollment not in known))

    found = Comparison({}, [], set(), set())
    unsure: set[tuple[str, str]] = set()
    for key, seat in mine.items():
        shown = reads.get(seat.seat) or _clearest(rows.get(key, ()))
        at_work = seat.moving or not _may_be_judged(seat)
        if seat.accountless or seat.seat in accountless:
            unsure.add(key[1:])  # perhaps they have another id by now
        if at_work and seat.accountless:
            found.untold.add(seat.seat)
        elif shown is None and key[1:] in (peopled if _is_expected(seat) and not at_work else strangers.roles):
            found.doubtful.add(seat.seat)
            unsure.add(key[1:])
        elif at_work:
            found.untold.add(seat.seat)
        else:
            proven = shown is not None and seat.seat not in accountless
            _judge(found, seat, shown or _ABSENT, strangers, proven=proven)
    instead = {id(one.row) for one in found.differences if one.kind == "wrong_role"}
    found.differences.extend(_extra((row for row in strangers.rows if id(row) not in instead), extra_roles, unsure))
    return found


def _once(rows: Iterable[RosterRow]) -> list[RosterRow]:
    """A row that moves while the pages are read is shown on two of them."""
    found: dict[object, RosterRow] = {}
    for row in rows:
        name = row.observation.lms_enrollment or id(row)
        if name not in found or _has_access(row):
            found[name] = row
    return list(found.values())


class _Strangers:
    """Rows that are nobody's whom we know."""

    def __init__(self, rows: Sequence[RosterRow]) -> None:
        self.rows = rows
        self.roles = {(row.role, row.base_role) for row in rows if row.observation.state not in _NOT_THERE}
        self._with_access = {row.lms_user: row for row in reversed(rows) if _has_access(row)}

    def with_access(self, lms_user: str) -> RosterRow | None:
        """The first row that gives this user access, in whatever role."""
        return self._with_access.get(lms_user)


def _judge(found: Comparison, seat: KnownSeat, seen: Observation, strangers: _Strangers, *, proven: bool) -> None:
    if _is_learnt(seat):
        found.learnt[seat.seat] = seen
    if not satisfied(seat.desired, seen.state) and (seat.settled or not seat.live):
        found.differences.append(_of_seat(seat, seen, strangers, proven=proven))


def _is_expected(seat: KnownSeat) -> bool:
    """Whether the roster should show it: in shadow, who has left a class may never have been in it."""
    return seat.desired == "active" or (seat.live and seat.desired != "deleted")


def _may_be_judged(seat: KnownSeat) -> bool:
    """A live seat that is at work is the driver's: what differs is known already."""
    return seat.settled or not seat.live or _is_learnt(seat)


def _is_learnt(seat: KnownSeat) -> bool:
    """Nobody but us changes what we have confirmed of a live seat, so that what differs there is a difference. Before our first
    look, and in shadow, where others write, the LMS is simply believed."""
    return not seat.live or (seat.applied == "unknown" and seat.queued)


def _of_seat(seat: KnownSeat, seen: Observation, strangers: _Strangers, *, proven: bool) -> Difference:
    if not seat.ours and seen.state in _GIVES_ACCESS:
        return Difference("extra_sis" if seen.sis_owned else "extra_manual", seat, None, seen.state)
    if seen.state not in _NOT_THERE:
        return Difference("wrong_state", seat, None, seen.state)
    instead = strangers.with_access(seat.lms_user)
    if instead is not None and seat.desired == "active":
        return Difference("wrong_role", seat, instead, seen.state)
    return Difference("missing", seat, None, seen.state, proven=proven)


def _extra(rows: Iterable[RosterRow], roles: Collection[str], unsure: Collection[tuple[str, str]]) -> Iterator[Difference]:
    for row in rows:
        if row.base_role in roles and _has_access(row):
            kind: Kind = "extra_sis" if row.observation.sis_owned else "extra_manual"
            certain = (row.role, row.base_role) not in unsure
            yield Difference("unknown_user" if row.lms_user is None else kind, None, row, row.observation.state, certain)


def _has_access(row: RosterRow) -> bool:
    return row.observation.state in _GIVES_ACCESS


def _clearest(rows: Sequence[RosterRow]) -> Observation | None:
    """The row to believe: where an LMS shows two of one seat, the one that gives access must not be missed."""
    order: dict[ObservedState, int] = {"active": 0, "other": 1, "inactive": 2, "completed": 3, "deleted": 4, "absent": 5}
    return min((row.observation for row in rows), key=lambda seen: order[seen.state], default=None)

"""Which seats a difference is about, if what the LMS shows is to hold. Pure."""

from __future__ import annotations

from typing import NamedTuple

from services.consumer.nouns import seat_key, state_of
from services.consumer.policy.model import Policy
from services.consumer.rosters.comparing import Difference
from services.consumer.targets.port import ObservedState


class ShownSeat(NamedTuple):
    """A seat as the LMS shows it."""

    seat: str
    """Its key within the target; the ledger need not have it."""
    role: str
    base_role: str
    state: ObservedState
    lms_enrollment: str | None = None
    lms_course: str | None = None


def acceptable(one: Difference, lms_section: str, tenant: str, policy: Policy) -> list[ShownSeat]:
    """What has to be taken as it is for the difference to be none. Of a wrong role both seats: the one that is missing, and the
    one that is there instead.

    Empty when that cannot be: a live seat of ours that the LMS never had as wanted (nobody changed it, it is not done yet); one
    that only the roster lacks (a repair reads before it writes, this does not), or whose account is gone (no teacher does that);
    somebody whose id does not fit the policy's template, a role that no role of the SIS has, a state that no policy asks for.
    """
    seats = list(_of_seat(one) + _of_row(one, lms_section))
    is_whole = all(state_of(shown.state) and policy.role_called(shown.role, shown.base_role) for shown in seats)
    return seats if is_whole and _is_somebodys(one, tenant, policy) else []


def _of_seat(one: Difference) -> tuple[ShownSeat, ...]:
    seat = one.seat
    return () if seat is None else (ShownSeat(seat.seat, seat.role, seat.base_role, one.shown),)


def _of_row(one: Difference, lms_section: str) -> tuple[ShownSeat, ...]:
    row = one.row
    if row is None or row.lms_user is None:
        return ()
    seen = row.observation
    key = seat_key(lms_section, row.lms_user, row.role)
    return (ShownSeat(key, row.role, row.base_role, seen.state, seen.lms_enrollment, seen.lms_course),)


def _is_somebodys(one: Difference, tenant: str, policy: Policy) -> bool:
    if one.seat is not None:
        return one.proven and (one.confirmed or not one.seat.live)
    return one.row is not None and one.row.lms_user is not None and bool(policy.sis_ids.person_of(tenant, one.row.lms_user))

"""From what the SIS says to what the seats should be: pure, no clock, no I/O.

The decision depends on the newest state of the entities and on the overrides that are in force, never on the order in which they
came, so deciding again changes nothing and a replay decides what the live stream decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from schemas import keys
from schemas.keys import EntityKey
from services.consumer.nouns import Effect, Seat, SeatRef, SeatState
from services.consumer.policy.courses import LEFT, follow_primaries, left_behind
from services.consumer.policy.facts import Enrollment, Entitlement, Override, Source, Stamp, stamp_of, status_of
from services.consumer.policy.model import Place, Policy
from services.consumer.policy.roles import Role

_STRENGTH: dict[SeatState, int] = {"active": 3, "inactive": 2, "completed": 1, "deleted": 0}
"""Strongest access wins where several entitlements meet in one seat."""


def decide(
    enrollments: Iterable[Enrollment],
    policy: Policy,
    target: str,
    overrides: Iterable[Override] = (),
    now: datetime | None = None,
) -> list[Entitlement]:
    """What the enrollments of a person give, and the overrides that are in force for them, in the order of their keys.

    A status or role that gives no seat gives nothing, and neither does an enrollment before its start, if the policy waits for
    that. Without `now` every start has come; see `next_start`. What sections of one course mean for one another is in `courses`.
    """
    found = [
        *(_of_enrollment(one, policy, target, now) for one in follow_primaries(sorted(enrollments, key=_by_key), policy)),
        *(_of_override(override, policy, target) for override in sorted(overrides)),
    ]
    given = [entitlement for entitlement in found if entitlement is not None]
    return _without_left_behind(given, policy) if policy.left_behind == "deleted" else given


def _by_key(enrollment: Enrollment) -> EntityKey:
    return enrollment.entity


def _without_left_behind(given: list[Entitlement], policy: Policy) -> list[Entitlement]:
    """The same, with the seats removed that are left behind in courses where the person has access elsewhere."""
    states = {one.state for one in given}
    if "active" not in states or states.isdisjoint(LEFT):
        return given
    left = left_behind(fold(given), policy)
    return [
        one._replace(state="deleted", because=max(one.because, left[one.ref])) if one.ref in left and one.state in LEFT else one
        for one in given
    ]


def next_start(enrollments: Iterable[Enrollment], policy: Policy, now: datetime) -> datetime | None:
    """When time alone will change what these enrollments give; None: only an event, an override or another policy can."""
    counting = (one for one in follow_primaries(list(enrollments), policy) if policy.roles[one.role])
    begins = (_begins(one, policy, _state(one, policy, *one.entity.parts[:2])) for one in counting)
    return min((at for at in begins if at is not None and at > now), default=None)


def _begins(enrollment: Enrollment, policy: Policy, state: SeatState | None) -> datetime | None:
    """Access waits for its day; to take it away never does."""
    return policy.begins(enrollment.effective_date) if state == "active" else None


def _state(enrollment: Enrollment, policy: Policy, institution: str, term: str) -> SeatState | None:
    place = Place(institution, term, enrollment.section.session if enrollment.section else None)
    return policy.state(status_of(enrollment), enrollment.effective_date, place)


def _of_enrollment(enrollment: Enrollment, policy: Policy, target: str, now: datetime | None) -> Entitlement | None:
    role = policy.roles[enrollment.role]
    institution, term, section, person, _family = enrollment.entity.parts
    state = _state(enrollment, policy, institution, term)
    begins = _begins(enrollment, policy, state)
    if role is None or state is None or (begins is not None and now is not None and begins > now):
        return None
    because = enrollment.newest
    if begins is not None:
        because = Stamp(max(because.accepted_at, begins), because.version)
    key, told = enrollment.entity, enrollment.section
    seat = _seat(
        policy, role, target, key.tenant, person, key.section, (institution, term, section), told.course if told else None
    )
    return Entitlement(key, seat.ref, seat, state, because)


def _of_override(override: Override, policy: Policy, target: str) -> Entitlement | None:
    """The role is the policy's to translate; the state is the registrar's word, whatever a status would give."""
    role = policy.roles[override.role]
    if role is None:
        return None
    parts = keys.split(override.section)
    seat = _seat(policy, role, target, override.tenant, override.person, override.section, parts, override.course)
    return Entitlement(override.source, seat.ref, seat, override.state, stamp_of(override.made_at))


def _seat(
    policy: Policy, role: Role, target: str, tenant: str, person: str, section: str, parts: Sequence[str], course: str | None
) -> Seat:
    return Seat(
        target=target,
        tenant=tenant,
        person=person,
        section=section,
        course=course,
        lms_section=policy.section_in_lms(tenant, *parts),
        lms_user=policy.lms_user(tenant, person),
        role=role.label,
        base_role=role.base,
    )


def fold(entitlements: Iterable[Entitlement]) -> dict[SeatRef, Entitlement]:
    """The entitlement that decides each seat.

    An override decides before all that the SIS says, the newest one where several meet. Otherwise it is the strongest, and among
    equals the newest event counts as its reason.
    """
    seats: dict[SeatRef, Entitlement] = {}
    for one in entitlements:
        known = seats.get(one.ref)
        if known is None or _rank(known) < _rank(one):
            seats[one.ref] = one
    return seats


def _rank(one: Entitlement) -> tuple[bool, int, Stamp, Source]:
    if one.source.kind == "override":
        return True, 0, one.because, one.source
    return False, _STRENGTH[one.state], one.because, one.source


def effect_of(before: SeatState | None, after: SeatState) -> Effect:
    """What a change of a seat does to its person; `before` is None for a seat that the ledger did not know."""
    if after == "active":
        return "add"
    if after == "deleted" or (after == "inactive" and before != "deleted"):
        return "drop"
    return "update"

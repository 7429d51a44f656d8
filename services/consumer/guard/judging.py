"""Which removals may go, which wait, and which need a person: groups of removals and what went before in, a verdict out. Pure.

What is counted are effects, access that is lost, not messages; in scopes that lie in one another. A scope never lets more through
than its limits say, because a removal goes only while everything that waits and everything that went lies below all of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from services.consumer.policy.guard_rules import GuardRules, Limit, Limits

ScopeKind = Literal["section", "course", "term", "source", "tenant", "cancelled_section", "cancelled_term", "reused_section"]
Window = Literal["quarter_hour", "day"]
How = Literal["counted", "cancelled", "planned"]
"""Why a removal goes without a person's approval: below the limits, with its class, or as announced."""

_BURST = 0.5
"""From this share of a limit on, removals wait so that the whole burst is counted."""
_NEARLY_ALL = 0.9
"""A wider scope is not held for what lies in one narrower scope that is held anyway."""


class Scope(NamedTuple):
    """What removals are counted in. A tenant has an empty key."""

    kind: ScopeKind
    tenant: str
    key: str
    """Section, course or term key text; of a source, its channel."""

    @property
    def place(self) -> Scope:
        """Where its seats are, for any kind of removal: a source may speak of all of its tenant's."""
        if self.kind == "source":
            return Scope("tenant", self.tenant, "")
        return self._replace(kind=_PLACES.get(self.kind, self.kind))


_PLACES: dict[ScopeKind, ScopeKind] = {"cancelled_section": "section", "cancelled_term": "term", "reused_section": "section"}


class Group(NamedTuple):
    """Removals about which everything that matters to the guard is the same."""

    tenant: str
    section: str
    course: str | None
    term: str
    leaves_course: bool
    """Their people have no other seat in the course; a move from one section to another takes nothing from the course."""
    cancelled: bool
    """The class does not take place."""
    ripe: bool
    """They have waited as long as a burst is counted."""
    size: int
    source: str | None = None
    """The channel that they came by; None where nobody limits one, or knows it."""

    @property
    def scopes(self) -> list[Scope]:
        """Where they count, narrow before wide."""
        found = [Scope("section", self.tenant, self.section)]
        if self.leaves_course:
            if self.course is not None:
                found.append(Scope("course", self.tenant, self.course))
            found.append(Scope("term", self.tenant, self.term))
            if self.source is not None:
                found.append(Scope("source", self.tenant, self.source))
            found.append(Scope("tenant", self.tenant, ""))
        return found

    @property
    def places(self) -> list[Scope]:
        """Everything that they lie in, for changes that were announced."""
        return self._replace(leaves_course=True).scopes

    @property
    def cancellations(self) -> list[Scope]:
        """Where they count as members of a cancelled class."""
        return [Scope("cancelled_section", self.tenant, self.section), Scope("cancelled_term", self.tenant, self.term)]


class Size(NamedTuple):
    """A scope as it stands."""

    active: int = 0
    """Seats that give access now."""
    quarter_hour: int = 0
    """Seats that were removed within 15 minutes ..."""
    day: int = 0
    """... and within 24 hours, without those that wait again. Of cancelled classes, their members that were."""


@dataclass
class Plan:
    """An announced change with room for so many more removals."""

    planned: str
    scope: Scope
    left: int


@dataclass(frozen=True, slots=True)
class Passed:
    """Removals that may go."""

    group: Group
    how: How
    planned: str | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """Removals that need a person."""

    scope: Scope
    groups: Sequence[Group]
    cause: Cause | None
    """What opens the hold; None when it is open already."""


class Courses(NamedTuple):
    """Of a number that was given to another class, as the SIS writes them."""

    was: str
    now: str


class Cause(NamedTuple):
    """The limit that was reached, or the number that was re-used: then there is neither window nor limit."""

    window: Window | None
    removals: int
    active: int
    """Seats that gave access before these went."""
    allowed: str
    courses: Courses | None = None


@dataclass
class Verdict:
    """What becomes of the groups; what is in neither list waits."""

    passed: list[Passed] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)


def judge(
    groups: Iterable[Group],
    sizes: Mapping[Scope, Size],
    open_holds: Iterable[Scope],
    plans: Iterable[Plan],
    rules: Mapping[str, GuardRules],
) -> Verdict:
    """The verdict on all removals that wait. Scopes without a size have none; `rules` are by tenant."""
    verdict = Verdict()
    unplanned = _plan(groups, list(plans), verdict)
    cancelled = [group for group in unplanned if group.cancelled]
    holds = {scope for scope in open_holds if _has_limits(scope, rules)}
    ordinary = _join([group for group in unplanned if not group.cancelled], holds, verdict)
    _judge_cancelled(_join(cancelled, holds, verdict), sizes, rules, verdict)
    _judge_ordinary(ordinary, sizes, rules, verdict)
    return verdict


def _has_limits(scope: Scope, rules: Mapping[str, GuardRules]) -> bool:
    """A scope whose limits were taken away holds nothing more, though its hold stays open."""
    return scope.tenant in rules and getattr(rules[scope.tenant], scope.kind) not in (None, Limits())


def _plan(groups: Iterable[Group], plans: Sequence[Plan], verdict: Verdict) -> list[Group]:
    """Let through what was announced; returns the rest. A plan is for all of a group or for none of it."""
    left = []
    for group in groups:
        plan = next((plan for plan in plans if plan.scope in group.places and plan.left >= group.size), None)
        if plan is None:
            left.append(group)
        else:
            plan.left -= group.size
            verdict.passed.append(Passed(group, "planned", plan.planned))
    return left


def _join(groups: Iterable[Group], open_holds: set[Scope], verdict: Verdict) -> list[Group]:
    """What lies in a scope that is held already is held as well; returns the rest."""
    joined: dict[Scope, list[Group]] = defaultdict(list)
    left = []
    for group in groups:
        scope = next((scope for scope in (group.cancellations if group.cancelled else group.scopes) if scope in open_holds), None)
        if scope is None:
            left.append(group)
        else:
            joined[scope].append(group)
    verdict.held += [Held(scope, members, None) for scope, members in joined.items()]
    return left


def _judge_cancelled(
    groups: Sequence[Group], sizes: Mapping[Scope, Size], rules: Mapping[str, GuardRules], verdict: Verdict
) -> None:
    """Cancelled classes go without being counted as removals, but a large one does not, nor do very many of them."""
    small: list[Group] = []
    for scope, members in _by_scope(groups, "cancelled_section").items():
        size, most = sizes.get(scope, Size()), rules[scope.tenant].cancelled_section
        # Its members may be decided in batches: who is still a member goes as well.
        count = max(size.active, size.day + _count(members))
        if most is not None and count > most:
            verdict.held.append(Held(scope, members, Cause("day", count, size.active, f"most {most}")))
        else:
            small += members
    for scope, members in _by_scope(small, "cancelled_term").items():
        size, most = sizes.get(scope, Size()), rules[scope.tenant].cancelled_term
        count = size.day + _count(members)
        if most is not None and count > most:
            verdict.held.append(Held(scope, members, Cause("day", count, size.active, f"most {most}")))
        else:
            verdict.passed += [Passed(group, "cancelled") for group in members]


def _judge_ordinary(
    groups: Sequence[Group], sizes: Mapping[Scope, Size], rules: Mapping[str, GuardRules], verdict: Verdict
) -> None:
    counted: dict[Scope, list[Group]] = defaultdict(list)
    for group in groups:
        for scope in group.scopes:
            counted[scope].append(group)
    causes = {scope: _cause(scope, members, sizes, rules, 1.0) for scope, members in counted.items()}
    tripped = {scope for scope, cause in causes.items() if cause is not None}
    bursting = {scope for scope, members in counted.items() if _cause(scope, members, sizes, rules, _BURST) is not None}
    gone: set[Group] = set()
    for scope in sorted(tripped, key=_wide_first):
        members = [group for group in counted[scope] if group not in gone]
        if any(group.ripe for group in members) and not _lies_in_a_narrower(members, tripped, narrower_than=scope):
            verdict.held.append(Held(scope, members, causes[scope]))
            gone.update(members)
    for group in groups:
        if group in gone or any(scope in tripped for scope in group.scopes):
            continue
        if group.ripe or bursting.isdisjoint(group.scopes):
            verdict.passed.append(Passed(group, "counted"))


def _lies_in_a_narrower(members: Sequence[Group], tripped: set[Scope], *, narrower_than: Scope) -> bool:
    """Whether nearly all of it is in one narrower scope that is to be held: then that is what a person should look at."""
    width = _WIDTH.index(narrower_than.kind)
    inside: Counter[Scope] = Counter()
    for group in members:
        for scope in group.scopes:
            if scope in tripped and _WIDTH.index(scope.kind) > width:
                inside[scope] += group.size
    return max(inside.values(), default=0) >= _count(members) * _NEARLY_ALL


_WIDTH: tuple[ScopeKind, ...] = ("tenant", "source", "term", "course", "section")


def _wide_first(scope: Scope) -> tuple[int, str, str]:
    return _WIDTH.index(scope.kind), scope.tenant, scope.key


def _by_scope(groups: Iterable[Group], kind: ScopeKind) -> dict[Scope, list[Group]]:
    found: dict[Scope, list[Group]] = defaultdict(list)
    for group in groups:
        found[next(scope for scope in group.cancellations if scope.kind == kind)].append(group)
    return found


def _count(groups: Iterable[Group]) -> int:
    return sum(group.size for group in groups)


def _cause(
    scope: Scope, members: Sequence[Group], sizes: Mapping[Scope, Size], rules: Mapping[str, GuardRules], share: float
) -> Cause | None:
    """The limit of which this share is reached when all of these go, if any is."""
    limits: Limits = getattr(rules[scope.tenant], scope.kind)
    size, count = sizes.get(scope, Size()), _count(members)
    windows: list[tuple[Window, Limit, int]] = [
        ("quarter_hour", limits.quarter_hour, size.quarter_hour),
        ("day", limits.day, size.day),
    ]
    for window, limit, before in windows:
        removals, seats = before + count, before + size.active
        if limit.reached(removals, seats, share):
            return Cause(window, removals, seats, str(limit))
    return None

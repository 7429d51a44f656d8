"""One round of the guard: read what waits, judge it, write the verdict.

Reading takes no lock, because at the size for which the guard exists it takes seconds; nobody else lets removals through, as only
who holds the lease does.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from services.consumer.guard import entering, reading
from services.consumer.guard.judging import Group, How, Scope, ScopeKind, Verdict, judge
from services.consumer.guard.reading import IN_LIVE_TERM, Members
from services.consumer.guard.writing import Stopped, Writer
from services.consumer.ledger import writing
from services.consumer.ledger.policies import Policies
from services.consumer.ledger.writing import Terms
from services.consumer.policy.guard_rules import GuardRules
from services.kit.postgres import Connection

_SIZES_SECONDS = 900.0
"""Seats are counted so often while there is anything to guard."""
_OLD_SIZES_SECONDS = 30.0
"""What is about to be held is compared with younger numbers: on a registration morning a section doubles in minutes."""
_MANY = 50
"""Rows of work, whatever they wait for, with which the statements are planned anew: a plan that was made while there was little
work reads all of it for each removal."""

_STATE = f"""
select coalesce(bool_or(paused), false), coalesce(extract(epoch from clock_timestamp() - max(sizes_at)), 'infinity')::float8,
       exists (select from work where target = %(target)s and state = 'guarded' and {IN_LIVE_TERM}),
       (select count(*) from (select from work where target = %(target)s limit %(many)s) as counted)
  from guard where target = %(target)s
"""  # noqa: S608  (a constant of ours)


@dataclass
class Review:
    """What one round did."""

    passed: Counter[How] = field(default_factory=Counter)
    held: int = 0
    opened: list[ScopeKind] = field(default_factory=list)
    """Scopes of the holds that were opened."""
    ready: int = 0
    """Removals that needed no judgement."""

    @property
    def has_passed(self) -> bool:
        """Whether there is something to send."""
        return self.passed.total() > 0 or self.ready > 0


def review(connection: Connection, target: str, policies: Policies, holds_lease: Callable[[Connection], bool]) -> Review:
    """Judge what waits. `holds_lease` says whether the lease is ours and locks it; without it nothing is written."""
    done = Review()
    writer = Writer(connection, target, holds_lease)
    terms = writing.terms(connection, target)
    if terms.none_is_live:
        return done
    row = connection.execute(_STATE.encode(), {"target": target, "many": _MANY, **terms.parameters}).fetchone()
    assert row is not None  # noqa: S101  (an aggregate always gives a row)
    paused, age, guarded, work = row
    with suppress(Stopped):
        if paused:
            writer.pull_back()
        elif guarded:
            if work == _MANY:
                connection.execute("discard plans")
            done.ready = writer.ready()
            done.held = writer.rejoin()
            done.opened += ["reused_section"] * entering.hold(connection, target, terms, writer)
            _judge_and_write(connection, target, policies, terms, writer, age, done)
    return done


def tidy(connection: Connection, target: str, holds_lease: Callable[[Connection], bool]) -> None:
    """Close holds that nothing is in any more, and forget removals that count in no window."""
    with suppress(Stopped):
        Writer(connection, target, holds_lease).tidy()


def _judge_and_write(
    connection: Connection, target: str, policies: Policies, terms: Terms, writer: Writer, age: float, done: Review
) -> None:
    rules = reading.rules_of(connection, target, policies)
    groups = reading.waiting(connection, target, rules, terms)
    if not groups:
        return
    if age > _SIZES_SECONDS:
        reading.count_sizes(connection, target)
    holds = reading.open_holds(connection, target)
    verdict = _verdict(connection, target, groups, holds, rules)
    if _OLD_SIZES_SECONDS < age <= _SIZES_SECONDS and any(held.cause for held in verdict.held):
        reading.count_sizes(connection, target)
        verdict = _verdict(connection, target, groups, holds, rules)
    alike: dict[tuple[How, str | None], list[Group]] = defaultdict(list)
    for passed in verdict.passed:
        alike[passed.how, passed.planned].append(passed.group)
    for (how, planned), passing in alike.items():
        done.passed[how] += writer.let_through(how, planned, passing, groups)
    for held in verdict.held:
        done.held += writer.hold(held, holds.get(held.scope), groups)
        done.opened += [held.scope.kind] if held.cause else []


def _verdict(
    connection: Connection,
    target: str,
    groups: Mapping[Group, Members],
    holds: Collection[Scope],
    rules: Mapping[str, GuardRules],
) -> Verdict:
    sizes = reading.sizes(connection, target, groups.keys())
    return judge(groups, sizes, holds, reading.plans(connection, target), rules)

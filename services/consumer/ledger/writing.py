"""Where we may write: the switch between shadow, in which everything is decided and nothing applied, and live, by term."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from services.consumer.ledger import audit
from services.kit.postgres import Connection, text_array

ALL_TERMS = ""
"""The term of the row that holds for every term without one of its own."""


def is_live(target: str, term: str) -> str:
    """An SQL expression: whether this term, itself an expression, may be written to. Not a function of the database: one that
    looks into a table is called row by row. Columns have to be qualified."""
    return f"coalesce({_said('live', target, term)}, {_said('live', target, _OTHERS)}, true)"


def live_since(target: str, term: str) -> str:
    """An SQL expression: when it was last said of this term whether it is live; null if nothing ever was. What we knew of a seat
    earlier, somebody else may have changed."""
    return f"coalesce({_said('since', target, term)}, {_said('since', target, _OTHERS)})"


_OTHERS = "''"


def _said(column: str, target: str, term: str) -> str:
    if not all("." in part or "%" in part or part == _OTHERS for part in (target, term)):
        raise ValueError("an unqualified column would be taken for one of the table that is asked")
    return f"(select writing.{column} from writing where writing.target = {target} and writing.term = {term})"  # noqa: S608


class Terms(NamedTuple):
    """Which terms are live, all at once."""

    others_live: bool
    """Terms that are not named."""
    named: list[str]
    """Term key texts: those that are otherwise than the others."""

    @property
    def none_is_live(self) -> bool:
        """Nothing may be written at all."""
        return not self.others_live and not self.named

    @property
    def parameters(self) -> dict[str, object]:
        """For a statement that compares many rows with them: ``(term = any(%(terms)s::text[])) <> %(live)s``."""
        return {"terms": text_array(self.named), "live": self.others_live}


class Switch(NamedTuple):
    """What was said about a term, or about all that have no word of their own."""

    term: str
    """Term key text, or `ALL_TERMS`."""
    live: bool
    reason: str
    actor: str
    since: datetime


class Released(NamedTuple):
    """What the end of a shadow sets going."""

    adds: int
    removals: int
    """They are judged by the guard first."""
    updates: int


class Compared(NamedTuple):
    """What must have been compared."""

    scope: str
    """As a comparison keeps it, in JSON."""
    prefix: str
    """What the keys of its sections, with a slash behind them, begin with."""


class NotCompared(Exception):
    """The rosters of the term were not all read lately: what would be written now is not what anybody has seen."""


_SWITCH = """
insert into writing (target, term, live, reason, actor) values (%(target)s, %(term)s, %(live)s, %(reason)s, %(actor)s)
on conflict (target, term) do update
   set live = excluded.live, reason = excluded.reason, actor = excluded.actor, since = excluded.since
"""
_COMPARED = """
select from roster_run
 where target = %(target)s and state = 'done' and finished_at > clock_timestamp() - interval '24 hours'
   and (scope = '{}' or scope = %(scope)s::jsonb)
   and (select count(*) filter (where section.state = 'failed') = 0
               and (count(*) = 0 or count(*) filter (where section.state = 'read') > 0)
          from roster_section as section
         where (section.target, section.run) = (roster_run.target, roster_run.run)
           and starts_with(section.section || '/', %(prefix)s))
 limit 1
"""
# What the driver does now undoes them; what it cannot undo is found again.
_GIVEN_TO_THE_DRIVER = f"""
update roster_finding set repair_at = clock_timestamp()
 where target = %(target)s and seat is not null and repair_at is null
   and {is_live("roster_finding.target", "roster_finding.term")} and (%(term)s = '' or term = %(term)s)
"""  # noqa: S608  (a constant of ours)
_WAITING = f"""
select count(*) filter (where seat.effect = 'add')::int, count(*) filter (where seat.effect = 'drop')::int,
       count(*) filter (where seat.effect = 'update')::int
  from work join seat using (target, seat)
 where work.target = %(target)s and {is_live("work.target", "work.term")} and (%(term)s = '' or work.term = %(term)s)
"""  # noqa: S608  (a constant of ours)


def begin_in_shadow(connection: Connection, target: str) -> bool:
    """At the very first start: nothing is written until somebody switches a term live. True when this call said so."""
    with connection.transaction():
        begun = connection.execute(
            """insert into writing (target, term, live, reason, actor)
               select %(target)s, '', false, 'first start', 'start'
                where not exists (select from writing where target = %(target)s)
                  and not exists (select from seat where target = %(target)s)
               on conflict do nothing""",
            {"target": target},
        ).rowcount
        if begun:
            audit.record(connection, "start", "writing.shadow", "done", {"target": target})
    return bool(begun)


def listed(connection: Connection, target: str) -> list[Switch]:
    """Everything that was said, the word for all other terms first."""
    rows = connection.execute("select term, live, reason, actor, since from writing where target = %s order by term", [target])
    return [Switch(*row) for row in rows.fetchall()]


def terms(connection: Connection, target: str) -> Terms:
    """What was said of terms."""
    said = {one.term: one.live for one in listed(connection, target)}
    others_live = said.pop(ALL_TERMS, True)
    return Terms(others_live, [term for term, live in said.items() if live != others_live])


def live(connection: Connection, target: str, term: str) -> bool:
    """Whether the term may be written to."""
    row = connection.execute(f"select {is_live('%(target)s', '%(term)s')}".encode(), {"target": target, "term": term}).fetchone()
    return bool(row and row[0])


def shadow(connection: Connection, target: str, term: str, reason: str, actor: str) -> None:
    """Stop writing to a term, or to all that have no word of their own. Calls that are under way end; none begins."""
    _say(connection, target, term, reason, actor, live=False)


def go_live(connection: Connection, target: str, term: str, reason: str, actor: str, *, compared: Compared | None) -> Released:
    """Begin to write. What the shadow left undone is what the driver does next, each seat read before it is written.

    `compared`: what must have been compared within the last day, alone or with everything, every section of it; None asks for
    nothing. Raises `NotCompared`.
    """
    place = {"target": target, "term": term}
    if compared is not None and connection.execute(_COMPARED, place | compared._asdict()).fetchone() is None:
        raise NotCompared
    _say(connection, target, term, reason, actor, live=True)
    connection.execute(_GIVEN_TO_THE_DRIVER.encode(), place)
    row = connection.execute(_WAITING.encode(), place).fetchone()
    assert row is not None  # noqa: S101  (an aggregate always gives a row)
    return Released(*row)


def _say(connection: Connection, target: str, term: str, reason: str, actor: str, *, live: bool) -> None:
    said = {"target": target, "term": term, "live": live, "reason": reason, "actor": actor}
    connection.execute(_SWITCH, said)

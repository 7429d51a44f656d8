"""Why a person has, or has not, a seat in a section: what the SIS said, what was decided and what the LMS answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, LiteralString, NamedTuple

from psycopg.rows import dict_row

from schemas import keys
from services.consumer.ledger.writing import is_live
from services.consumer.nouns import SATISFIED, TERM
from services.consumer.policy import model
from services.kit.postgres import Connection

TIMELINE = 500
"""Longest timeline; of a longer one the newest part is shown."""

_Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is asked about, by the ids of the SIS."""

    tenant: str
    person: str
    institution: str
    term: str
    section: str

    @property
    def section_key(self) -> str:
        """Section key text."""
        return keys.join(self.institution, self.term, self.section)

    def named(self) -> dict[str, object]:
        """In the words of the call."""
        section = {"institution": self.institution, "term": self.term, "section": self.section}
        return {"tenant": self.tenant, "person": self.person, "section": section}


@dataclass(frozen=True, slots=True)
class Known:
    """What the ledger holds about a subject. The rows are as the queries below name them."""

    person: _Row | None
    section: _Row | None
    enrollments: Sequence[_Row]
    """Newest state of each role family, learner and staff. `begins_at` of one that gives access only from then on."""
    seats: Sequence[_Row]
    overrides: Sequence[_Row]
    """The newest first, those that are over included."""
    differences: Sequence[_Row]
    """What the newest rosters showed otherwise."""
    ledger: _Row
    """The tenant's active policy, whether the ledger is in recovery, when the intake last moved on."""


class Finding(NamedTuple):
    """One sentence about how things stand. `code` is a closed word for programs; `check` says what to do about it."""

    code: str
    text: str
    check: str | None = None


def trace(connection: Connection, subject: Subject) -> dict[str, object]:
    """Everything the ledger knows about the person in the section, within the caller's transaction. Asks nobody else."""
    known = _read(connection, subject)
    timeline = _timeline(connection, subject)
    return {
        "looked_for": subject.named(),
        "findings": [finding._asdict() for finding in findings(known)],
        "person": known.person,
        "section": known.section,
        "enrollments": known.enrollments,
        "seats": known.seats,
        "overrides": known.overrides,
        "differences": known.differences,
        "timeline": [_told(row) for row in reversed(timeline[:TIMELINE])],
        "timeline_complete": len(timeline) <= TIMELINE,
        "ledger": known.ledger,
    }


def findings(known: Known) -> list[Finding]:
    """How things stand, in the order in which a change travels: received, enrolled, decided, applied. Pure."""
    return [*_of_the_source(known), *_of_the_decision(known), *_of_the_seats(known)]


def _of_the_source(known: Known) -> Iterator[Finding]:
    if known.person is None and not known.enrollments:
        yield Finding(
            "person_unknown",
            "No event about this person was ever taken by this ledger.",
            "Compare the id with the student system: leading zeros count, and so does the tenant. "
            "Then look whether the publisher received or quarantined the person's message.",
        )
    if known.section is None:
        yield Finding(
            "section_unknown",
            "No event about this section was ever taken by this ledger.",
            "Compare institution, term and section with the student system; section numbers repeat across terms.",
        )
    if not known.enrollments:
        yield Finding(
            "never_enrolled",
            "The student system never sent an enrollment of this person in this section.",
            "Look for the enrollment in the student system; if it is there, have the publisher send it again (republish).",
        )
        if known.ledger["intake_moved_at"] is None:
            yield Finding("intake_idle", "The intake has not begun to read the log.", "Look at /readyz of the consumer.")


def _of_the_decision(known: Known) -> Iterator[Finding]:
    if known.section is not None and known.section["status"] in ("cancelled", "removed"):
        yield Finding("section_gone", f"The student system says that the section is {known.section['status']}.")
    for enrollment in known.enrollments:
        said = f"The student system says {enrollment['status']} as {enrollment['role']}."
        yield Finding("sis_enrolled" if enrollment["status"] == "enrolled" else "sis_not_enrolled", said)
    later = [enrollment["begins_at"] for enrollment in known.enrollments if enrollment["begins_at"] is not None]
    if known.enrollments and known.ledger["policy_version"] is None:
        yield Finding("no_policy", "The tenant has no active policy, so nobody gets a seat.", "Apply a policy for the tenant.")
    elif later:
        yield Finding("begins_later", f"The enrollment gives nothing before {_minute(min(later))}; then it does by itself.")
    elif known.enrollments and not known.seats:
        yield Finding(
            "no_seat", "The policy gives no seat for this status and role.", "Ask the registrar whether the policy should."
        )


def _of_the_seats(known: Known) -> Iterator[Finding]:
    if known.ledger["recovery"]:
        yield Finding("recovery", "The ledger lost history and reads every seat from the LMS before it writes to it.")
    for seat in known.seats:
        if seat["override"] is not None:
            yield _of_override(seat, seat["override"])
        yield _of_seat(seat, seat["work"])
    deciding = {seat["override"]["override"] for seat in known.seats if seat["override"] is not None}
    for override in known.overrides:
        if override["in_force"] and override["override"] not in deciding:
            said = f"Override {override['override']} decides nothing: the policy gives {override['role']} no seat."
            yield Finding("override_idle", said, "Withdraw it, or ask the registrar whether the policy should.")
    for one in known.differences:
        said = f"When the roster was last read, at {_minute(one['read_at'])}, the LMS showed {one['role']} as {one['shown']}"
        yield Finding("differs", f"{said} ({one['kind']}).", "See GET /differences.")


def _of_override(seat: _Row, override: _Row) -> Finding:
    said = f"{seat['role']} is {seat['desired']} by override {override['override']} until {_minute(override['until'])}"
    return Finding("override", f"{said}, whatever the student system says.")


def _minute(at: datetime | str) -> str:
    """PostgreSQL gives times within JSON as text."""
    return datetime.fromisoformat(str(at)).isoformat(sep=" ", timespec="minutes")


def _of_seat(seat: _Row, work: _Row | None) -> Finding:  # noqa: PLR0911  (a table)
    wanted = f"{seat['role']} should be {seat['desired']}"
    if seat["settled"]:
        return Finding("applied", f"{wanted}, and the LMS has confirmed it.")
    if work is None:
        return Finding("lost_work", f"{wanted}, is not, and nothing is planned.", "Replay the newest record of the enrollment.")
    if not seat["live"]:
        return Finding("shadow", f"{wanted}; its term is in shadow, so nothing is written.", "See GET /writing.")
    because = f" ({work['reason']})" if work["reason"] else ""
    match work["state"]:
        case "waiting":
            missing = f"the LMS has no {work['waits_kind']} with the SIS id {work['waits_object']}"
            if work["making"] is not None:
                return Finding("waiting", f"{wanted}; {missing}. Making it: {work['making']}.", "See GET /objects.")
            return Finding("waiting", f"{wanted}; {missing}.", f"Create the {work['waits_kind']} in the LMS; the seat follows.")
        case "retrying":
            return Finding("retrying", f"{wanted}; attempt {work['attempts']} failed{because} and is repeated.")
        case "dead":
            return Finding("dead", f"{wanted}; the LMS refuses it{because}.", "Remove the cause, then replay the record.")
        case "guarded" | "held" if seat["desired"] == "active":
            return Finding(
                "held", f"{wanted}; the section's number was given to another class, which needs a person.", "See GET /holds."
            )
        case "guarded":
            return Finding("guarded", f"{wanted}; the removal is counted with others before it is sent.", "See GET /removals.")
        case "held":
            return Finding(
                "held", f"{wanted}; the removal is in hold {work['hold']} until a person approves it.", "See GET /holds."
            )
        case "suspect":
            return Finding("suspect", f"{wanted} and is; a call of unknown outcome may still change it, so it is read again.")
        case _:
            return Finding("in_flight", f"{wanted}; it is next in line.")


def _read(connection: Connection, subject: Subject) -> Known:
    of_person = [subject.tenant, subject.person, subject.section_key]
    ledger = _one(connection, _LEDGER, [subject.tenant])
    assert ledger is not None  # noqa: S101  (the query always gives its row)
    return Known(
        person=_one(connection, _ENTITY, [subject.tenant, "person", keys.join(subject.person)]),
        section=_one(connection, _ENTITY, [subject.tenant, "section", subject.section_key]),
        enrollments=_enrollments(connection, subject, of_person),
        seats=_rows(connection, _SEATS, of_person),
        overrides=_rows(connection, _OVERRIDES, of_person),
        differences=_rows(connection, _DIFFERENCES, of_person),
        ledger=ledger,
    )


def _enrollments(connection: Connection, subject: Subject, of_person: Sequence[object]) -> list[_Row]:
    rows = _rows(connection, _ENROLLMENTS, of_person)
    asked = "select body, clock_timestamp() from policy where tenant = %s and active"
    found = connection.execute(asked, [subject.tenant]).fetchone()
    for row in rows:
        row["begins_at"] = _begins_at(row, subject, model.parse(found[0]), found[1]) if found else None
        del row["gone"]
    return rows


def _begins_at(row: _Row, subject: Subject, policy: model.Policy, now: datetime) -> datetime | None:
    """When the enrollment gives access by itself; None: it does, or it never will."""
    day = date.fromisoformat(row["effective_date"]) if row["effective_date"] else None
    gives = policy.state(row["status"], day, model.Place(subject.institution, subject.term, row["session"]))
    begins = policy.begins(day)
    waits = gives == "active" and policy.roles[row["role"]] is not None and not row["gone"]
    return begins if waits and begins is not None and begins > now else None


def _timeline(connection: Connection, subject: Subject) -> list[_Row]:
    """The newest first, one more than is shown."""
    parameters = {
        "tenant": subject.tenant,
        "person": subject.person,
        "section": subject.section_key,
        "person_key": keys.join(subject.person),
        "limit": TIMELINE + 1,
    }
    return _rows(connection, _TIMELINE, parameters)


def _told(row: _Row) -> _Row:
    """One line of the timeline without what it does not have."""
    return {name: value for name, value in row.items() if value is not None}


def _rows(connection: Connection, query: LiteralString, parameters: Sequence[object] | Mapping[str, object]) -> list[_Row]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, parameters).fetchall()


def _one(connection: Connection, query: LiteralString, parameters: Sequence[object]) -> _Row | None:
    return next(iter(_rows(connection, query, parameters)), None)


_ENTITY = """
select event->>'status' as status, version, accepted_at, received_at, topic, "partition", "offset"
  from entity where tenant = %s and kind = %s and key = %s
"""

_ENROLLMENTS = """
select enrollment.event->>'role_family' as role_family, enrollment.event->>'status' as status, enrollment.event->>'role' as role,
       enrollment.event->>'effective_date' as effective_date, enrollment.event->'codes' as codes,
       section.event->>'session' as session, coalesce(section.event->>'status' in ('cancelled', 'removed'), false) as gone,
       enrollment.version, enrollment.accepted_at, enrollment.received_at, enrollment.topic, enrollment."partition",
       enrollment."offset"
  from entity as enrollment
  left join entity as section
    on section.tenant = enrollment.tenant and section.kind = 'section' and section.key = enrollment.section
 where enrollment.tenant = %s and enrollment.person = %s and enrollment.section = %s and enrollment.kind = 'enrollment'
 order by enrollment.key
"""

# What the newest rosters showed otherwise.
_DIFFERENCES = """
select kind, role, desired, shown, shown_role, found_at, read_at, repair_at
  from roster_finding where tenant = %s and person = %s and section = %s
 order by number
"""

# Seats by the section that they were decided for; one that was given up by another section's enrollment keeps its own.
_SEATS = f"""
select seat.target, seat.lms_section, seat.lms_user, seat.role, seat.desired, seat.effect, seat.version, seat.decision,
       seat.policy_version, seat.accepted_at, seat.applied, seat.applied_version, seat.applied_at, seat.origin,
       seat.lms_enrollment, seat.lms_course, seat.suspect_until, seat.fence,
       {SATISFIED} and work.seat is null as settled, {is_live("seat.target", TERM)} as live,
       case when work.seat is not null then jsonb_build_object(
         'state', work.state, 'reason', work.reason, 'attempts', work.attempts, 'next_at', work.next_at,
         'read_first', work.read_first, 'since', work.created_at, 'hold', work.hold,
         'waits_kind', work.waits_kind, 'waits_object', work.waits_object,
         'making', (select concat_ws(', ', object.state, object.reason) from lms_object as object
                     where object.target = work.target and object.object = work.waits_object
                       and object.kind = case work.waits_kind when 'user' then 'person' else work.waits_kind end),
         'missing_since', dependency.since, 'probes', dependency.probes, 'next_probe_at', dependency.next_probe_at) end as work,
       (select jsonb_agg(jsonb_build_object('call', call, 'wanted', wanted, 'opened_at', opened_at, 'deadline', deadline))
          from intent
         where (intent.target, intent.seat, intent.person) = (seat.target, seat.seat, seat.person)
           and intent.closed_at is null) as open_calls,
       (select jsonb_build_object('override', override.override, 'until', override.ends_at)
          from entitlement join override on (override.tenant, override.override::text) = (entitlement.tenant, entitlement.key)
         where (entitlement.target, entitlement.seat, entitlement.kind) = (seat.target, seat.seat, 'override')
         order by override.made_at desc limit 1) as override
  from seat
  left join work using (target, seat)
  left join dependency
    on (dependency.target, dependency.kind, dependency.object) = (work.target, work.waits_kind, work.waits_object)
 where seat.tenant = %s and seat.person = %s and seat.section = %s
 order by seat.target, seat.seat
"""  # noqa: S608  (a constant)

_OVERRIDES = """
select override, role, state as gives, ends_at as until, reason, actor, made_at, ended_at, withdrawn_at, withdrawn_by,
       withdrawn_reason, ended_at is null and ends_at > clock_timestamp() as in_force
  from override where tenant = %s and person = %s and section = %s
 order by override desc
"""

# What happened to the person in the section, to the person's own record, and to the section itself (which names no person).
_TIMELINE = """
with told as (
  select * from history
   where tenant = %(tenant)s and person = %(person)s
     and (section = %(section)s or (kind = 'person' and key = %(person_key)s))
   union all
  select * from history where tenant = %(tenant)s and person = '' and kind = 'section' and key = %(section)s
)
select at, what, kind, case when kind = 'enrollment' then split_part(key, '/', 5) end as role_family,
       case when kind = 'override' then key::bigint end as override, version, topic, "partition", "offset", target, seat, detail
  from told order by at desc limit %(limit)s
"""

_LEDGER = """
select (select version from policy where tenant = %s and active) as policy_version,
       coalesce((select active from recovery), false) as recovery,
       (select max(updated_at) from intake_offset) as intake_moved_at
"""

"""Filling a ledger with settled seats, by SQL: what years of use would leave behind."""

from __future__ import annotations

from bench.load import CLASS
from schemas import codec
from services.consumer.nouns import seat_key
from services.kit.postgres import Connection
from services.sandbox.sis.school import INSTITUTION, TERM

TENANT = "main"
LMS_SECTION = f"{INSTITUTION}-{TERM}-{CLASS}"
_PERSON = "PERSONMARK"
"""Replaced by the number in SQL; survives the encoding of keys as it is."""
_VERSION = 1_700_000_000_000_000


def event_fields(person: str, version: int, status: str = "enrolled", section: str = CLASS) -> dict[str, object]:
    """An enrollment event as the publisher makes it, source row included."""
    state: dict[str, object] = {
        "tenant": TENANT, "institution": INSTITUTION, "term": TERM, "section": section, "person": person,
        "role_family": "learner", "status": status, "role": "student", "effective_date": "2027-01-04",
        "codes": {"STDNT_ENRL_STATUS": "E", "ENRL_STATUS_REASON": "ENRL"},
    }  # fmt: skip
    source = {
        "record": "STDNT_ENRL",
        "key": {"EMPLID": person, "ACAD_CAREER": "UGRD", "INSTITUTION": INSTITUTION, "STRM": TERM, "CLASS_NBR": section},
        "values": {
            "STDNT_ENRL_STATUS": "E",
            "ENRL_STATUS_REASON": "ENRL",
            "ENRL_ADD_DT": "2027-01-04",
            "GRADING_BASIS_ENRL": "GRD",
        },
        "order": {"channel": "ib:PSFT_CS", "position": version},
    }
    return state | {
        "version": version, "content_hash": codec.content_hash(state), "occurred_at": "2027-01-04T08:00:00Z",
        "accepted_at": "2027-01-04T08:00:01Z", "source_rows": [source],
    }  # fmt: skip


def settle(connection: Connection, first: int, last: int) -> None:
    """Settled, active seats of the people numbered `first` to `last` (exclusive); the tables are analysed afterwards."""
    fields = event_fields(_PERSON, _VERSION)
    event = codec.build("enrollment", fields)
    numbers = "select lpad(n::text, 8, '0') as person from generate_series(%(first)s::int, %(last)s::int - 1) as n"
    values = {
        "first": first, "last": last, "tenant": TENANT, "key": event.entity_key.key,
        "event": codec.encode(event).decode(), "mark": _PERSON, "version": _VERSION,
        "hash": fields["content_hash"], "section": f"{INSTITUTION}/{TERM}/{CLASS}", "lms": LMS_SECTION,
        "seat": seat_key(LMS_SECTION, _PERSON, "StudentEnrollment"),
    }  # fmt: skip
    with connection.transaction():
        connection.execute("set local synchronous_commit = off")
        for statement in (_PERSONS, _ENTITIES, _ENTITLEMENTS, _SEATS):
            connection.execute(statement.format(numbers=numbers).encode(), values)
    connection.execute("analyze")


def want_removed(connection: Connection, first: int, last: int) -> None:
    """The same people's seats should now be gone: one row of work each, due at once and let through by the guard."""
    with connection.transaction():
        connection.execute("set local synchronous_commit = off")
        connection.execute(
            """
            with changed as (
              update seat set desired = 'deleted', effect = 'drop', decision = decision + 1, accepted_at = clock_timestamp()
               where target = 'canvas' and person between %s and %s
              returning target, seat, tenant, person, course, decision)
            insert into work (target, seat, tenant, person, course, state, priority, next_at, cleared)
            select target, seat, tenant, person, course, 'pending', 0, clock_timestamp(), decision from changed""",
            [f"{first:08d}", f"{last - 1:08d}"],
        )
    connection.execute("analyze")


_PERSONS = "insert into person (tenant, person) select %(tenant)s, person from ({numbers}) as people"
_ENTITIES = """
insert into entity (tenant, kind, key, person, section, version, content_hash, event, topic, "partition", "offset", accepted_at)
select %(tenant)s, 'enrollment', replace(%(key)s, %(mark)s, person), person, %(section)s, %(version)s, %(hash)s,
       replace(%(event)s, %(mark)s, person)::jsonb, 'seeded', 0, 0, clock_timestamp()
  from ({numbers}) as people"""
_ENTITLEMENTS = """
insert into entitlement (tenant, kind, key, target, seat, person)
select %(tenant)s, 'enrollment', replace(%(key)s, %(mark)s, person), 'canvas', replace(%(seat)s, %(mark)s, person), person
  from ({numbers}) as people"""
_SEATS = """
insert into seat (target, seat, tenant, person, section, lms_section, lms_user, role, base_role, desired, effect, version,
                  policy_version, accepted_at, applied, applied_version, applied_at, origin, lms_enrollment, lms_course)
select 'canvas', replace(%(seat)s, %(mark)s, person), %(tenant)s, person, %(section)s, %(lms)s, person,
       'StudentEnrollment', 'StudentEnrollment', 'active', 'add', %(version)s, 1, clock_timestamp(),
       'active', %(version)s, clock_timestamp(), 'ours', '1' || person, '1'
  from ({numbers}) as people"""

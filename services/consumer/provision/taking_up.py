"""How objects come to be looked at: somebody waits for them, another one is to be made in them, or the SIS says something new.

None of it costs an enrollment's event anything: what seats wait for stands in `dependency` already.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from schemas import keys
from schemas.events import EnrollmentEvent, PersonEvent
from schemas.keys import EntityKey
from services.consumer.ledger.entities import Arrival
from services.consumer.ledger.policies import ActivePolicy, Policies
from services.consumer.ledger.writing import is_live
from services.consumer.nouns import MissingKind, ObjectKind
from services.consumer.provision.merging import last_heir
from services.consumer.provision.wanting import Subject
from services.kit.postgres import Connection, text_array

KIND_OF: dict[MissingKind, ObjectKind] = {"user": "person", "section": "section"}
"""What a seat that waits for it calls an object, and what the object is."""
_AT_ONCE = 200

_UNNOTED = """
select dependency.kind, dependency.object, waiter.tenant, waiter.person, waiter.section
  from dependency
 cross join lateral (
   select seat.tenant, seat.person, seat.section
     from work join seat using (target, seat)
    where work.target = dependency.target and work.state = 'waiting'
      and work.waits_kind = dependency.kind and work.waits_object = dependency.object
    limit 1) as waiter
 where dependency.target = %(target)s and dependency.state = 'missing' and not dependency.noted
   and dependency.kind = any(%(kinds)s::text[])
 order by dependency.since limit %(limit)s
"""
_NOTE = """
update dependency set noted = true
  from unnest(%s::text[], %s::text[]) as found (kind, object)
 where dependency.target = %s and (dependency.kind, dependency.object) = (found.kind, found.object) and state = 'missing'
"""
# Somebody misses it now, for this class. What is awaited already keeps its own time, unless that is for a term that is not live.
_ADD = f"""
insert into lms_object as known (target, kind, object, tenant, key, person, section, term, awaited)
select %s, kind, object, tenant, key, person, section, term, true
  from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])
    as found (kind, object, tenant, key, person, section, term)
 order by kind, object
    on conflict (target, kind, object) do update
   set key = excluded.key, section = excluded.section, term = excluded.term, heard = known.heard + 1, awaited = true,
       state = 'pending', state_since = clock_timestamp(), next_at = clock_timestamp(), attempts = 0, reason = null
 where not known.awaited or known.term is not null and not {is_live("known.target", "known.term")}
"""  # noqa: S608  (constants of ours)
_ADD_PEOPLE = """
insert into lms_object (target, kind, object, tenant, key, person, suspends, moves_to, next_at)
select %(target)s, 'person', object, tenant, key, person, gone, moves_to, clock_timestamp() + delay * interval '1 s'
  from unnest(%(objects)s::text[], %(tenants)s::text[], %(keys)s::text[], %(persons)s::text[], %(gone)s::boolean[],
              %(moves)s::text[], %(delays)s::float8[]) as told (object, tenant, key, person, gone, moves_to, delay)
 where exists (select from seat where (seat.tenant, seat.person) = (told.tenant, told.person) and seat.target = %(target)s)
 order by object
    on conflict (target, kind, object) do nothing
"""
_RECONSIDER = """
update lms_object
   set state = 'pending', state_since = clock_timestamp(), next_at = clock_timestamp(), heard = heard + 1, attempts = 0,
       reason = null
 where target = %s and (state in ('held', 'refused') or waits_kind is not null or reason in ('off', 'not_supported'))
"""
# `object`: how the LMS calls a section of the event, whichever of the classes that share it the row was wanted for. A course that
# was wanted before the SIS said which one it is has the key of its section.
_TOLD = """
with told as materialized (
  select * from unnest(%(tenants)s::text[], %(kinds)s::text[], %(keys)s::text[], %(objects)s::text[], %(gone)s::boolean[],
                       %(moves)s::text[], %(delays)s::float8[]) as told (tenant, kind, key, object, gone, moves_to, delay)),
found as (
  select target, lms_object.kind, lms_object.object, gone, told.moves_to, delay
    from told join lms_object on (lms_object.tenant, lms_object.kind, lms_object.key) = (told.tenant, told.kind, told.key)
   union
  select target, kind, object, gone, told.moves_to, delay
    from told join lms_object using (kind, object) where target = %(target)s
   union
  select target, 'course', lms_object.object, gone, told.moves_to, delay
    from told join lms_object on (lms_object.tenant, lms_object.kind, lms_object.key) = (told.tenant, 'course', told.key)
   where told.kind = 'section'
   union
  select target, lms_object.kind, lms_object.object, null, lms_object.moves_to, 0
    from told join lms_object
      on (lms_object.tenant, lms_object.lacks_kind, lms_object.lacks_key) = (told.tenant, told.kind, told.key)
   where (lms_object.kind, lms_object.key) <> (told.kind, told.key)),
locked as materialized (
  select lms_object.target, lms_object.kind, lms_object.object, found.gone, found.moves_to, found.delay
    from lms_object join found using (target, kind, object)
   order by lms_object.target, lms_object.kind, lms_object.object for update of lms_object)
update lms_object
   set heard = heard + 1, state = 'pending', reason = null, attempts = 0, waits_kind = null, waits_object = null,
       lacks_kind = null, lacks_key = null, ask_at = null, state_since = clock_timestamp(),
       next_at = clock_timestamp() + locked.delay * interval '1 s',
       suspends = coalesce(locked.gone, suspends), moves_to = locked.moves_to
  from locked
 where (lms_object.target, lms_object.kind, lms_object.object) = (locked.target, locked.kind, locked.object)
"""


def what_is_missed(connection: Connection, target: str, policies: Policies, kinds: Collection[ObjectKind]) -> int:
    """Take up the objects of these kinds that seats have begun to wait for; how many. Call again until it is none."""
    wanted = text_array(missing for missing, kind in KIND_OF.items() if kind in kinds)
    with connection.transaction():
        parameters = {"target": target, "kinds": wanted, "limit": _AT_ONCE}
        rows = connection.execute(_UNNOTED, parameters).fetchall()
        if not rows:
            return 0
        active = policies.active(connection)
        subjects = [
            _subject(kind, sis_id, tenant, person, section)
            for kind, sis_id, tenant, person, section in rows
            if tenant in active and KIND_OF[kind] in active[tenant].policy.provision.kinds
        ]
        add(connection, target, subjects)
        connection.execute(_NOTE, [text_array(row[0] for row in rows), text_array(row[1] for row in rows), target])
    return len(rows)


def _subject(missing: MissingKind, sis_id: str, tenant: str, person: str, section: str) -> Subject:
    if missing == "user":
        return Subject("person", sis_id, tenant, keys.join(person), None)
    return Subject("section", sis_id, tenant, section, section)


def add(connection: Connection, target: str, subjects: Sequence[Subject]) -> None:
    """Have these looked at, whoever made them; those that are being worked at already are left alone."""
    if not subjects:
        return
    rows = [(*subject[:4], *_place(subject)) for subject in subjects]
    connection.execute(_ADD.encode(), [target, *(text_array(column) for column in zip(*rows, strict=True))])


def _place(subject: Subject) -> tuple[str | None, str | None, str | None]:
    """Person, section and term key text."""
    if subject.section is None:
        return keys.split(subject.key)[0], None, None
    return None, subject.section, subject.section.rpartition("/")[0]


def hear(connection: Connection, arrivals: Iterable[Arrival], policies: Policies) -> None:
    """Have what these events are about looked at again, in the transaction that took them. Enrollments say nothing of objects."""
    told = [one for one in arrivals if not isinstance(one.event, EnrollmentEvent)]
    if not told:
        return
    active = policies.active(connection)
    people = [one for one in told if isinstance(one.event, PersonEvent)]
    heirs = _heirs(connection, people, active)
    if people:
        _add_people(connection, people, policies.target, active, heirs)
    tenants, kinds, names = (text_array(column) for column in zip(*(one.key for one in told), strict=True))
    connection.execute(
        _TOLD,
        {
            "target": policies.target,
            "tenants": tenants,
            "kinds": kinds,
            "keys": names,
            "objects": text_array(_section(one, active) for one in told),
            "gone": text_array(str(_is_gone(one)).lower() for one in told),
            "moves": text_array(heirs.get(one.key) for one in told),
            "delays": text_array(_delay(one, active) for one in told),
        },
    )


def _add_people(
    connection: Connection,
    people: Sequence[Arrival],
    target: str,
    active: Mapping[str, ActivePolicy],
    heirs: Mapping[EntityKey, str],
) -> None:
    """Whoever has a seat is kept as the SIS has them, where the policy does that at all. Of one whom the SIS keeps under another
    id something might be taken away wrongly, whoever makes the accounts."""
    rows = [
        (
            active[one.key.tenant].policy.lms_user(one.key.tenant, one.person),
            one.key.tenant,
            one.key.key,
            one.person,
            str(_is_gone(one)).lower(),
            heirs.get(one.key),
            _delay(one, active),
        )
        for one in people
        if one.key.tenant in active and (active[one.key.tenant].policy.provision.people is not None or one.key in heirs)
    ]
    if rows:
        names = ("objects", "tenants", "keys", "persons", "gone", "moves", "delays")
        columns = dict(zip(names, (text_array(column) for column in zip(*rows, strict=True)), strict=True))
        connection.execute(_ADD_PEOPLE, {"target": target, **columns})


def _section(one: Arrival, active: Mapping[str, ActivePolicy]) -> str | None:
    """How the LMS calls the section that the event is about; None of events about something else."""
    known = active.get(one.key.tenant)
    return known.policy.lms_section(one.key.tenant, one.key.key) if known and one.key.kind == "section" else None


def _is_gone(one: Arrival) -> bool:
    """Removed, and nowhere else."""
    return isinstance(one.event, PersonEvent) and one.event.status == "removed" and one.event.merged_into is None


def _heirs(connection: Connection, people: Iterable[Arrival], active: Mapping[str, ActivePolicy]) -> dict[EntityKey, str]:
    """How the LMS calls whom these people are now; the next id where the SIS sends us round in a circle."""
    heirs = {}
    for one in people:
        merged_into = one.event.merged_into if isinstance(one.event, PersonEvent) else None
        if merged_into is not None and one.key.tenant in active:
            heir = last_heir(connection, one.key.tenant, one.person) or merged_into
            heirs[one.key] = active[one.key.tenant].policy.lms_user(one.key.tenant, heir)
    return heirs


def reconsider(connection: Connection, target: str) -> int:
    """Another policy is active: what the last one held back, what the LMS refused, and what nobody was to make, is looked at
    again; how many rows that were."""
    with connection.transaction():
        connection.execute("update dependency set noted = false where target = %s and noted and state = 'missing'", [target])
        return connection.execute(_RECONSIDER, [target]).rowcount


def _delay(one: Arrival, active: Mapping[str, ActivePolicy]) -> str:
    """A removed person is looked at after the guard's wait, so that a burst of them is counted before a login is suspended."""
    known = active.get(one.key.tenant)
    return str(known.policy.guard.wait_seconds if known and _is_gone(one) else 0.0)

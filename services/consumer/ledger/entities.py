"""The newest event of each entity. An older version never replaces a newer one, whoever brings it: live stream or replay."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Literal, NamedTuple, Self

from schemas.events import AnyEvent, EnrollmentEvent, PersonEvent, SectionEvent
from schemas.keys import EntityKey
from services.consumer.ledger import history, members, section_courses, section_locks
from services.consumer.ledger.history import Happening
from services.consumer.ledger.members import SectionRef
from services.consumer.ledger.policies import Policies
from services.consumer.ledger.section_courses import Told
from services.consumer.nouns import PersonRef
from services.kit.postgres import Connection, text_array

Fate = Literal["taken", "superseded", "duplicate", "hash_alarm"]
"""What became of a record: newest now; older than what we have; the same again; or the same version with another content,
which two mirrors that both believe in themselves would produce."""


class Arrival(NamedTuple):
    """One decoded record of the log."""

    event: AnyEvent
    value: bytes
    """The record's own bytes: what a newer writer added stays in the ledger although this reader does not know it."""
    topic: str
    partition: int
    offset: int
    key: EntityKey
    """Of the event's entity; made once, because a batch asks for it a dozen times."""
    person: str
    """SIS id of the person it is about; empty for sections, courses and terms."""
    section: str | None
    """Section key text of the section it is about."""

    @classmethod
    def of(cls, event: AnyEvent, value: bytes, topic: str, partition: int, offset: int) -> Self:
        """The record with what the ledger calls the things that it is about."""
        key, person, section = event.entity_key, "", None
        if isinstance(event, EnrollmentEvent):
            person, section = event.person, key.section
        elif isinstance(event, SectionEvent):
            section = key.key
        elif isinstance(event, PersonEvent):
            person = event.person
        return cls(event, value, topic, partition, offset, key, person, section)


class Taken(NamedTuple):
    """What a batch of records did to the entities."""

    fates: list[tuple[Arrival, Fate]]
    """One for each record, in their order."""
    persons: set[PersonRef]
    """Who has to be decided again, in the same transaction (`deciding.decide_persons`). The members of a large section that
    changed are not among them: they are queued (`members`)."""


class _Stored(NamedTuple):
    version: int
    content_hash: str


def take(connection: Connection, arrivals: Sequence[Arrival], policies: Policies) -> Taken:
    """Keep what is newer, in the caller's open transaction, and append one row of history for each record.

    Locks, in the order that every transaction that decides keeps: sections, entities, the queue of sections, then (in
    `decide_persons`) persons, seats and work; each sorted.
    """
    if not arrivals:
        return Taken([], set())
    newest = _newest(arrivals)
    section_locks.take(
        connection,
        ((one.key.tenant, one.section, one.key.kind == "section") for one in newest.values() if one.section is not None),
    )
    taken = _upsert(connection, newest)
    fates = _fates(connection, arrivals, newest, taken)
    history.append(connection, (_happening(arrival, fate) for arrival, fate in fates))
    changed = [newest[key] for key in taken]
    section_courses.note(connection, _courses(changed), policies)
    return Taken(fates, _persons(changed) | members.of_changed(connection, _sections(changed)))


def _newest(arrivals: Iterable[Arrival]) -> dict[EntityKey, Arrival]:
    newest: dict[EntityKey, Arrival] = {}
    for arrival in arrivals:
        known = newest.get(arrival.key)
        if known is None or known.event.version < arrival.event.version:
            newest[arrival.key] = arrival
    return newest


def _upsert(connection: Connection, newest: dict[EntityKey, Arrival]) -> set[EntityKey]:
    """Store what is newer than the stored row; returns the keys of those."""
    ordered = [newest[key] for key in sorted(newest)]
    rows = connection.execute(
        """insert into entity
             (tenant, kind, key, person, section, version, content_hash, event, topic, "partition", "offset", accepted_at)
           select * from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::text[], %s::jsonb[],
                                %s::text[], %s::int[], %s::bigint[], %s::timestamptz[])
           on conflict (tenant, kind, key) do update
              set version = excluded.version, content_hash = excluded.content_hash, event = excluded.event,
                  topic = excluded.topic, "partition" = excluded."partition", "offset" = excluded."offset",
                  accepted_at = excluded.accepted_at, received_at = clock_timestamp()
            where entity.version < excluded.version
           returning tenant, kind, key""",
        [
            *map(text_array, zip(*(one.key for one in ordered), strict=True)),
            text_array(one.person or None for one in ordered),
            text_array(one.section if isinstance(one.event, EnrollmentEvent) else None for one in ordered),
            text_array(str(one.event.version) for one in ordered),
            text_array(one.event.content_hash for one in ordered),
            text_array(one.value.decode() for one in ordered),
            text_array(one.topic for one in ordered),
            text_array(str(one.partition) for one in ordered),
            text_array(str(one.offset) for one in ordered),
            text_array(one.event.accepted_at.isoformat() for one in ordered),
        ],
    ).fetchall()
    return {EntityKey(*row) for row in rows}


def _fates(
    connection: Connection, arrivals: Sequence[Arrival], newest: dict[EntityKey, Arrival], taken: set[EntityKey]
) -> list[tuple[Arrival, Fate]]:
    def is_taken(arrival: Arrival) -> bool:
        return arrival.key in taken and newest[arrival.key] is arrival

    rest = {arrival.key for arrival in arrivals if not is_taken(arrival)}
    stored = _stored(connection, rest)
    return [(arrival, "taken" if is_taken(arrival) else _fate(arrival, stored[arrival.key])) for arrival in arrivals]


def _fate(arrival: Arrival, stored: _Stored) -> Fate:
    if arrival.event.version < stored.version:
        return "superseded"
    return "duplicate" if arrival.event.content_hash == stored.content_hash else "hash_alarm"


def _stored(connection: Connection, wanted: Collection[EntityKey]) -> dict[EntityKey, _Stored]:
    """What stands in the ledger now. The upsert has locked these rows, so it cannot be newer than what we compared with."""
    if not wanted:
        return {}
    rows = connection.execute(
        """select tenant, kind, key, version, content_hash from entity
             join unnest(%s::text[], %s::text[], %s::text[]) as wanted(tenant, kind, key) using (tenant, kind, key)""",
        [text_array(column) for column in zip(*wanted, strict=True)],
    ).fetchall()
    return {EntityKey(tenant, kind, key): _Stored(version, digest) for tenant, kind, key, version, digest in rows}


def _happening(arrival: Arrival, fate: Fate) -> Happening:
    key = arrival.key
    return Happening(
        tenant=key.tenant,
        person=arrival.person,
        what="received" if fate == "taken" else fate,
        section=arrival.section,
        kind=key.kind,
        key=key.key,
        version=arrival.event.version,
        topic=arrival.topic,
        partition=arrival.partition,
        offset=arrival.offset,
        detail={"status": arrival.event.status},
    )


def _persons(changed: Iterable[Arrival]) -> set[PersonRef]:
    return {PersonRef(one.event.tenant, one.person) for one in changed if isinstance(one.event, EnrollmentEvent)}


def _sections(changed: Iterable[Arrival]) -> Iterable[SectionRef]:
    return (SectionRef(one.event.tenant, one.section) for one in changed if isinstance(one.event, SectionEvent) and one.section)


def _courses(changed: Iterable[Arrival]) -> Iterable[Told]:
    for one in changed:
        if isinstance(one.event, SectionEvent) and one.event.course and one.section:
            yield Told(one.event.tenant, one.section, one.event.course)

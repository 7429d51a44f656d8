"""Where the ledger and the mirror's digest disagree, and which of the two has to give way (rule R1).

- The ledger is *behind*, or a key is *missing here*: the publisher emits the entity again.
- The ledger is *ahead*, the same version has another *hash*, or a key is *missing there*: the mirror lost history, and the ledger
  gives its event back.

A digest speaks of the past, so each side is held only to what it must have had by then: the ledger to versions that were in the
log (whoever calls `compare` has waited until the intake had read that far), the mirror to versions that were committed before the
page was read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from schemas.digests import Bound, DigestPage
from schemas.keys import EntityKey, EntityKind
from services.kit.postgres import Connection, text_array

Difference = Literal["missing_here", "behind", "ahead", "hash", "missing_there"]
TO_REPUBLISH = frozenset({"missing_here", "behind"})
"""The mirror knows better; of the others the ledger does."""
OFTEN = 3
"""Told so often, a difference is one that no repetition cures (the event is a dead letter, for example)."""

_SLICE = 2_000
_FIRST = Bound("", "", "")
_ORDER = 'tenant collate "C", kind collate "C", key collate "C"'


class Slice(NamedTuple):
    """The part of a page that is compared at once: a mirror that lacks everything lists nothing in an endless range."""

    after: Bound
    upto: Bound | None


class Found(NamedTuple):
    """One entity that differs."""

    key: EntityKey
    difference: Difference
    theirs: int
    """The mirror's version; 0 for a key that it lacks."""


class Recorded(NamedTuple):
    """What became of a slice's differences."""

    tell: list[Found]
    """Of these the publisher has to be told now."""
    curable: int
    """How many are expected to go away."""
    repaired: Counter[Difference]
    """Differences of earlier rounds that are gone."""


def slices(connection: Connection, page: DigestPage) -> Iterator[Slice]:
    """The page's range in parts with at most so many of the ledger's entities."""
    after = page.after or _FIRST
    while (end := _end_of_slice(connection, after, page.upto)) is not None:
        yield Slice(after, end)
        after = end
    yield Slice(after, page.upto)


def compare(connection: Connection, page: DigestPage, part: Slice) -> list[Found]:
    """What differs. One statement that locks nothing; parked events count as seen (R11)."""
    condition, bounds = _within(part)
    rows = connection.execute(
        f"""with listed as (
              select * from unnest(%(tenants)s::text[], %(kinds)s::text[], %(keys)s::text[], %(versions)s::bigint[],
                                   %(hashes)s::text[], %(published)s::bool[])
                         as l (tenant, kind, key, version, content_hash, published)
               where {condition}
            ), log_end as (
              select * from unnest(%(topics)s::text[], %(partitions)s::int[], %(ends)s::bigint[]) as e (topic, "partition", "end")
            ), mine as (
              select tenant, kind, key, version, content_hash,
                     version <= %(complete_to)s or coalesce("offset" < "end", false) as settled
                from entity left join log_end using (topic, "partition")
               where {condition}
            ), compared as (
              select tenant, kind, key, listed.version as theirs, listed.content_hash,
                     case when mine.version is null then case when published then 'missing_here' end
                          when listed.version is null then case when settled then 'missing_there' end
                          when mine.version < listed.version then case when published then 'behind' end
                          when mine.version > listed.version then case when settled then 'ahead' end
                          when mine.content_hash <> listed.content_hash then 'hash' end as difference
                from listed full join mine using (tenant, kind, key))
            select tenant, kind, key, difference, coalesce(theirs, 0), coalesce(content_hash, '')
              from compared where difference is not null""",  # noqa: S608  (constants of this module)
        bounds | _listed(page),
    ).fetchall()
    parked = _parked(connection, [row[5] for row in rows if row[3] in TO_REPUBLISH])
    return [
        Found(EntityKey(*key), difference, theirs)
        for *key, difference, theirs, content_hash in rows
        if difference not in TO_REPUBLISH or (theirs, content_hash) not in parked
    ]


def record(connection: Connection, part: Slice, found: Sequence[Found]) -> Recorded:
    """Remember the differences of a slice and forget those that are gone."""
    condition, bounds = _within(part)
    keys = _keys([one.key for one in found])
    with connection.transaction():
        gone = connection.execute(
            f"""delete from digest_difference d
                 where {condition} and not exists (
                   select from unnest(%(found_tenants)s::text[], %(found_kinds)s::text[], %(found_keys)s::text[])
                            as f (tenant, kind, key)
                    where (f.tenant, f.kind, f.key) = (d.tenant, d.kind, d.key))
                returning difference""",  # noqa: S608
            bounds | keys,
        ).fetchall()
        rows = connection.execute(
            """insert into digest_difference as d (tenant, kind, key, difference)
               select * from unnest(%(found_tenants)s::text[], %(found_kinds)s::text[], %(found_keys)s::text[], %(what)s::text[])
               on conflict (tenant, kind, key) do update
                  set difference = excluded.difference,
                      told = case when d.difference = excluded.difference then d.told else 0 end,
                      tell_at = case when d.difference = excluded.difference then d.tell_at else clock_timestamp() end
               returning tenant, kind, key, told, tell_at <= clock_timestamp()""",
            keys | {"what": text_array(one.difference for one in found)},
        ).fetchall()
    state = {EntityKey(*row[:3]): (row[3], row[4]) for row in rows}
    return Recorded(
        tell=[one for one in found if state[one.key][1]],
        curable=sum(state[one.key][0] < OFTEN for one in found),
        repaired=Counter(difference for (difference,) in gone),
    )


def told(connection: Connection, found: Collection[Found], again_seconds: float) -> None:
    """The publisher was told of these: not again before so many seconds, and once a day when that was often."""
    connection.execute(
        """update digest_difference d
              set told = told + 1,
                  tell_at = clock_timestamp() + case when told + 1 < %(often)s then %(again)s * interval '1 second'
                                                     else interval '1 day' end
             from unnest(%(found_tenants)s::text[], %(found_kinds)s::text[], %(found_keys)s::text[]) as f (tenant, kind, key)
            where (f.tenant, f.kind, f.key) = (d.tenant, d.kind, d.key)""",
        _keys([one.key for one in found]) | {"often": OFTEN, "again": again_seconds},
    )


def events(connection: Connection, keys: Sequence[EntityKey]) -> list[tuple[EntityKind, dict[str, Any]]]:
    """The ledger's newest event of each of these entities."""
    return connection.execute(
        """select kind, event from entity
             join unnest(%(found_tenants)s::text[], %(found_kinds)s::text[], %(found_keys)s::text[]) as f (tenant, kind, key)
            using (tenant, kind, key)""",
        _keys(keys),
    ).fetchall()


def stubborn(connection: Connection) -> int:
    """How many differences have been told often and are still there."""
    row = connection.execute("select count(*) from digest_difference where told >= %s", [OFTEN]).fetchone()
    return int(row[0]) if row else 0


def _end_of_slice(connection: Connection, after: Bound, upto: Bound | None) -> Bound | None:
    """The key with which a full slice ends; None when what is left is less."""
    condition, bounds = _within(Slice(after, upto))
    row = connection.execute(
        f"select tenant, kind, key from entity where {condition} order by {_ORDER} offset %(skip)s limit 1",  # noqa: S608
        bounds | {"skip": _SLICE - 1},
    ).fetchone()
    return Bound(*row) if row else None


def _within(part: Slice) -> tuple[str, dict[str, object]]:
    condition = f"({_ORDER}) > (%(after0)s, %(after1)s, %(after2)s)"
    bounds: dict[str, object] = {f"after{number}": text for number, text in enumerate(part.after)}
    if part.upto is not None:
        condition += f" and ({_ORDER}) <= (%(upto0)s, %(upto1)s, %(upto2)s)"
        bounds |= {f"upto{number}": text for number, text in enumerate(part.upto)}
    return condition, bounds


def _listed(page: DigestPage) -> dict[str, object]:
    places = [place.rpartition("/") for place in page.log_ends]
    return {
        "tenants": text_array(entry.tenant for entry in page.entries),
        "kinds": text_array(entry.kind for entry in page.entries),
        "keys": text_array(entry.key for entry in page.entries),
        "versions": text_array(str(entry.version) for entry in page.entries),
        "hashes": text_array(entry.content_hash for entry in page.entries),
        "published": text_array(str(entry.published) for entry in page.entries),
        "complete_to": page.complete_to,
        "topics": text_array(topic for topic, _, _ in places),
        "partitions": text_array(partition for _, _, partition in places),
        "ends": text_array(str(end) for end in page.log_ends.values()),
    }


def _parked(connection: Connection, hashes: Collection[str]) -> set[tuple[int, str]]:
    """Which of these states an older reader has set aside for a newer one: (version, content hash)."""
    if not hashes:
        return set()
    rows = connection.execute(
        """with event as (select convert_from(value, 'UTF8')::jsonb as event from parked)
           select (event ->> 'version')::bigint, event ->> 'content_hash' from event
            where event ->> 'content_hash' = any(%s::text[])""",
        [text_array(hashes)],
    ).fetchall()
    return set(rows)


def _keys(keys: Sequence[EntityKey]) -> dict[str, object]:
    return {
        "found_tenants": text_array(key.tenant for key in keys),
        "found_kinds": text_array(key.kind for key in keys),
        "found_keys": text_array(key.key for key in keys),
    }

"""What a replay does to the ledger. Records: the same as when they came first, and then their seats are opened again. Seats that
the ledger itself named: they are opened again, and nothing is decided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from uuid import UUID

from schemas.keys import EntityKey
from services.consumer.ledger import entities, reopening
from services.consumer.ledger.deciding import decide_persons, lock_persons
from services.consumer.ledger.entities import Arrival, Taken
from services.consumer.ledger.policies import Policies
from services.consumer.ledger.reopening import Standing
from services.consumer.ledger.replay_selection import NamedSeat
from services.consumer.ledger.replays import Judged, Verdict
from services.consumer.nouns import Effect, SeatRef
from services.consumer.provision import taking_up
from services.kit.postgres import Connection, text_array


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a batch did."""

    judged: list[Judged]
    """One for each record or seat, in their order."""
    work: set[SeatRef] = field(default_factory=set)
    """Seats that now have work."""
    effects: Counter[Effect | Literal["none"]] = field(default_factory=Counter)
    """Decisions that were made."""


def replay(connection: Connection, arrivals: Sequence[Arrival], policies: Policies, of: UUID, *, verify: bool) -> Outcome:
    """Carry out one batch within the caller's open transaction.

    1. What the ledger lacks, or has in an older version, is taken as the live stream takes it. The rest is not written again.
    2. The persons are locked, all at once and sorted. From here on only the ledger counts, never the replayed event.
    3. Who changed is decided; then the seats of every record that is the newest of its entity are opened again.
    4. Each record is judged by what the ledger now holds.
    """
    newest = _newest(connection, arrivals)
    unknown = [one for one in arrivals if _relation(one, newest) in ("ahead", "hash_alarm")]
    taken = entities.take(connection, unknown, policies) if unknown else Taken([], set())
    newest |= _newest(connection, unknown)
    current = {one.key for one in arrivals if _relation(one, newest) == "same"}

    lock_persons(connection, sorted(taken.persons | reopening.persons_of(connection, current)))

    effects: Counter[Effect | Literal["none"]] = Counter()
    work = decide_persons(connection, taken.persons, policies, cause="replay", effects=effects)
    work |= reopening.reopen(connection, reopening.seats_of(connection, current), of, verify=verify)
    taking_up.hear(connection, (arrival for arrival, fate in taken.fates if fate == "taken"), policies)

    standings = reopening.standings(connection, current)
    return Outcome([_judged(one, newest, standings) for one in arrivals], work, effects)


def open_seats(connection: Connection, seats: Sequence[NamedSeat], of: UUID, *, verify: bool) -> Outcome:
    """The same for seats, which are what the newest state of their entities made them: under the persons' locks, as above."""
    lock_persons(connection, sorted({seat.person for seat in seats}))
    refs = [seat.ref for seat in seats]
    work = reopening.reopen(connection, refs, of, verify=verify)
    standings = reopening.standings_of_seats(connection, refs)
    judged = [Judged(None, _OF_STANDING[standings[one.ref]], version=one.version, seat=one.ref) for one in seats]
    return Outcome(judged, work)


class _Newest(NamedTuple):
    """The event that the ledger holds of an entity."""

    version: int
    content_hash: str
    offset: int


_Ledger = Mapping[EntityKey, _Newest]


def _newest(connection: Connection, arrivals: Iterable[Arrival]) -> dict[EntityKey, _Newest]:
    wanted = {one.key for one in arrivals}
    if not wanted:
        return {}
    rows = connection.execute(
        """select tenant, kind, key, version, content_hash, "offset" from entity
             join unnest(%s::text[], %s::text[], %s::text[]) as wanted (tenant, kind, key) using (tenant, kind, key)""",
        [text_array(column) for column in zip(*wanted, strict=True)],
    ).fetchall()
    return {EntityKey(tenant, kind, key): _Newest(*rest) for tenant, kind, key, *rest in rows}


def _relation(arrival: Arrival, ledger: _Ledger) -> Literal["ahead", "same", "behind", "hash_alarm"]:
    """Where a record stands to what the ledger holds of its entity."""
    newest = ledger.get(arrival.key)
    if newest is None or newest.version < arrival.event.version:
        return "ahead"
    if newest.version > arrival.event.version:
        return "behind"
    return "same" if newest.content_hash == arrival.event.content_hash else "hash_alarm"


_OF_STANDING: dict[Standing | None, Verdict] = {"open": "reopened", "satisfied": "already_satisfied", None: "no_seat"}


def _judged(arrival: Arrival, ledger: _Ledger, standings: Mapping[EntityKey, Standing]) -> Judged:
    key, version = arrival.key, arrival.event.version
    newest = ledger[key]
    match _relation(arrival, ledger):
        case "same":
            return Judged(arrival.offset, _OF_STANDING[standings.get(key)], None, key, version)
        case "hash_alarm":
            return Judged(arrival.offset, "hash_alarm", None, key, version)
        case "behind" | "ahead":  # a record cannot be ahead of what has just taken it
            return Judged(arrival.offset, "superseded", None, key, version, newest.version, newest.offset)

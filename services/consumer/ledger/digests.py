"""How far the mirror's digests have been compared, and what the publisher is asked for besides."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple
from uuid import UUID

from schemas.digests import DigestEnd, DigestPage
from schemas.returns import RepublishScope, Scope
from services.consumer.ledger.offsets import LogPartition
from services.kit.postgres import Connection, text_array

_WISH_AGAIN_SECONDS = 600
"""A publisher that was away for longer than its topic keeps records has not heard the first one."""


class Reading(NamedTuple):
    """Where the comparison stands in the topic of digests."""

    topic_id: str
    next: int


class Wish(NamedTuple):
    """A republish that the publisher has to be asked for."""

    request: UUID
    message: RepublishScope


@contextmanager
def only_reader(connection: Connection) -> Iterator[bool]:
    """Whether this session is the one that compares; one is enough for all processes. Held until the session ends."""
    row = connection.execute("select pg_try_advisory_lock(hashtextextended('digests', 0))").fetchone()
    mine = bool(row and row[0])
    try:
        yield mine
    finally:
        if mine and not connection.broken:
            connection.execute("select pg_advisory_unlock(hashtextextended('digests', 0))")


# Reading


def reading(connection: Connection) -> Reading | None:
    """None before the first start."""
    row = connection.execute("select topic_id, next from digest_reading").fetchone()
    return Reading(*row) if row else None


def begin_reading(connection: Connection, start: Reading) -> None:
    """Read on from here, in no round: for the first time, or because the topic is not the one that was read."""
    connection.execute(
        """insert into digest_reading (topic_id, next) values (%s, %s)
           on conflict (only_row) do update
              set topic_id = excluded.topic_id, next = excluded.next, round = null, pages = 0, differences = 0""",
        start,
    )


def passed(connection: Connection, ends: Mapping[LogPartition, int]) -> bool:
    """Whether the intake has stored everything below these offsets."""
    row = connection.execute(
        """select not exists (
             select from unnest(%s::text[], %s::int[], %s::bigint[]) as e (topic_id, "partition", "end")
               left join intake_offset o using (topic_id, "partition")
              where e."end" > coalesce(o.next, 0))""",
        [
            text_array(place.topic_id for place in ends),
            text_array(str(place.partition) for place in ends),
            text_array(str(end) for end in ends.values()),
        ],
    ).fetchone()
    return bool(row and row[0])


def page_compared(connection: Connection, page: DigestPage, offset: int, differences: int) -> None:
    """A page at `offset` has been compared. A round whose first page was missed never becomes complete."""
    connection.execute(
        """update digest_reading
              set next = %(next)s,
                  pages = case when %(number)s = 0 then 1 when round = %(round)s and pages = %(number)s then pages + 1 else 0 end,
                  differences = case when %(number)s = 0 then %(differences)s else differences + %(differences)s end,
                  round = %(round)s""",
        {"next": offset + 1, "number": page.number, "round": page.round, "differences": differences},
    )


def round_ended(connection: Connection, end: DigestEnd, offset: int) -> int | None:
    """The round's differences when all of it was compared, else None.

    A round that was wished for because of recovery mode, and left no difference, says so; one that left some is followed by
    another wish.
    """
    with connection.transaction():
        skip(connection, offset)
        row = connection.execute(
            """update digest_reading
                  set compared_at = clock_timestamp(),
                      agreed_for = case when wish = any(%(answers)s::uuid[]) and differences = 0 then wish_for
                                        else agreed_for end,
                      wish = case when wish = any(%(answers)s::uuid[]) then null else wish end,
                      wish_at = case when wish = any(%(answers)s::uuid[]) then clock_timestamp() else wish_at end
                where round = %(round)s and pages = %(pages)s
                returning differences""",
            {
                "round": end.round,
                "pages": end.pages,
                "answers": text_array(str(answer) for answer in end.answers),
            },
        ).fetchone()
    return int(row[0]) if row else None


def skip(connection: Connection, offset: int) -> None:
    """Leave the record at `offset` behind."""
    connection.execute("update digest_reading set next = %s", [offset + 1])


def age_seconds(connection: Connection) -> float | None:
    """Since the last complete round was compared; None before the first."""
    row = connection.execute("select extract(epoch from clock_timestamp() - compared_at)::float from digest_reading").fetchone()
    return row[0] if row else None


# Wishes


def request_republish(connection: Connection, scope: Scope, reason: str) -> None:
    """Have the publisher emit the current state of `scope` again: for a ledger, or a log, that lost what it cannot name.

    Durable with the caller's transaction, and sent by whoever compares digests. A wish that has not been sent yet is enough for
    all who want the same.
    """
    connection.execute(
        """insert into republish_wish (request, scope, reason) values (%s, %s::jsonb, %s)
           on conflict (scope) where not sending do nothing""",
        [uuid.uuid4(), scope.model_dump_json(exclude_none=True), reason],
    )


def take_republish_wishes(connection: Connection) -> list[Wish]:
    """What is to be sent now. Marked first: from here on, whoever wants the same again means something that happened later."""
    rows = connection.execute("update republish_wish set sending = true returning request, scope, reason").fetchall()
    return [
        Wish(request, RepublishScope(request=request, scope=Scope.model_validate(scope), reason=reason))
        for request, scope, reason in rows
    ]


def republish_wish_sent(connection: Connection, request: UUID) -> None:
    """It is in the topic."""
    connection.execute("delete from republish_wish where request = %s", [request])


def round_wish(connection: Connection, again_seconds: float) -> UUID | None:
    """The round of digests to ask for now: recovery mode ends with one that begins after it was entered.

    Due at every call until `round_wish_sent`: whoever takes it may die, or find Kafka away. After a round with differences the
    next wish waits for `again_seconds`, because repairs take a moment.
    """
    row = connection.execute(
        """update digest_reading d
              set wish = case when d.wish is null or d.wish_for is distinct from r.since then gen_random_uuid() else d.wish end,
                  wish_for = r.since, wish_at = '-infinity'
             from recovery r
            where r.active and d.agreed_for is distinct from r.since
              and (d.wish_for is distinct from r.since
                   or d.wish_at < clock_timestamp() - interval '1 second' * case when d.wish is null then %s else %s end)
            returning d.wish""",
        [again_seconds, _WISH_AGAIN_SECONDS],
    ).fetchone()
    return row[0] if row else None


def round_wish_sent(connection: Connection, request: UUID) -> None:
    """It is in the topic: now its answer has time."""
    connection.execute("update digest_reading set wish_at = clock_timestamp() where wish = %s", [request])


def reconciled(connection: Connection) -> bool:
    """Whether a complete round of digests, asked for after recovery mode was entered, left no difference to the mirror."""
    row = connection.execute(
        "select exists (select from recovery join digest_reading on digest_reading.agreed_for = recovery.since)"
    ).fetchone()
    return bool(row and row[0])

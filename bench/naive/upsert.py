"""A bare loop: consume, parse, upsert 500 at a time, store the offset; nothing is decided. Prints events a second."""

from __future__ import annotations

import os
import time

import orjson
from confluent_kafka import Consumer, Message, TopicPartition

from schemas.topics import Topics
from services.kit import postgres
from services.kit.kafka import KafkaSettings

_UPSERT = """
insert into bare as old (key, version, event)
select * from unnest(%s::text[], %s::bigint[], %s::jsonb[])
    on conflict (key) do update set version = excluded.version, event = excluded.event where old.version < excluded.version"""
_OFFSETS = """
insert into bare_offset as old (topic, part, next) select * from unnest(%s::text[], %s::int[], %s::bigint[])
    on conflict (topic, part) do update set next = greatest(old.next, excluded.next)"""


def main() -> None:
    """Read EVENTS records from where the last run ended."""
    events, topic = int(os.environ["EVENTS"]), Topics(os.environ["TOPIC_PREFIX"]).entity("enrollment")
    connection = postgres.connect(os.environ["DATABASE_URL"])
    connection.execute("set search_path = ledger")
    consumer = Consumer(KafkaSettings().reader("bare"))
    known = {(row[0], row[1]): row[2] for row in connection.execute("select topic, part, next from bare_offset")}
    parts = consumer.list_topics(topic).topics[topic].partitions
    consumer.assign([TopicPartition(topic, part, known.get((topic, part), 0)) for part in parts])
    read, counted, started = 0, 0, 0.0
    while read < events:
        batch = [message for message in consumer.consume(500, 0.1) if message.error() is None]
        if not batch:
            continue
        _store(connection, batch)
        read += len(batch)
        if not started:
            started = time.monotonic()  # the first batch waits for the connection
        else:
            counted += len(batch)
    print(counted / (time.monotonic() - started))


def _store(connection: postgres.Connection, batch: list[Message]) -> None:
    newest: dict[str, tuple[int, str]] = {}
    offsets: dict[tuple[str, int], int] = {}
    for message in batch:
        value = message.value() or b""
        event = orjson.loads(value)
        key = "/".join(event[name] for name in ("institution", "term", "section", "person", "role_family"))
        newest[key] = (event["version"], value.decode())
        offsets[message.topic() or "", message.partition() or 0] = (message.offset() or 0) + 1
    array = postgres.text_array
    with connection.transaction():
        ordered = sorted(newest.items())
        values = (
            array(key for key, _ in ordered),
            array(str(found[0]) for _, found in ordered),
            array(found[1] for _, found in ordered),
        )
        connection.execute(_UPSERT, values)
        places = sorted(offsets.items())
        connection.execute(
            _OFFSETS, (array(p[0] for p, _ in places), array(str(p[1]) for p, _ in places), array(str(n) for _, n in places))
        )


if __name__ == "__main__":
    main()

"""What the mirror's tests share: a small SIS dialect with its fold, writers, and a reader of the log."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from pydantic import SecretStr

from schemas import codec
from schemas.events import AnyEvent, EnrollmentEvent, OrderToken
from schemas.keys import EntityKey, EntityKind, RoleFamily, enrollment_key
from schemas.topics import Topics
from services.kit.kafka import KafkaSettings
from services.publisher.changes import Change, MirrorRow
from services.publisher.metrics import Metrics
from services.publisher.mirror.history import History
from services.publisher.mirror.writer import MirrorWriter
from services.publisher.settings import Settings

TENANT = "main"


def fold(kind: EntityKind, key: EntityKey, rows: Sequence[MirrorRow]) -> dict[str, Any]:
    """One row, one membership; no live row, no membership. Deliberately simpler than any dialect's."""
    assert kind == "enrollment"
    institution, term, section, person, family = key.parts
    live = [row for row in rows if not row.deleted]
    return {
        "institution": institution,
        "term": term,
        "section": section,
        "person": person,
        "role_family": family,
        "status": live[-1].columns["STATUS"] if live else "dropped",
        "role": "student" if family == "learner" else "instructor_primary",
        "codes": {"NOTE": live[-1].columns["NOTE"]} if live and "NOTE" in live[-1].columns else {},
    }


def learner(person: str, section: str = "1001") -> EntityKey:
    """A student's membership."""
    return enrollment_key(TENANT, "PSUNV", "2258", section, person, "learner")


def change(
    person: str,
    status: str = "enrolled",
    position: int | None = None,
    *,
    section: str = "1001",
    note: str | None = None,
    deleted: bool = False,
    channel: str = "ib:SIS",
) -> Change:
    """A student's row. Without a position the next one of this process."""
    columns = {"STATUS": status} | ({"NOTE": note} if note is not None else {})
    order = OrderToken(channel=channel, position=next_position() if position is None else position)
    return Change(
        TENANT, "ENRL", {"EMPLID": person, "CLASS_NBR": section}, columns, learner(person, section), order, deleted=deleted
    )


def assignment(seat: str, person: str | None, position: int, *, deleted: bool = False, family: RoleFamily = "staff") -> Change:
    """An instructor's row: its key does not name the person, so another person moves it to another entity."""
    entity = enrollment_key(TENANT, "PSUNV", "2258", "1001", person, family) if person else None
    columns = {"STATUS": "enrolled", "EMPLID": person} if person else {}
    return Change(
        TENANT, "INSTR", {"SEAT": seat}, columns, entity, OrderToken(channel="ib:SIS", position=position), deleted=deleted
    )


_positions = iter(range(1_000, 10**9))


def next_position() -> int:
    """Increases."""
    return next(_positions)


@dataclass
class Bench:
    """Starts writers over one database and one set of topics."""

    database_url: str
    kafka: KafkaSettings
    topics: Topics
    folder: Path

    def settings(self, **changes: Any) -> Settings:
        """Settings with short times."""
        credentials = self.folder / "credentials"
        credentials.write_text("sis:secret\n")
        given: dict[str, Any] = {
            "database_url": SecretStr(self.database_url),
            "topic_prefix": self.topics.prefix,
            "tenant": TENANT,
            "intake_credentials_file": credentials,
        }
        return Settings(**{**given, **changes})

    @asynccontextmanager
    async def writer(self, *, open_it: bool = True, fold_with: Any = fold, **changes: Any) -> AsyncIterator[MirrorWriter]:
        """A started writer, open unless told otherwise, stopped at the end."""
        writer = MirrorWriter(self.settings(**changes), self.kafka, fold_with, Metrics())
        await writer.start()
        try:
            if open_it:
                await asyncio.wait_for(writer.opened(), 30)
            yield writer
        finally:
            await writer.stop()


class LogReader:
    """Everything that the log holds, read from its start each time."""

    def __init__(self, kafka: KafkaSettings, topics: Topics) -> None:
        self._history = History(kafka, topics)
        self._topics = topics

    def events(self) -> list[AnyEvent]:
        """All events, per partition in their order."""
        found = []
        for record in self._history.events({}, self._history.bounds()):
            kind = self._topics.kind(record.place.topic)
            assert kind is not None
            found.append(codec.decode(kind, record.value))
        return found

    def of(self, key: EntityKey) -> list[EnrollmentEvent]:
        """The events of one membership in the order of their versions, repeats left out."""
        mine = {event.version: event for event in self.events() if event.entity_key == key and isinstance(event, EnrollmentEvent)}
        return [mine[version] for version in sorted(mine)]

    def statuses(self, key: EntityKey) -> list[str]:
        """What they say."""
        return [event.status for event in self.of(key)]


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    """Poll until it holds."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.05)


async def run_and_kill(bench: Bench, failpoint: str, person: str = "1", position: int = 7) -> tuple[int | None, str]:
    """Run a mirror in a process of its own that posts one change, until the failpoint kills it: exit code and what it printed."""
    arguments = [bench.database_url, bench.kafka.bootstrap_servers, bench.topics.prefix, str(bench.folder), person, str(position)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.publisher.mirror.crashing_program",
        *arguments,
        env=os.environ | {"FAILPOINT": failpoint},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, output.decode()


def now() -> datetime:
    """With a zone."""
    return datetime.now(UTC)


def empty(bench: Bench) -> None:
    """The operator's fresh database under the old name: not even tables."""
    with psycopg.connect(bench.database_url) as connection:
        connection.execute("drop schema mirror cascade")


def keep_what_was_issued(database_url: str) -> None:
    """From now on the database remembers every committed event, also after its outbox row is gone."""
    with psycopg.connect(database_url) as connection:
        connection.execute(
            """create table issued (kind text, key text, version bigint, value bytea);
               create function keep_issued() returns trigger language plpgsql as $$
                 begin insert into public.issued values (new.kind, new.key, new.version, new.value); return null; end $$;
               create trigger keep after insert on mirror.outbox for each row execute function keep_issued()"""
        )


def assert_no_ghost_and_no_twin(database_url: str, events: Sequence[AnyEvent]) -> None:
    """Every event in the log was committed with exactly these bytes; none was given a version twice."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("select key, version, value from issued").fetchall()
    issued = {(key, version): value for key, version, value in rows}
    assert len(issued) == len(rows), "a version was issued twice"
    for event in events:
        assert issued.get((event.entity_key.key, event.version)) == codec.encode(event), "an event that was never committed"

"""Two transactions at once: whatever the interleaving, the last version is the fold of all rows."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from schemas import codec
from schemas.events import AnyEvent, OrderToken
from schemas.keys import EntityKey, EntityKind, enrollment_key
from schemas.topics import Topics
from services.kit.postgres import identity
from services.publisher.changes import Change, MirrorRow
from services.publisher.mirror import database
from services.publisher.mirror.nouns import Committed, Request
from services.publisher.mirror.store import Store
from services.publisher.mirror.tables import MirrorClosed
from tests.integration.publisher.mirror.bench import assignment, change, fold, learner, now


class SlowFold:
    """The bench's fold, which waits in its first call until it may go on."""

    def __init__(self) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __call__(self, kind: EntityKind, key: EntityKey, rows: Sequence[MirrorRow]) -> dict[str, Any]:
        self.reached.set()
        assert self.go_on.wait(20)
        return fold(kind, key, rows)


class Mirror:
    """A database with a floor, and transactions on it in threads."""

    def __init__(self, url: str) -> None:
        self.url = url
        database.migrate(url)
        with database.connect(url) as connection:
            found = identity(connection)
            connection.execute("insert into mirror (floor, system_id, timeline) values (0, %s, %s)", list(found))
        self._threads = ThreadPoolExecutor(4)

    def transact(self, changes: list[Change], with_fold: Any = fold) -> Future[list[AnyEvent]]:
        """Commit in a thread; the future ends with the events."""

        def run() -> list[AnyEvent]:
            with database.connect(self.url) as connection:
                return _events(Store(with_fold, Topics("t")).transact(connection, [Request(changes, "test", now())]))

        return self._threads.submit(run)

    def overtake(self, first: list[Change], second: list[Change]) -> tuple[list[AnyEvent], list[AnyEvent]]:
        """Let the second begin while the first has read and not committed, and go as far as it gets."""
        slow = SlowFold()
        one = self.transact(first, slow)
        assert slow.reached.wait(20)
        other = self.transact(second)
        while not other.done() and not self._somebody_waits():
            pass
        slow.go_on.set()
        return one.result(20), other.result(20)

    def _somebody_waits(self) -> bool:
        with psycopg.connect(self.url) as connection:
            row = connection.execute(
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            ).fetchone()
        return row is not None and row[0] > 0


def _events(committed: Committed) -> list[AnyEvent]:
    return [codec.decode(row.key.kind, row.value) for row in committed.outbox]


@pytest.fixture
def mirror(database_url: str) -> Mirror:
    """An opened mirror."""
    return Mirror(database_url)


def career(name: str) -> Change:
    """One of several rows of one membership."""
    order = OrderToken(channel="ib:SIS", position=1)
    return Change("main", "ENRL", {"EMPLID": "1", "CAREER": name}, {"STATUS": "enrolled", "NOTE": name}, learner("1"), order)


def test_two_rows_of_one_entity_written_at_once_are_folded_together(mirror: Mirror) -> None:
    mirror.transact([change("2")]).result(20)
    [first], [second] = mirror.overtake([career("GRAD")], [career("UGRD")])
    assert len(first.source_rows) == 1
    assert len(second.source_rows) == 2
    assert second.version > first.version


def test_a_row_that_moves_while_another_change_of_it_waits_is_found_where_it_went(mirror: Mirror) -> None:
    mirror.transact([assignment("1", "A", 1)]).result(20)
    moved, deleted = mirror.overtake([assignment("1", "B", 2)], [assignment("1", None, 3, deleted=True)])
    assert _gist(moved) == {"A": "dropped", "B": "enrolled"}
    assert _gist(deleted) == {"B": "dropped"}


def test_a_row_that_two_transactions_create_under_two_entities_ends_in_one(mirror: Mirror) -> None:
    # Neither sees the other's row, nor locks the other's entity; the second to insert has to find out.
    overtaken, first = mirror.overtake([assignment("1", "B", 2)], [assignment("1", "A", 1)])
    assert _gist(first) == {"A": "enrolled"}
    assert _gist(overtaken) == {"A": "dropped", "B": "enrolled"}
    overtaken, first = mirror.overtake([assignment("2", "B", 1)], [assignment("2", "A", 2)])
    assert (_gist(first), overtaken) == ({"A": "enrolled"}, [])


def test_a_database_without_a_floor_is_refused(mirror: Mirror) -> None:
    with database.connect(mirror.url) as connection:
        connection.execute("delete from mirror")
    with pytest.raises(MirrorClosed):
        mirror.transact([change("1")]).result(20)


def _gist(events: list[AnyEvent]) -> dict[str, str]:
    people = {enrollment_key("main", "PSUNV", "2258", "1001", person, "staff"): person for person in "AB"}
    return {people[event.entity_key]: event.status for event in events}

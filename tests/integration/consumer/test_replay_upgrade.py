"""Replays that were stored before they had scopes and plans are still told, and go on."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from uuid import UUID

from services.consumer.ledger import database, replay_report, replays
from services.consumer.ledger.replay_scopes import Scope
from services.consumer.ledger.replays import Range
from services.kit import postgres

BEFORE = UUID(int=1)


def test_a_replay_of_the_release_before_keeps_its_place_and_its_verdicts(empty_database_url: str, tmp_path: Path) -> None:
    for file in (files("services.consumer.ledger") / "migrations").iterdir():
        if file.name < "0007":
            (tmp_path / file.name).write_text(file.read_text())
    postgres.migrate(empty_database_url, tmp_path, database.SCHEMA)
    with database.connect(empty_database_url) as connection:
        connection.execute(
            """insert into replay (replay, topic, topic_id, "partition", first, last, next, dry_run, verify, state, actor)
               values (%s, 't.enrollment.v1', 'id', 3, 10, 19, 12, false, true, 'running', 'ops')""",
            [BEFORE],
        )
        connection.execute(
            """insert into replay_record (replay, "offset", verdict) values (%(id)s, 11, 'absent'), (%(id)s, 10, 'expired')""",
            {"id": BEFORE},
        )

    database.migrate(empty_database_url)

    with database.connect(empty_database_url) as connection:
        replay = replays.find(connection, BEFORE)
        assert replay is not None
        asked = {"topic": "t.enrollment.v1", "partition": 3, "from": 10, "to": 19}
        assert replay.scope == Scope.model_validate({"offsets": asked})
        assert replay.ranges == (Range("t.enrollment.v1", "id", 3, 10, 19, 12),)
        assert (replay.done, replay.total, replay.verify, replay.dry_run) == (2, 10, True, False)
        lines = replay_report.lines(connection, BEFORE, 0, 10)
        assert [(one.line, one.partition, one.offset, one.verdict) for one in lines] == [
            (1, 3, 10, "expired"),
            (2, 3, 11, "absent"),
        ]
        assert replays.claim(connection, "successor", 15) == replay

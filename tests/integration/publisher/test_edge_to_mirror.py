"""PeopleSoft messages through the mirror's own transaction: what becomes an event, and what must not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from schemas.codec import decode
from schemas.events import AnyEvent, EnrollmentEvent, PersonEvent, SectionEvent
from schemas.topics import Topics
from services.kit.postgres import Connection, identity
from services.publisher.mirror.database import connect, migrate
from services.publisher.mirror.fold import fold, meaning
from services.publisher.mirror.nouns import Request
from services.publisher.mirror.recovery import as_request
from services.publisher.mirror.store import Store
from services.publisher.translate.peoplesoft import translate
from tests.unit.publisher.rowsets import CONTEXT, NOW, class_key, enrollment, instructor, message, record, school_class

Row = dict[str, str]


class Campus:
    """A SIS that posts one message a second to a mirror of its own."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._store = Store(fold, Topics("t"), meaning)
        self._clock = NOW - timedelta(hours=1)
        self._log: list[AnyEvent] = []

    def post(self, *records: str, sent_at: datetime | None = None, operation: str = "ZZ_SYNC.VERSION_1") -> list[AnyEvent]:
        """The events that a message caused, read back from the bytes for Kafka."""
        self._clock += timedelta(seconds=1)
        stamp = (sent_at or self._clock).strftime("%Y-%m-%dT%H:%M:%S.%f%z")
        headers = {"from": "PSFT_CS", "origtimestamp": stamp, "externaloperationname": operation}
        found = translate(message(*records), headers, CONTEXT)
        assert found.rejects == []
        committed = self._store.transact(self._connection, [Request(found.changes, "peoplesoft", NOW)])
        events = [_decoded(row.topic, row.value) for row in committed.outbox]
        self._log += events
        return events

    def lose_everything(self) -> list[AnyEvent]:
        """An empty mirror takes the place of the old one and reads the log in an unlucky order; returns what it emits then."""
        self._connection.execute("truncate source_row, entity, outbox")
        for event in reversed(self._log):
            self._store.transact(self._connection, [as_request([event])], emit=False)
        entities = {event.entity_key for event in self._log}
        committed = self._store.transact(self._connection, [Request((), "recovery", NOW, entities)])
        return [_decoded(row.topic, row.value) for row in committed.outbox]

    def student(self, action: str = "C", **fields: str) -> list[AnyEvent]:
        return self.post(record("STDNT_ENRL", enrollment(**fields), action))

    def taught_by(self, *rows: tuple[Row, str]) -> list[AnyEvent]:
        below = "".join(record("CLASS_INSTR", row, action) for row, action in rows)
        return self.post(record("CLASS_TBL", school_class(), "", below))


def _decoded(topic: str, value: bytes) -> AnyEvent:
    kind = Topics("t").kind(topic)
    assert kind is not None
    return decode(kind, value)


def said(events: list[AnyEvent]) -> list[tuple[Any, ...]]:
    """The gist of events."""
    gist: list[tuple[Any, ...]] = []
    for event in events:
        if isinstance(event, EnrollmentEvent):
            gist.append((event.person, event.status, event.role))
        elif isinstance(event, SectionEvent):
            gist.append((event.section, event.status))
        elif isinstance(event, PersonEvent):
            gist.append((event.person, event.display_name))
    return gist


@pytest.fixture
def campus(database_url: str) -> Iterator[Campus]:
    migrate(database_url)
    with connect(database_url) as connection:
        database = identity(connection)
        connection.execute("insert into mirror (floor, system_id, timeline) values (0, %s, %s)", database)
        yield Campus(connection)


def test_add_withdraw_drop_and_re_add_are_one_event_each(campus: Campus) -> None:
    assert said(campus.student("A", ENRL_ADD_DT="2026-08-20")) == [("0090001", "enrolled", "student")]
    assert said(campus.student(ENRL_STATUS_REASON="WDRW", ENRL_DROP_DT="2026-10-09")) == [("0090001", "withdrawn", "student")]
    assert said(campus.student(STDNT_ENRL_STATUS="D", ENRL_STATUS_REASON="DROP")) == [("0090001", "dropped", "student")]
    assert said(campus.student(ENRL_DROP_DT="")) == [("0090001", "enrolled", "student")]


def test_grading_causes_no_event(campus: Campus) -> None:
    campus.student("A", CRSE_GRADE_OFF="")
    assert campus.student(CRSE_GRADE_OFF="B+", UNT_TAKEN="3.00", GRADING_BASIS_ENRL="GRD") == []


def test_grading_that_fills_a_flag_for_the_first_time_causes_no_event(campus: Campus) -> None:
    campus.student("A")
    assert campus.student(CRSE_GRADE_OFF="B+") == []


def test_a_change_of_career_says_the_same_of_the_student_and_is_in_the_log(campus: Campus) -> None:
    [before] = campus.student("A")
    [after] = campus.post(record("STDNT_ENRL", enrollment(), "K"), record("STDNT_ENRL", enrollment(ACAD_CAREER="GRAD"), "N"))
    assert after.content_hash == before.content_hash
    assert sorted((row.key["ACAD_CAREER"], row.deleted) for row in after.source_rows) == [("GRAD", False), ("UGRD", True)]
    assert said(campus.student("D", ACAD_CAREER="GRAD")) == [("0090001", "dropped", "student")]


def test_purging_an_old_drop_causes_no_event(campus: Campus) -> None:
    campus.student("A")
    campus.student(STDNT_ENRL_STATUS="D", ENRL_STATUS_REASON="DROP")
    assert campus.student("D", STDNT_ENRL_STATUS="D") == []


def test_an_older_message_that_arrives_later_changes_nothing(campus: Campus) -> None:
    campus.student(STDNT_ENRL_STATUS="D", ENRL_STATUS_REASON="DROP")
    assert campus.post(record("STDNT_ENRL", enrollment(), "A"), sent_at=NOW - timedelta(hours=2)) == []


def test_a_full_extract_does_not_undo_a_change_that_it_may_not_have_seen(campus: Campus) -> None:
    campus.student("A")
    campus.student(STDNT_ENRL_STATUS="D", ENRL_STATUS_REASON="DROP")
    before = record("STDNT_ENRL", enrollment(), "")
    soon, later = NOW - timedelta(minutes=55), NOW - timedelta(minutes=40)
    assert campus.post(before, sent_at=soon, operation="ZZ_ENRL_FULLSYNC.VERSION_1") == []
    again = campus.post(before, sent_at=later, operation="ZZ_ENRL_FULLSYNC.VERSION_1")
    assert said(again) == [("0090001", "enrolled", "student")]


def test_a_row_that_comes_back_after_its_deletion_begins_anew(campus: Campus) -> None:
    campus.student("A")
    campus.student(CRSE_GRADE_OFF="W")
    campus.student("D")
    assert said(campus.student("A")) == [("0090001", "enrolled", "student")]


def test_an_instructor_who_is_replaced_in_place_leaves_and_the_new_one_comes(campus: Campus) -> None:
    campus.taught_by((instructor("0080001"), "A"))
    events = said(campus.taught_by((instructor("0080002"), "C")))
    assert sorted(events) == [("0080001", "dropped", "other"), ("0080002", "enrolled", "instructor_primary")]


@pytest.mark.parametrize("action", ["C", "", "D"])
def test_an_instructor_row_that_loses_its_person_removes_that_person(campus: Campus, action: str) -> None:
    campus.taught_by((instructor("0080001"), "A"))
    assert said(campus.taught_by((instructor(" "), action))) == [("0080001", "dropped", "instructor_primary")]


def test_instructors_whose_numbers_are_swapped_both_stay(campus: Campus) -> None:
    one, two = instructor("0080001", sequence="1"), instructor("0080002", sequence="2")
    campus.taught_by((one, "A"), (two, "A"))
    swapped = [(one, "K"), ({**one, "INSTR_ASSIGN_SEQ": "2"}, "N"), (two, "K"), ({**two, "INSTR_ASSIGN_SEQ": "1"}, "N")]
    assert sorted(said(campus.taught_by(*swapped))) == [(f"008000{n}", "enrolled", "instructor_primary") for n in (1, 2)]


def test_a_class_that_gets_another_number_leaves_the_old_one(campus: Campus) -> None:
    campus.post(record("CLASS_TBL", school_class()))
    events = said(campus.post(record("CLASS_TBL", school_class(CLASS_NBR="777"), "C")))
    assert sorted(events) == [("26191", "removed"), ("777", "active")]


def test_a_cancelled_class_is_one_event_of_its_section(campus: Campus) -> None:
    campus.post(record("CLASS_TBL", school_class()))
    campus.student("A")
    assert said(campus.post(record("CLASS_TBL", school_class(CLASS_STAT="X", CANCEL_DT="2026-12-15"), "C"))) == [
        ("26191", "cancelled")
    ]


def test_a_deletion_that_carries_only_keys_finds_its_entity(campus: Campus) -> None:
    campus.taught_by((instructor("0080001"), "A"))
    keys_only = class_key() | {"CLASS_MTG_NBR": "1", "INSTR_ASSIGN_SEQ": "1"}
    assert said(campus.post(record("CLASS_INSTR", keys_only, "D"))) == [("0080001", "dropped", "instructor_primary")]
    assert said(campus.post(record("CLASS_TBL", class_key(), "D"))) == [("26191", "removed")]


def test_a_future_name_renames_nobody_until_its_day(campus: Campus) -> None:
    primary = record("NAMES", {"EMPLID": "0090001", "NAME_TYPE": "PRI", "EFFDT": "2020-01-01", "NAME": "Quist,Juniper"})
    preferred = record("NAMES", {"EMPLID": "0090001", "NAME_TYPE": "PRF", "EFFDT": "2026-11-24", "NAME": "Quist,June"})
    assert said(campus.post(primary)) == [("0090001", "Juniper Quist")]
    assert said(campus.post(preferred)) == [("0090001", "Juniper Quist")]
    assert said(campus.post(primary, sent_at=NOW + timedelta(hours=6))) == [("0090001", "June Quist")]


def test_a_mirror_rebuilt_from_the_log_knows_the_row_of_a_second_career(campus: Campus) -> None:
    campus.student("A")
    campus.student("A", ACAD_CAREER="GRAD")
    campus.lose_everything()
    assert {status for _, status, _ in said(campus.student("D"))} == {"enrolled"}
    assert said(campus.student("D", ACAD_CAREER="GRAD")) == [("0090001", "dropped", "student")]


def test_a_mirror_rebuilt_from_the_log_knows_whose_row_moved(campus: Campus) -> None:
    one, two = instructor("0080001", sequence="1"), instructor("0080002", sequence="2")
    campus.taught_by((one, "A"), (two, "A"))
    campus.taught_by((one, "K"), ({**one, "INSTR_ASSIGN_SEQ": "2"}, "N"), (two, "K"), ({**two, "INSTR_ASSIGN_SEQ": "1"}, "N"))
    campus.lose_everything()
    keys_only = class_key() | {"CLASS_MTG_NBR": "1", "INSTR_ASSIGN_SEQ": "2"}
    assert said(campus.post(record("CLASS_INSTR", keys_only, "D"))) == [("0080001", "dropped", "instructor_primary")]


def test_a_mirror_rebuilt_from_the_log_decides_as_the_old_one_where_only_arrival_could(campus: Campus) -> None:
    moment = NOW - timedelta(minutes=30)
    campus.post(record("STDNT_ENRL", enrollment(), "A"), sent_at=moment)
    campus.post(record("STDNT_ENRL", enrollment(STDNT_ENRL_STATUS="D", ENRL_STATUS_REASON="DROP"), "C"), sent_at=moment)
    assert said(campus.lose_everything()) == [("0090001", "dropped", "student")]


def test_a_mirror_rebuilt_from_the_log_knows_a_name_that_begins_later(campus: Campus) -> None:
    primary = record("NAMES", {"EMPLID": "0090001", "NAME_TYPE": "PRI", "EFFDT": "2020-01-01", "NAME": "Quist,Juniper"})
    campus.post(primary)
    campus.post(record("NAMES", {"EMPLID": "0090001", "NAME_TYPE": "PRF", "EFFDT": "2026-11-24", "NAME": "Quist,Jun"}))
    campus.post(record("NAMES", {"EMPLID": "0090001", "NAME_TYPE": "PRF", "EFFDT": "2026-11-24", "NAME": "Quist,June"}))
    campus.lose_everything()
    assert said(campus.post(primary, sent_at=NOW + timedelta(hours=6))) == [("0090001", "June Quist")]


def test_a_late_insertion_does_not_bring_back_a_row_that_was_deleted_before_it_was_ever_seen(campus: Campus) -> None:
    added_at = NOW - timedelta(minutes=90)
    keys_only = class_key() | {"CLASS_MTG_NBR": "1", "INSTR_ASSIGN_SEQ": "1"}
    assert campus.post(record("CLASS_INSTR", keys_only, "D")) == []
    late = record("CLASS_TBL", school_class(), "", record("CLASS_INSTR", instructor("0080001"), "A"))
    assert "0080001" not in {who for who, *_ in said(campus.post(late, sent_at=added_at))}
    assert ("0080001", "enrolled", "instructor_primary") in said(campus.taught_by((instructor("0080001"), "A")))

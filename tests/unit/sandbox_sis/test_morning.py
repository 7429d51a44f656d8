"""The invented morning holds every hard case that it promises, and its own bookkeeping agrees with its tables."""

from __future__ import annotations

from collections import Counter
from functools import cache

from services.sandbox.sis.messages import Message
from services.sandbox.sis.morning import Morning, plan_morning
from services.sandbox.sis.school import EnrollmentKey
from services.sandbox.sis.truth import AUDITOR, TEACHER, Seat, roster


@cache
def morning() -> Morning:
    return plan_morning()


def test_a_morning_has_about_two_thousand_changes_for_300_students_in_60_sections() -> None:
    assert len(morning().school.students) == 300
    assert len(morning().school.classes) == 60
    assert 1_900 <= morning().changes <= 2_200


def test_the_same_seed_gives_the_same_morning_and_another_seed_another() -> None:
    assert plan_morning(seed=3, students=40, sections=8).messages == plan_morning(seed=3, students=40, sections=8).messages
    assert plan_morning(seed=3, students=40, sections=8).messages != plan_morning(seed=4, students=40, sections=8).messages


def test_playing_the_transitions_gives_the_roster_of_the_tables() -> None:
    active: set[Seat] = set()
    for transition in morning().transitions:
        (active.add if transition.active else active.remove)(transition.seat)
    assert active == roster(morning().school)


def test_every_hard_case_occurs() -> None:
    messages = morning().messages
    notes = Counter(message.note for message in messages)
    records = Counter(row.fields.get("ENRL_STATUS_REASON", row.record) for message in messages for row in message.rows)
    assert notes["late"] == 2
    assert notes["duplicate"] >= 30
    assert notes["no_op"] >= 50
    assert records["EWAT"] >= 30  # promoted from the wait list
    assert records["CANC"] >= 5  # members of the cancelled class
    assert any(row.fields.get("CLASS_STAT") == "X" for message in messages for row in message.rows)
    assert any(row.action == "K" for message in messages for row in message.rows)
    assert any(row.action == "D" for message in messages for row in message.rows)
    assert any(message.envelope for message in messages)
    assert any(seat.role == AUDITOR for seat in roster(morning().school))
    assert morning().late_people
    assert morning().late_sections


def test_messages_of_one_student_arrive_out_of_order_somewhere() -> None:
    newest: dict[str, float] = {}
    overtaken = 0
    for message in morning().messages:
        for emplid in {row.fields.get("EMPLID", "") for row in message.rows if row.record == "STDNT_ENRL"}:
            overtaken += message.note != "duplicate" and message.at < newest.get(emplid, 0.0)
            newest[emplid] = max(message.at, newest.get(emplid, 0.0))
    assert overtaken >= 10


def test_a_late_older_message_changes_nothing_in_the_end() -> None:
    for late in (message for message in morning().messages if message.note == "late"):
        row = late.rows[0]
        later = [other for other in _of(row.fields["EMPLID"], row.fields["CLASS_NBR"]) if other.at > late.at]
        assert later
        assert all(other.post_at < late.post_at for other in later)


def test_a_student_in_two_careers_stays_when_one_row_ends() -> None:
    ended = [row for message in morning().messages for row in message.rows if row.record == "STDNT_ENRL" and row.action in "CD"]
    seats = {(seat.person, seat.section[-5:]) for seat in roster(morning().school)}
    twice = Counter((key.emplid, key.class_nbr) for key in _every_key())
    kept = [row for row in ended if (who := (row.fields["EMPLID"], row.fields["CLASS_NBR"])) in seats and twice[who] == 2]
    assert kept


def test_nobody_is_left_in_the_cancelled_class() -> None:
    cancelled = {each.class_nbr for each in morning().school.classes.values() if each.status == "X"}
    assert len(cancelled) == 1
    assert not [seat for seat in roster(morning().school) if seat.section[-5:] in cancelled]


def test_blank_staff_rows_teach_nobody() -> None:
    assert all(seat.person for seat in roster(morning().school) if seat.role == TEACHER)


def _of(emplid: str, class_nbr: str) -> list[Message]:
    return [
        message
        for message in morning().messages
        if message.note != "duplicate"
        and any(row.fields.get("EMPLID") == emplid and row.fields.get("CLASS_NBR") == class_nbr for row in message.rows)
    ]


def _every_key() -> set[EnrollmentKey]:
    rows = [row.fields for message in morning().messages for row in message.rows if row.record == "STDNT_ENRL"]
    return {EnrollmentKey(row["EMPLID"], row["ACAD_CAREER"], row["CLASS_NBR"]) for row in rows}

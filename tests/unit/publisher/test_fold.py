"""Source rows to states: what the registrar would say about the same rows."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import codec, keys
from schemas.keys import EntityKey
from services.publisher.changes import MirrorRow
from services.publisher.mirror.fold import fold
from services.publisher.translate import records
from services.publisher.translate.canonical import CanonicalContext, Problems
from services.publisher.translate.canonical import translate as translate_canonical
from services.publisher.translate.peoplesoft import Message
from tests.unit.publisher.rowsets import (
    NOW,
    class_key,
    enrollment,
    instructor,
    laid_over,
    mirror_row,
    read,
    record,
    school_class,
)

LEARNER = keys.enrollment_key("main", "NORTH", "2267", "26191", "0090001", "learner")
STAFF = keys.enrollment_key("main", "NORTH", "2267", "26191", "0080007", "staff")
SECTION = keys.section_key("main", "NORTH", "2267", "26191")
COURSE = keys.course_key("main", "NORTH", "009390-1-2267-001")
TERM = keys.term_key("main", "NORTH", "2267")
PERSON = keys.person_key("main", "0090001")


def folded(entity: EntityKey, *messages: Message) -> dict[str, Any]:
    """The state after these messages, as the mirror computes it: by the rows of the entity."""
    changes = [change for message in messages for change in message.changes]
    mine = [change for change in changes if change.entity == entity]
    return fold(entity.kind, entity, laid_over(mine))


def student(career: str = "UGRD", action: str = "C", **fields: str) -> Message:
    return read(record("STDNT_ENRL", enrollment(ACAD_CAREER=career, **fields), action))


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"STDNT_ENRL_STATUS": "E", "ENRL_STATUS_REASON": "ENRL"}, "enrolled"),
        ({"STDNT_ENRL_STATUS": "E", "ENRL_STATUS_REASON": "EWAT"}, "enrolled"),
        ({"STDNT_ENRL_STATUS": "E", "ENRL_STATUS_REASON": "ZZZZ"}, "enrolled"),
        ({"STDNT_ENRL_STATUS": "E", "CRSE_GRADE_OFF": "B+"}, "enrolled"),
        ({"STDNT_ENRL_STATUS": "E", "ENRL_DROP_DT": "2026-10-09"}, "withdrawn"),
        ({"STDNT_ENRL_STATUS": "E", "ENRL_STATUS_REASON": "WDRW"}, "withdrawn"),
        ({"STDNT_ENRL_STATUS": "E", "CRSE_GRADE_OFF": "W"}, "withdrawn"),
        ({"STDNT_ENRL_STATUS": "E", "ENRL_STATUS_REASON": "CANC"}, "cancelled"),
        ({"STDNT_ENRL_STATUS": "W", "ENRL_STATUS_REASON": "WAIT"}, "waitlisted"),
        ({"STDNT_ENRL_STATUS": "W", "ENRL_STATUS_REASON": "ZZZZ"}, "waitlisted"),
        ({"STDNT_ENRL_STATUS": "D", "ENRL_STATUS_REASON": "DROP"}, "dropped"),
        ({"STDNT_ENRL_STATUS": "D", "ENRL_STATUS_REASON": "CANC"}, "cancelled"),
        ({"STDNT_ENRL_STATUS": "D", "ENRL_STATUS_REASON": "WDRW"}, "dropped"),
    ],
)
def test_one_row_has_the_status_that_its_evidence_says(fields: dict[str, str], status: str) -> None:
    assert folded(LEARNER, student(**fields))["status"] == status


def test_a_dropped_wait_lister_is_dropped_and_the_codes_say_more() -> None:
    state = folded(LEARNER, student(STDNT_ENRL_STATUS="D", ENRL_STATUS_REASON="DRWL", ENRL_DROP_DT="2026-12-01"))
    assert state == {
        "institution": "NORTH",
        "term": "2267",
        "section": "26191",
        "person": "0090001",
        "role_family": "learner",
        "status": "dropped",
        "role": "student",
        "effective_date": "2026-12-01",
        "codes": {"STDNT_ENRL_STATUS": "D", "ENRL_STATUS_REASON": "DRWL"},
    }


def test_a_re_add_that_clears_the_drop_date_enrolls_again() -> None:
    drop = student(STDNT_ENRL_STATUS="D", ENRL_STATUS_REASON="DROP", ENRL_DROP_DT="2026-12-01")
    again = student(ENRL_ADD_DT="2026-12-02", ENRL_DROP_DT="")
    state = folded(LEARNER, drop, again)
    assert (state["status"], state["effective_date"]) == ("enrolled", "2026-12-02")


def test_grading_a_whole_class_changes_nothing() -> None:
    before = student(ENRL_ADD_DT="2026-08-20", CRSE_GRADE_OFF="", UNT_TAKEN="3.00")
    graded = student(ENRL_ADD_DT="2026-08-20", CRSE_GRADE_OFF="B+", UNT_TAKEN="3.00", GRADE_DT="2026-12-20")
    assert folded(LEARNER, before, graded) == folded(LEARNER, before)


def test_a_change_of_career_changes_nothing() -> None:
    before = student()
    change = read(record("STDNT_ENRL", enrollment(), "K"), record("STDNT_ENRL", enrollment(ACAD_CAREER="GRAD"), "N"))
    assert folded(LEARNER, before, change) == folded(LEARNER, before)


ROWS = {
    "enrolled": {"STDNT_ENRL_STATUS": "E"},
    "withdrawn": {"STDNT_ENRL_STATUS": "E", "ENRL_STATUS_REASON": "WDRW", "ENRL_DROP_DT": "2026-10-09"},
    "waitlisted": {"STDNT_ENRL_STATUS": "W"},
    "dropped": {"STDNT_ENRL_STATUS": "D", "ENRL_STATUS_REASON": "DROP", "ENRL_DROP_DT": "2026-12-01"},
}


@pytest.mark.parametrize(
    ("stronger", "weaker"),
    [
        ("enrolled", "withdrawn"),
        ("enrolled", "waitlisted"),
        ("enrolled", "dropped"),
        ("withdrawn", "waitlisted"),
        ("waitlisted", "dropped"),
    ],
)
def test_of_two_careers_the_stronger_row_counts(stronger: str, weaker: str) -> None:
    for one, other in permutations(["UGRD", "GRAD"]):
        assert folded(LEARNER, student(one, **ROWS[stronger]), student(other, **ROWS[weaker]))["status"] == stronger


def test_dropping_one_of_two_careers_leaves_the_student_enrolled() -> None:
    both = [student("UGRD"), student("GRAD")]
    assert folded(LEARNER, *both, student("UGRD", **ROWS["dropped"])) == folded(LEARNER, student("GRAD"))


def test_of_two_dropped_careers_the_later_drop_counts() -> None:
    early, late = ROWS["dropped"] | {"ENRL_DROP_DT": "2026-11-01"}, ROWS["dropped"] | {"ENRL_DROP_DT": "2026-12-01"}
    for one, other in permutations([early, late]):
        assert folded(LEARNER, student("UGRD", **one), student("GRAD", **other))["effective_date"] == "2026-12-01"


def test_a_student_for_credit_in_one_career_is_no_auditor_because_of_another() -> None:
    auditor = {"GRADING_BASIS_ENRL": "AUD", "ENRL_ADD_DT": "2026-12-01"}
    assert folded(LEARNER, student(**auditor))["role"] == "auditor"
    assert folded(LEARNER, student("UGRD", **auditor), student("GRAD"))["role"] == "student"


def test_a_deleted_row_is_a_drop_unless_another_career_survives() -> None:
    gone = student("UGRD", action="D")
    assert folded(LEARNER, student("UGRD"), gone)["status"] == "dropped"
    assert folded(LEARNER, student("UGRD"), student("GRAD"), gone) == folded(LEARNER, student("GRAD"))


@pytest.mark.parametrize("reason", ["DROP", "CANC", "DRWL"])
def test_purging_a_row_that_was_dropped_before_changes_nothing(reason: str) -> None:
    dropped = student(STDNT_ENRL_STATUS="D", ENRL_STATUS_REASON=reason, ENRL_DROP_DT="2026-12-01")
    assert folded(LEARNER, dropped, student(action="D")) == folded(LEARNER, dropped)


def test_a_deletion_of_a_row_that_nobody_knew_is_a_drop() -> None:
    assert folded(LEARNER, student(action="D"))["status"] == "dropped"


def teachers(*rows: tuple[dict[str, str], str]) -> Message:
    below = "".join(record("CLASS_INSTR", row, action) for row, action in rows)
    return read(record("CLASS_TBL", school_class(), "", below))


@pytest.mark.parametrize(
    ("code", "role"),
    [("PI", "instructor_primary"), ("SI", "instructor_secondary"), ("TA", "assistant"), ("PRXY", "other"), ("", "other")],
)
def test_instructor_roles(code: str, role: str) -> None:
    state = folded(STAFF, teachers((instructor(role=code), "A")))
    assert (state["status"], state["role"]) == ("enrolled", role)
    assert state["codes"] == ({"INSTR_ROLE": code} if code else {})


def test_an_instructor_of_several_meetings_is_one_with_the_strongest_role() -> None:
    several = teachers(
        (instructor(role="TA"), "A"), (instructor(role="PI", meeting="2"), "A"), (instructor(role="SI", meeting="3"), "A")
    )
    assert folded(STAFF, several)["role"] == "instructor_primary"


def test_an_instructor_stays_as_long_as_one_meeting_is_left() -> None:
    both = teachers((instructor(), "A"), (instructor(meeting="2"), "A"))
    one_gone, all_gone = teachers((instructor(), "D")), teachers((instructor(), "D"), (instructor(meeting="2"), "D"))
    assert folded(STAFF, both, one_gone) == folded(STAFF, both)
    state = folded(STAFF, both, all_gone)
    assert (state["status"], state["role"]) == ("dropped", "instructor_primary")


def test_an_entity_whose_rows_have_all_moved_away_is_gone() -> None:
    assert fold("enrollment", STAFF, [])["status"] == "dropped"
    for entity in (SECTION, COURSE, TERM, PERSON):
        assert fold(entity.kind, entity, [])["status"] == "removed"


@pytest.mark.parametrize(("code", "status"), [("A", "active"), ("S", "closed"), ("T", "tentative"), ("X", "cancelled")])
def test_class_statuses(code: str, status: str) -> None:
    state = folded(SECTION, read(record("CLASS_TBL", school_class(CLASS_STAT=code, SSR_COMPONENT="LEC", CANCEL_DT="2026-12-15"))))
    assert state == {
        "institution": "NORTH",
        "term": "2267",
        "section": "26191",
        "status": status,
        "course": "009390-1-2267-001",
        "session": "001",
        "component": "LEC",
        "effective_date": "2026-12-15" if code == "X" else None,
        "codes": {"CLASS_STAT": code},
    }


def test_a_cancelled_class_says_nothing_about_its_members() -> None:
    members = student()
    cancelled = read(record("CLASS_TBL", school_class(CLASS_STAT="X"), "C"))
    assert folded(LEARNER, members, cancelled) == folded(LEARNER, members)


def test_a_class_number_that_moved_to_another_row_is_described_by_the_row_that_lives() -> None:
    moved = read(record("CLASS_TBL", school_class(), "K"), record("CLASS_TBL", school_class(CLASS_SECTION="002"), "N"))
    state = folded(SECTION, read(record("CLASS_TBL", school_class())), moved)
    assert state["status"] == "active"


def test_a_course_lives_as_long_as_one_of_its_classes() -> None:
    first = record("CLASS_TBL", school_class(SUBJECT="GEOL", CATALOG_NBR=" 3456W"))
    second = record("CLASS_TBL", school_class(CLASS_SECTION="002", CLASS_NBR="26192", SUBJECT="GEOL", CATALOG_NBR=" 3456W"))
    gone = [
        read(record("CLASS_TBL", class_key(CLASS_SECTION=section) | {"INSTITUTION": "NORTH"}, "D")) for section in ("001", "002")
    ]
    state = folded(COURSE, read(first, second), gone[0])
    assert (state["status"], state["subject"], state["catalog_number"]) == ("active", "GEOL", " 3456W")
    assert folded(COURSE, read(first, second), *gone)["status"] == "removed"


def test_a_term_lasts_from_its_first_careers_beginning_to_its_last_careers_end() -> None:
    undergraduate = {"INSTITUTION": "NORTH", "ACAD_CAREER": "UGRD", "STRM": "2267", "TERM_BEGIN_DT": "2026-09-01"}
    graduate = undergraduate | {"ACAD_CAREER": "GRAD", "TERM_BEGIN_DT": "2026-08-25", "TERM_END_DT": "2026-12-11"}
    state = folded(TERM, read(record("TERM_TBL", undergraduate | {"TERM_END_DT": "2026-12-18"}), record("TERM_TBL", graduate)))
    assert (state["start_date"], state["end_date"]) == ("2026-08-25", "2026-12-18")


def name(kind: str, begins: str, display: str, as_of: str = "2026-11-23", status: str = "A") -> MirrorRow:
    return mirror_row(records.NAMES, ("0090001", kind, begins), EFF_STATUS=status, DISPLAY_NAME=display, AS_OF=as_of)


@pytest.mark.parametrize(
    ("names", "display"),
    [
        ([name("PRI", "2020-01-01", "Juniper")], "Juniper"),
        ([name("PRI", "2020-01-01", "Juniper"), name("PRF", "2021-01-01", "June")], "June"),
        ([name("PRI", "2020-01-01", "Juniper"), name("PRF", "2026-11-23", "June")], "June"),
        ([name("PRI", "2020-01-01", "Juniper"), name("PRF", "2026-11-24", "June")], "Juniper"),
        ([name("PRI", "2020-01-01", "Old"), name("PRI", "2025-01-01", "New")], "New"),
        (
            [name("PRI", "2020-01-01", "Juniper"), name("PRF", "2021-01-01", "June"), name("PRF", "2022-01-01", "", status="I")],
            "Juniper",
        ),
        ([name("PRI", "2030-01-01", "Future")], None),
        ([name("PRF", "2027-01-15", "June"), name("PRI", "2020-01-01", "Juniper", as_of="2027-01-15")], "June"),
        ([], None),
    ],
)
def test_the_name_in_force_today_is_displayed(names: list[MirrorRow], display: str | None) -> None:
    rows = [mirror_row(records.PERSON, ("0090001",)), *names]
    assert fold("person", PERSON, rows) == {"person": "0090001", "status": "active", "display_name": display}


def test_a_person_without_the_own_row_is_gone_and_so_is_the_name() -> None:
    rows = [mirror_row(records.PERSON, ("0090001",), deleted=True), name("PRI", "2020-01-01", "Juniper")]
    assert fold("person", PERSON, rows) == {"person": "0090001", "status": "removed", "display_name": None}


CANONICAL: list[dict[str, Any]] = [
    {
        "kind": "enrollment",
        "institution": "N",
        "term": "1",
        "section": "2",
        "person": "3",
        "status": "withdrawn",
        "role": "auditor",
    }
    | {"effective_date": "2026-10-09"},
    {"kind": "person", "person": "3", "display_name": "June"},
    {"kind": "section", "institution": "N", "term": "1", "section": "2", "status": "cancelled", "course": "c"},
    {"kind": "course", "institution": "N", "course": "c", "subject": "GEOL"},
    {"kind": "term", "institution": "N", "term": "1", "start_date": "2026-09-01"},
]


@pytest.mark.parametrize("submission", CANONICAL, ids=lambda submission: str(submission["kind"]))
def test_canonical_rows_fold_into_what_was_submitted(submission: dict[str, Any]) -> None:
    state = canonical_state(submission)
    assert {field: state[field] for field in submission if field != "kind"} == {
        k: v for k, v in submission.items() if k != "kind"
    }


@pytest.mark.parametrize("submission", CANONICAL, ids=lambda submission: str(submission["kind"]))
def test_a_canonical_deletion_ends_the_entity(submission: dict[str, Any]) -> None:
    status = canonical_state(submission, submission | {"deleted": True})["status"]
    assert status == ("dropped" if submission["kind"] == "enrollment" else "removed")


def test_a_person_who_is_kept_under_another_id_is_removed_and_says_which() -> None:
    person = {"kind": "person", "person": "0090001", "display_name": "Clara Wieck", "login": "cwieck"}
    assert canonical_state(person)["login"] == "cwieck"
    merged = canonical_state(person, {"kind": "person", "person": "0090001", "merged_into": "0090002"})
    assert merged == {
        "person": "0090001",
        "status": "removed",
        "display_name": None,
        "merged_into": "0090002",
    }
    back = canonical_state(person, {"kind": "person", "person": "0090001", "merged_into": None})
    assert (back["status"], back.get("merged_into")) == ("active", None)


@pytest.mark.parametrize("name", ["login", "email"])
def test_more_than_a_name_is_taken_only_where_the_operator_says_so(name: str) -> None:
    person = {"kind": "person", "person": "0090001", name: "cwieck"}
    other = frozenset({"login", "email"} - {name})
    refused = translate_canonical(orjson.dumps(person), CanonicalContext("main", "events:test", NOW, other))
    assert isinstance(refused, Problems)
    assert [(item.pointer, "cwieck" in item.detail) for item in refused.items] == [(f"/{name}", False)]
    assert canonical_state(person)[name] == "cwieck"


def canonical_state(*submissions: dict[str, Any]) -> dict[str, Any]:
    found = translate_canonical(
        orjson.dumps(submissions), CanonicalContext("main", "events:test", NOW, frozenset({"login", "email"}))
    )
    changes = found.changes  # type: ignore[union-attr]  # a failing translation fails the test here
    entity = changes[0].entity
    assert entity is not None
    return fold(entity.kind, entity, laid_over(changes))


student_rows = st.builds(
    lambda career, deleted, columns: mirror_row(
        records.STDNT_ENRL, ("0090001", career, "NORTH", "2267", "26191"), deleted=deleted, **columns
    ),
    st.sampled_from(["UGRD", "GRAD", "LAW", "MED"]),
    st.booleans(),
    st.fixed_dictionaries(
        {"STDNT_ENRL_STATUS": st.sampled_from("EDW")},
        optional={
            "ENRL_STATUS_REASON": st.sampled_from(["ENRL", "WDRW", "CANC", "DROP", ""]),
            "ENRL_ADD_DT": st.sampled_from(["2026-08-01", "2026-09-01", ""]),
            "ENRL_DROP_DT": st.sampled_from(["2026-10-01", "2026-11-01", ""]),
            "STATUS_DT": st.sampled_from(["2026-10-01", ""]),
            "WITHDRAWAL_GRADE": st.sampled_from("YN"),
            "AUDITOR": st.sampled_from("YN"),
        },
    ),
)
rows_of_one_student = st.lists(student_rows, min_size=1, max_size=4, unique_by=lambda row: row.key["ACAD_CAREER"])


@settings(deadline=None)
@given(rows_of_one_student)
def test_careers_fold_alike_in_every_order(rows: list[MirrorRow]) -> None:
    first, *others = (fold("enrollment", LEARNER, list(order)) for order in permutations(rows))
    assert all(other == first for other in others)


sections = st.builds(
    lambda section, deleted, columns: mirror_row(
        records.CLASS_TBL, ("009390", "1", "2267", "001", section), deleted=deleted, **columns
    ),
    st.sampled_from(["001", "002", "003"]),
    st.booleans(),
    st.fixed_dictionaries({"CLASS_STAT": st.sampled_from("ASTX"), "SSR_COMPONENT": st.sampled_from(["LEC", "LAB"])}),
)
people = st.builds(
    lambda kind, begins, deleted, columns: mirror_row(records.NAMES, ("0090001", kind, begins), deleted=deleted, **columns),
    st.sampled_from(["PRI", "PRF", "ZZZ"]),
    st.sampled_from(["2020-01-01", "2027-01-01"]),
    st.booleans(),
    st.fixed_dictionaries(
        {"DISPLAY_NAME": st.sampled_from(["June", "Juniper", ""]), "AS_OF": st.sampled_from(["2026-11-23", "2027-06-01"])},
        optional={"EFF_STATUS": st.sampled_from("AI")},
    ),
)


@settings(deadline=None)
@given(st.lists(sections, min_size=1, max_size=3, unique_by=lambda row: row.key["CLASS_SECTION"]))
def test_classes_of_one_number_fold_alike_in_every_order(rows: list[MirrorRow]) -> None:
    first, *others = (fold("section", SECTION, list(order)) for order in permutations(rows))
    assert all(other == first for other in others)


@settings(deadline=None)
@given(st.lists(people, min_size=1, max_size=4, unique_by=lambda row: tuple(row.key.values())))
def test_names_fold_alike_in_every_order(rows: list[MirrorRow]) -> None:
    first, *others = (fold("person", PERSON, list(order)) for order in permutations(rows))
    assert all(other == first for other in others)


@settings(deadline=None)
@given(rows_of_one_student)
def test_every_state_is_an_event_that_may_be_written(rows: list[MirrorRow]) -> None:
    state = fold("enrollment", LEARNER, rows)
    frame = {"tenant": "main", "version": 1, "content_hash": codec.content_hash(state), "accepted_at": NOW}
    codec.encode(codec.build("enrollment", state | frame))


@pytest.mark.parametrize("entity", [SECTION, COURSE, TERM, PERSON, STAFF], ids=lambda entity: str(entity.kind))
def test_every_kind_of_state_is_an_event_that_may_be_written(entity: EntityKey) -> None:
    state = folded(entity, teachers((instructor(), "A")))
    frame = {"tenant": "main", "version": 1, "content_hash": codec.content_hash(state), "accepted_at": NOW}
    codec.encode(codec.build(entity.kind, state | frame))

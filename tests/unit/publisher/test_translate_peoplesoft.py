"""PeopleSoft rows to source rows: actions, keys, codes, allow-lists, order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.publisher.changes import Change
from services.publisher.translate.dialect import Dialect
from tests.unit.publisher.rowsets import CONTEXT, class_key, enrollment, instructor, message, read, record, school_class


def one(*records: str) -> Change:
    found = read(*records)
    assert found.rejects == []
    (change,) = found.changes
    return change


@pytest.mark.parametrize("action", ["A", "C", "N", "", None])
def test_these_actions_carry_the_row_as_it_is_now(action: str | None) -> None:
    change = one(record("STDNT_ENRL", enrollment(), action))
    assert not change.deleted
    assert change.columns["STDNT_ENRL_STATUS"] == "E"


def test_a_deletion_needs_keys_only_and_its_values_do_not_count() -> None:
    keys_only = {name: value for name, value in enrollment().items() if not name.startswith(("STDNT", "ENRL"))}
    for fields in (keys_only, enrollment(STDNT_ENRL_STATUS="?", ENRL_ADD_DT="soon")):
        change = one(record("STDNT_ENRL", fields, "D"))
        assert (change.deleted, change.columns) == (True, {})
        assert change.entity is not None


def test_an_original_is_ignored() -> None:
    assert read(record("STDNT_ENRL", enrollment(), "O")).changes == []


@pytest.mark.parametrize("order", ["KN", "NK"])
def test_a_key_change_deletes_the_old_key_whichever_comes_first(order: str) -> None:
    rows = {"K": record("STDNT_ENRL", enrollment(), "K"), "N": record("STDNT_ENRL", enrollment(ACAD_CAREER="GRAD"), "N")}
    changes = read(*(rows[letter] for letter in order)).changes
    assert {(change.key["ACAD_CAREER"], change.deleted) for change in changes} == {("UGRD", True), ("GRAD", False)}


def test_a_key_change_to_the_same_key_is_an_update() -> None:
    change = one(record("STDNT_ENRL", enrollment(), "K"), record("STDNT_ENRL", enrollment(STDNT_ENRL_STATUS="W"), "N"))
    assert change.columns["STDNT_ENRL_STATUS"] == "W"


def test_two_rows_that_swap_their_keys_both_stay() -> None:
    first, second = enrollment(CLASS_NBR="1"), enrollment(CLASS_NBR="2")
    rows = [("K", first), ("N", second), ("K", second), ("N", first)]
    assert [change.deleted for change in read(*(record("STDNT_ENRL", row, letter) for letter, row in rows)).changes] == [
        False
    ] * 2


def test_an_unknown_action_is_refused_rather_than_guessed() -> None:
    assert [reject.reason for reject in read(record("STDNT_ENRL", enrollment(), "Z")).rejects] == ["unknown_action"]


def test_later_elements_come_later() -> None:
    statuses = ["E", "D", "E", "W"]
    found = read(*(record("STDNT_ENRL", enrollment(STDNT_ENRL_STATUS=status), "C") for status in statuses))
    assert [change.columns["STDNT_ENRL_STATUS"] for change in found.changes] == statuses


@pytest.mark.parametrize("number", ["26191", "26191.00", " 26191 ", "026191", "26191."])
def test_numbers_have_one_spelling(number: str) -> None:
    change = one(record("STDNT_ENRL", enrollment(CLASS_NBR=number)))
    assert change.key["CLASS_NBR"] == "26191"


def test_text_keeps_leading_zeros_and_blanks() -> None:
    change = one(record("STDNT_ENRL", enrollment(EMPLID="0090001  ")))
    assert change.key["EMPLID"] == "0090001"
    _, course = read(record("CLASS_TBL", school_class(CATALOG_NBR=" 101 "))).changes
    assert course.columns["CATALOG_NBR"] == " 101"


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"EMPLID": " "}, "missing_key", "EMPLID"),
        ({"CLASS_NBR": ""}, "missing_key", "CLASS_NBR"),
        ({"CLASS_NBR": "12a"}, "bad_value", "CLASS_NBR"),
        ({"CLASS_NBR": "1.5"}, "bad_value", "CLASS_NBR"),
        ({"EMPLID": "9" * 31}, "bad_value", "EMPLID"),
        ({"EMPLID": "😀" * 30, "ACAD_CAREER": "😀" * 30, "STRM": "😀" * 30}, "bad_value", "key"),
        ({"STDNT_ENRL_STATUS": "Q"}, "unknown_code", "STDNT_ENRL_STATUS"),
        ({"STDNT_ENRL_STATUS": ""}, "unknown_code", "STDNT_ENRL_STATUS"),
        ({"ENRL_DROP_DT": "31.12.2026"}, "bad_value", "ENRL_DROP_DT"),
        ({"ENRL_STATUS_REASON": "x" * 256}, "bad_value", "ENRL_STATUS_REASON"),
    ],
)
def test_a_bad_row_is_one_reject_that_says_where(fields: dict[str, str], reason: str, field: str) -> None:
    good = record("STDNT_ENRL", enrollment(EMPLID="0090002"))
    found = read(good, record("STDNT_ENRL", enrollment(**fields)), good)
    (reject,) = found.rejects
    assert (reject.reason, reject.detail) == (reason, f"Transaction[2]/STDNT_ENRL[1]: {field}")
    assert len(found.changes) == 2


def test_a_row_that_lacks_its_status_is_refused() -> None:
    fields = enrollment()
    del fields["STDNT_ENRL_STATUS"]
    assert [reject.reason for reject in read(record("STDNT_ENRL", fields)).rejects] == ["missing_field"]


def test_unknown_reasons_and_roles_are_no_error() -> None:
    row = record("STDNT_ENRL", enrollment(ENRL_STATUS_REASON="ZZZ"))
    teacher = record("CLASS_TBL", school_class(), "", record("CLASS_INSTR", instructor(role="ZGRD")))
    assert read(row, teacher).rejects == []


def test_a_grade_becomes_a_yes_or_no() -> None:
    for grade, flag in (("W", "Y"), ("WF", "Y"), ("A-", "N"), ("", "N")):
        change = one(record("STDNT_ENRL", enrollment(CRSE_GRADE_OFF=grade, CRSE_GRADE_INPUT="A")))
        assert change.columns["WITHDRAWAL_GRADE"] == flag
        assert "A" not in change.columns.values()


def test_auditors_are_told_by_their_grading_basis() -> None:
    assert one(record("STDNT_ENRL", enrollment(GRADING_BASIS_ENRL="AUD"))).columns["AUDITOR"] == "Y"
    assert one(record("STDNT_ENRL", enrollment(GRADING_BASIS_ENRL="GRD"))).columns["AUDITOR"] == "N"
    assert "AUDITOR" not in one(record("STDNT_ENRL", enrollment())).columns


def test_a_blank_clears_and_an_absent_field_says_nothing() -> None:
    assert one(record("STDNT_ENRL", enrollment(ENRL_DROP_DT=""))).columns["ENRL_DROP_DT"] == ""
    assert "ENRL_DROP_DT" not in one(record("STDNT_ENRL", enrollment())).columns


def test_dummy_dates_and_times_of_day_are_understood() -> None:
    change = one(record("STDNT_ENRL", enrollment(ENRL_DROP_DT="1900-01-01", ENRL_ADD_DT="2026-11-23-00.00.00.000000")))
    assert (change.columns["ENRL_DROP_DT"], change.columns["ENRL_ADD_DT"]) == ("", "2026-11-23")


def test_unknown_records_are_one_reject_each_and_what_is_nested_in_them_is_read() -> None:
    wrapped = record("ZZ_WRAPPER", {"X": "1"}, "", record("STDNT_ENRL", enrollment()))
    found = read(wrapped, wrapped, record("ZZ_OTHER", {"X": "1"}))
    assert [reject.detail for reject in found.rejects] == ["ZZ_WRAPPER: 2 rows", "ZZ_OTHER: 1 rows"]
    assert len(found.changes) == 2


def test_a_name_that_is_no_record_name_is_not_repeated() -> None:
    assert "Mustermann" not in read("<Erika.Mustermann class='R'><A>1</A></Erika.Mustermann>").rejects[0].detail


def test_a_message_wrong_throughout_has_a_bounded_number_of_rejects() -> None:
    found = read(*[record("STDNT_ENRL", enrollment(STDNT_ENRL_STATUS="Q"))] * 700)
    assert len(found.rejects) == 501
    assert found.rejects[-1].detail == "200 further parts"


def test_aliases_of_a_site_are_followed() -> None:
    dialect = Dialect(
        records={"ZZ_ENRL_VW": "STDNT_ENRL"},
        fields={"STDNT_ENRL": {"STUDENT_ID": "EMPLID"}},
        ignored_records=frozenset({"ZZ_NOISE"}),
    )
    fields = enrollment()
    fields["STUDENT_ID"] = fields.pop("EMPLID")
    context = replace(CONTEXT, dialect=dialect)
    found = read(record("ZZ_ENRL_VW", fields), record("ZZ_NOISE", {"X": "1"}), context=context)
    assert found.rejects == []
    assert found.changes[0].key["EMPLID"] == "0090001"


def test_a_class_is_a_section_and_a_course() -> None:
    section, course = read(record("CLASS_TBL", school_class(SUBJECT="GEOL"))).changes
    assert section.entity is not None
    assert course.entity is not None
    assert section.entity.parts == ("NORTH", "2267", "26191")
    assert course.entity.parts == ("NORTH", "009390-1-2267-001")
    assert section.row_key == course.row_key
    assert section.record != course.record


def test_an_unchanged_class_that_only_carries_instructors_may_omit_its_columns() -> None:
    fields = class_key() | {"INSTITUTION": "NORTH", "CLASS_NBR": "26191"}
    found = read(record("CLASS_TBL", fields, "", record("CLASS_INSTR", instructor())))
    assert found.rejects == []
    assert [change.record for change in found.changes] == ["CLASS_INSTR"]


def test_an_instructor_inherits_the_class_that_contains_it() -> None:
    nested = record("CLASS_MTG_PAT", {"CLASS_MTG_NBR": "3"}, "", record("CLASS_INSTR", {**instructor(), "CLASS_MTG_NBR": "3"}))
    *_, change = read(record("CLASS_TBL", school_class(), "", nested)).changes
    assert change.entity is not None
    assert change.entity.parts == ("NORTH", "2267", "26191", "0080007", "staff")
    assert change.row_key == "3/001/009390/1/1/001/2267"


def test_an_instructor_beside_its_class_finds_it_by_key() -> None:
    other = record("CLASS_TBL", school_class(CLASS_SECTION="002", CLASS_NBR="9"), "")
    flat = other + record("CLASS_INSTR", class_key() | instructor()) + record("CLASS_TBL", school_class(), "")
    (change,) = (change for change in read(flat).changes if change.record == "CLASS_INSTR")
    assert change.entity is not None
    assert change.entity.parts[2] == "26191"


def test_an_instructor_beside_two_classes_is_not_guessed_into_one() -> None:
    two = "".join(record("CLASS_TBL", school_class(CLASS_SECTION=f"00{n}", CLASS_NBR=f"{n}"), "") for n in (1, 2))
    found = read(two + record("CLASS_INSTR", instructor()))
    assert [reject.reason for reject in found.rejects] == ["missing_key"]


def test_an_instructor_beside_both_images_of_its_class_finds_it() -> None:
    both = record("CLASS_TBL", school_class(), "C") + record("CLASS_TBL", school_class(), "O")
    assert read(both + record("CLASS_INSTR", class_key() | instructor())).rejects == []


def test_an_instructor_without_a_class_is_refused_but_can_be_deleted() -> None:
    alone = class_key() | instructor()
    assert [reject.reason for reject in read(record("CLASS_INSTR", alone, "A")).rejects] == ["missing_parent"]
    change = one(record("CLASS_INSTR", alone, "D"))
    assert (change.deleted, change.entity) == (True, None)


@pytest.mark.parametrize("action", ["A", "C", "", "D"])
def test_an_instructor_row_without_a_person_removes_whoever_it_named(action: str) -> None:
    *_, change = read(record("CLASS_TBL", school_class(), "", record("CLASS_INSTR", instructor(person=" "), action))).changes
    assert (change.record, change.deleted, change.entity) == ("CLASS_INSTR", True, None)


def test_rows_below_a_deleted_row_are_deleted_too() -> None:
    found = read(record("CLASS_TBL", school_class(), "D", record("CLASS_INSTR", instructor(), "")))
    assert [change.deleted for change in found.changes] == [True, True, True]


def test_rows_below_a_before_image_are_before_images() -> None:
    assert read(record("CLASS_TBL", school_class(), "O", record("CLASS_INSTR", instructor(), ""))).changes == []


def test_a_person_keeps_nothing_but_a_name_to_display() -> None:
    name = {"NAME_TYPE": "PRI", "EFFDT": "2020-01-01", "EFF_STATUS": "A", "NAME": "Quist,June", "NAME_ROYAL_PREFIX": "Dr"}
    person = record("PERSON", {"EMPLID": "0090001", "BIRTHDATE": "2001-02-03"}, "", record("NAMES", name))
    found = read(person)
    assert found.rejects == []
    assert [change.columns for change in found.changes] == [
        {},
        {"EFF_STATUS": "A", "AS_OF": "2026-11-23", "DISPLAY_NAME": "June Quist"},
    ]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"NAME_DISPLAY": "June Q."}, "June Q."),
        ({"FIRST_NAME": "Juniper", "LAST_NAME": "Quist", "PREF_FIRST_NAME": "June"}, "June Quist"),
        ({"FIRST_NAME": "Juniper", "LAST_NAME": "Quist", "NAME": "X,Y"}, "Juniper Quist"),
        ({"NAME": "Quist Jr,Juniper Bo"}, "Juniper Bo Quist Jr"),
        ({"NAME": "Mononym"}, "Mononym"),
        ({"NAME": " "}, ""),
        ({"FIRST_NAME": "a" * 200, "LAST_NAME": "b" * 200}, "a" * 200 + " " + "b" * 54),
    ],
)
def test_the_name_to_display_comes_from_what_there_is(fields: dict[str, str], name: str) -> None:
    key = {"EMPLID": "0090001", "NAME_TYPE": "PRF", "EFFDT": "2020-01-01"}
    assert one(record("NAMES", key | fields)).columns["DISPLAY_NAME"] == name


def test_delivered_records_that_we_do_not_need_are_dropped_without_a_word() -> None:
    assert read(record("EMAIL_ADDRESSES", {"EMPLID": "0090001", "EMAIL_ADDR": "x@example.edu"})) == read()


def test_the_timestamp_is_the_position() -> None:
    order = one(record("STDNT_ENRL", enrollment())).order
    assert (order.channel, order.incarnation, order.position) == ("ib:PSFT_CS", "1", 1795490130000000)
    assert order.as_of_from == order.as_of_to
    assert not order.snapshot


@pytest.mark.parametrize("stamp", ["", "2026-11-23T21:15:30", "2031-01-01T00:00:00.000000+0000", "0001-01-01T00:00:00+1400"])
def test_without_a_usable_time_there_is_no_position(stamp: str) -> None:
    order = read(record("STDNT_ENRL", enrollment()), headers={"origtimestamp": stamp}).changes[0].order
    assert (order.channel, order.position, order.as_of_from) == ("ib:unknown", None, None)


def test_a_full_extract_is_marked_as_a_snapshot() -> None:
    headers = {"externaloperationname": "ZZ_ENRL_FULLSYNC.VERSION_1"}
    assert read(record("STDNT_ENRL", enrollment()), headers=headers).changes[0].order.snapshot


@pytest.mark.parametrize("flag", ["H", "T"])
def test_headers_and_trailers_of_an_extract_carry_nothing(flag: str) -> None:
    marker = f'<STDNT_ENRL class="R"/><PSCAMA class="R"><AUDIT_ACTN/><MSG_SEQ_FLG>{flag}</MSG_SEQ_FLG></PSCAMA>'
    assert read(marker) == read()


def test_a_message_without_rows_says_nothing() -> None:
    found = read()
    assert (found.changes, found.rejects, found.ping) == ([], [], False)
    assert b"Transaction" not in message()

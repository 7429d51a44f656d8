"""Full extracts in CSV: what refuses the whole, what refuses a line, and what a line says."""

from __future__ import annotations

import io
import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from services.publisher.translate.dialect import Dialect
from services.publisher.translate.extract import KINDS, ExtractRefused, Line, Manifest, Site, read

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
STARTED = NOW - timedelta(minutes=2)
HEADER = "EMPLID,ACAD_CAREER,INSTITUTION,STRM,CLASS_NBR,STDNT_ENRL_STATUS,ENRL_STATUS_REASON,ENRL_ADD_DT,ENRL_DROP_DT"
ROW = "0090001,UGRD,NORTH,2267,26191,E,ENRL,2026-11-01,"
CANONICAL = "institution,term,section,person,status,role"


def manifest(kind: str = "STDNT_ENRL") -> Manifest:
    return Manifest("main", "campus", kind, "NORTH", "2267", STARTED, NOW, NOW)


def extract(*lines: str, kind: str = "STDNT_ENRL", dialect: Dialect | None = None) -> list[Line]:
    text = io.StringIO("".join(f"{line}\n" for line in lines), newline="")
    return list(read(text, manifest(kind), Site(ZoneInfo("America/Chicago"), dialect or Dialect())))


def refusal(*lines: str, kind: str = "STDNT_ENRL") -> ExtractRefused:
    with pytest.raises(ExtractRefused) as caught:
        extract(*lines, kind=kind)
    return caught.value


def test_a_line_is_the_row_that_a_message_would_carry() -> None:
    [line] = extract(HEADER, ROW, "TRAILER,1")
    [change] = line.changes
    assert (change.record, change.row_key, change.deleted) == ("STDNT_ENRL", "UGRD/26191/0090001/NORTH/2267", False)
    assert change.columns["STDNT_ENRL_STATUS"] == "E"
    assert change.entity is not None
    assert change.entity.parts == ("NORTH", "2267", "26191", "0090001", "learner")


def test_a_row_may_be_as_old_as_the_late_commit_margin_before_the_extract_began() -> None:
    [line] = extract(HEADER, ROW, "TRAILER,1")
    order = line.changes[0].order
    assert (order.as_of_from, order.as_of_to, order.snapshot) == (STARTED - timedelta(minutes=15), NOW, True)
    assert order.position == STARTED.timestamp() * 1_000_000
    assert order.channel == "snapshot:campus"


def test_a_class_tells_of_its_course_too() -> None:
    columns = KINDS["CLASS_TBL"].required
    cells = {"CRSE_ID": "009390", "CRSE_OFFER_NBR": "1", "SESSION_CODE": "001", "CLASS_SECTION": "001", "CLASS_NBR": "26191"}
    cells |= {"STRM": "2267", "INSTITUTION": "NORTH", "CLASS_STAT": "A"}
    [line] = extract(",".join(columns), ",".join(cells[name] for name in columns), "TRAILER,1", kind="CLASS_TBL")
    assert [change.record for change in line.changes] == ["CLASS_TBL", "CLASS_TBL.COURSE"]


def test_canonical_rows_read_alike() -> None:
    [line] = extract(CANONICAL, "NORTH,2267,26191,0090001,enrolled,student", "TRAILER,1", kind="enrollment")
    [change] = line.changes
    assert (change.record, change.columns["status"], change.key["role_family"]) == ("canonical.enrollment", "enrolled", "learner")
    assert change.order.snapshot


def test_columns_that_nobody_knows_are_ignored_and_never_kept() -> None:
    [line] = extract(HEADER + ",BIRTHDATE", ROW + ",1999-01-01", "TRAILER,1")
    assert "1999-01-01" not in str(line)


def test_a_renamed_id_column_is_named() -> None:
    told = refusal(HEADER.replace("EMPLID", "STUDENT_ID"), ROW, "TRAILER,1")
    assert told.reason == "missing_columns"
    assert told.detail == "without EMPLID; not known: STUDENT_ID: has a column been renamed?"


def test_a_site_may_name_its_columns_in_the_dialect() -> None:
    dialect = Dialect(fields={"STDNT_ENRL": {"STUDENT_ID": "EMPLID"}})
    [line] = extract(HEADER.replace("EMPLID", "STUDENT_ID"), ROW, "TRAILER,1", dialect=dialect)
    assert line.changes[0].key["EMPLID"] == "0090001"


def test_a_missing_header_is_told_without_a_word_of_the_first_row() -> None:
    told = refusal("Ostrey,Mika,0090001,UGRD,NORTH", "TRAILER,1")
    assert told.reason == "no_header"
    assert "Ostrey" not in told.detail


@pytest.mark.parametrize(
    ("reason", "lines"),
    [
        ("empty", []),
        ("empty", [HEADER]),
        ("empty", [HEADER, "TRAILER,0"]),
        ("truncated", [HEADER, ROW, ROW[:20]]),
        ("truncated", [HEADER, ROW]),
        ("count_mismatch", [HEADER, ROW, "TRAILER,2"]),
        ("count_mismatch", [HEADER, ROW, "TRAILER,"]),
        ("malformed_csv", [HEADER, ROW, "TRAILER,1", ROW]),
        ("malformed_csv", [HEADER, '"' + ROW, "TRAILER,1"]),
        ("doubled_columns", [HEADER + ",EMPLID", ROW + ",0090002", "TRAILER,1"]),
        ("other_scope", [HEADER, ROW.replace("2267", "2268"), "TRAILER,1"]),
        ("wrong_encoding", [HEADER, ROW.replace("E", "E\0"), "TRAILER,1"]),
    ],
)
def test_what_refuses_an_extract(reason: str, lines: list[str]) -> None:
    assert refusal(*lines).reason == reason


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_an_extract_in_another_encoding_is_refused(encoding: str) -> None:
    name = "Ærøskøbing"
    file = io.BytesIO(f"{HEADER},CITY\n{ROW},{name}\nTRAILER,1\n".encode(encoding))
    with pytest.raises(ExtractRefused) as caught:
        list(read(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), manifest(), Site(UTC)))
    assert caught.value.reason == "wrong_encoding"


def test_a_row_that_has_no_end_is_refused_before_it_fills_the_memory() -> None:
    lines = itertools.chain([f"{HEADER}\n", '"\n'], itertools.repeat('","\n', 1_000_000))
    with pytest.raises(ExtractRefused) as caught:
        list(read(lines, manifest(), Site(ZoneInfo("America/Chicago"))))
    assert caught.value.reason == "malformed_csv"
    assert sum(1 for _ in lines) > 500_000, "the rest was not read"


def test_lines_within_a_quoted_cell_are_no_rows() -> None:
    lines = [HEADER + ",NOTE", ROW + ',"two\r\nlines"', ROW + ',"\nTRAILER,7\n"', "TRAILER,2"]
    assert [len(line.changes) for line in extract(*lines)] == [1, 1]


def test_a_refusal_names_no_more_columns_than_somebody_reads() -> None:
    columns = [f"COLUMN_{number}" for number in range(1_000)]
    assert len(refusal(",".join(["EMPLID", *columns]), "TRAILER,1").detail) < 2_000
    assert len(refusal(HEADER, ROW, "TRAILER," + "9" * 100_000).detail) < 2_000


def test_a_row_that_cannot_be_used_is_there_all_the_same() -> None:
    bad, good = extract(HEADER, ROW.replace(",E,", ",Q,"), ROW, "TRAILER,2")
    assert bad.reject is not None
    assert (bad.reject.reason, bad.reject.detail) == ("unknown_code", "row 1: STDNT_ENRL_STATUS")
    assert bad.keys == [good.changes[0].row_key]


def test_of_a_role_that_nobody_knows_both_families_are_there() -> None:
    [line] = extract(CANONICAL, "NORTH,2267,26191,0090001,enrolled,shadow", "TRAILER,1", kind="enrollment")
    assert line.reject is not None
    assert line.reject.reason == "unknown_code"
    assert line.keys == ["NORTH/0090001/learner/26191/2267", "NORTH/0090001/staff/26191/2267"]


@pytest.mark.parametrize("row", [ROW.replace("0090001", ""), ROW + ",one cell too many", ROW.replace("26191", "none")])
def test_a_row_without_a_readable_key_may_be_anybody(row: str) -> None:
    line, _ = extract(HEADER, row, ROW, "TRAILER,2")
    assert line.reject is not None
    assert not line.keys

"""Worked examples: a registrar's table, and what it finds."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from schemas import keys
from schemas.events import OrderToken
from services.consumer.__main__ import main
from services.consumer.policy import examples
from services.consumer.policy.examples import COLUMNS, ExamplesError
from services.consumer.policy.model import default_text
from services.publisher.changes import MirrorRow
from services.publisher.mirror.fold import fold

HEAD = ",".join(COLUMNS) + "\n"
WIDE = "step,career,today," + HEAD
ROW = "A,PSUNV,1259,1001,,active,enrolled,student,,none\n"
CENSUS = """
census:
  - {institution: PSUNV, term: "1259", day: 2026-09-15}
  - {institution: PSUNV, term: "1259", session: "8W1", day: 2026-09-04}
"""
BY_CENSUS = default_text().replace("withdrawn: inactive", "withdrawn: {until_census: removal, after_census: inactive}") + CENSUS
TABLE = (
    HEAD
    + """\
Leaves in the first week,PSUNV,1259,1001,001,active,withdrawn,student,2026-09-02,StudentEnrollment deleted
Leaves on the census day,PSUNV,1259,1001,001,active,withdrawn,student,2026-09-15,StudentEnrollment deleted
Leaves a day later,PSUNV,1259,1001,001,active,withdrawn,student,2026-09-16,StudentEnrollment inactive
Leaves a short class after its own census day,PSUNV,1259,2001,8W1,active,withdrawn,student,2026-09-05,StudentEnrollment inactive
"""
)


def run(tmp_path: Path, policy: str, table: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    (tmp_path / "policy.yaml").write_text(policy)
    (tmp_path / "examples.csv").write_text(table)
    code = main(["policy", "test", str(tmp_path / "policy.yaml"), "--examples", str(tmp_path / "examples.csv")])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_the_packaged_policy_does_what_its_examples_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "test"]) == 0
    assert "of 32 examples come out as they say." in capsys.readouterr().out


def test_the_examples_of_a_whole_campus_come_out_as_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    """Census replay, secondary sections, two careers, cross-listed sections, an id merge."""
    files = Path(__file__).parents[3] / "docs" / "examples"

    assert main(["policy", "test", str(files / "registrar.yaml"), "--examples", str(files / "registrar.csv")]) == 0
    assert "16 of 16 examples come out as they say." in capsys.readouterr().out


def test_the_census_day_decides_by_the_change_s_own_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, BY_CENSUS, TABLE, capsys)[0] == 0


def test_an_example_that_comes_out_otherwise_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run(tmp_path, default_text(), TABLE, capsys)

    assert code == 1
    assert "wrong  Leaves in the first week" in said
    assert "the example says: StudentEnrollment deleted in 1001" in said
    assert "the policy gives: StudentEnrollment inactive in 1001" in said
    assert "2 of 4 examples come out as they say." in said


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("who,what\n", "line 1: the columns must be example,institution"),
        (HEAD, "line 2: there is no example"),
        (HEAD + "A,PSUNV,1259,1001,,active,enroled,student,,none\n", "line 2: status: enroled is not one of enrolled"),
        (HEAD + "A,PSUNV,1259,1001,,active,enrolled,student,15.9.2026,none\n", "line 2: date: write it as 2026-09-15"),
        (HEAD + "A,PSUNV,1259,1001,,active,enrolled,student,,StudentEnrollment\n", "line 2: gives: write a role and one of"),
        (HEAD + "A,PSUNV,,1001,,active,enrolled,student,,none\n", "line 2: term is empty"),
        (HEAD + "A,PSUNV\n", "line 2: role is empty"),
        ("colour," + HEAD, "class,status,role,date,gives; there may be step,person"),
        ("step,step," + HEAD, "line 1: the columns must be"),
        (HEAD + ROW + ROW, "line 3: the same class once more: write the career of each, or a later step"),
        (WIDE + "2,UGRD,," + ROW + "2,,," + ROW, "line 3: the same class once more"),
        (WIDE + "2,UGRD,," + ROW + "2,UGRD,," + ROW, "line 3: the same class once more"),
        (WIDE + "first,,," + ROW, "line 2: step: write it as 1, 2"),
        (WIDE + "1,,2026-09-01," + ROW + "2,,," + ROW, "line 3: today: all rows of an example are looked at on one day"),
        (WIDE + "1,,1.9.," + ROW, "line 2: today: write it as 2026-09-15"),
        (HEAD + ROW.strip() + ",x\n", "line 2: there is more in it than there are columns"),
    ],
)
def test_a_table_that_cannot_be_used_says_where_and_why(
    table: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ExamplesError, match=said):
        examples.parse(table)
    code, told = run(tmp_path, default_text(), table, capsys)
    assert (code, said in told) == (2, True)


_AS_ROWS: dict[str, tuple[dict[str, str], str]] = {
    "enrolled": ({"STDNT_ENRL_STATUS": "E"}, "ENRL_ADD_DT"),
    "waitlisted": ({"STDNT_ENRL_STATUS": "W"}, "ENRL_ADD_DT"),
    "withdrawn": ({"STDNT_ENRL_STATUS": "E", "ENRL_STATUS_REASON": "WDRW"}, "ENRL_DROP_DT"),
    "cancelled": ({"STDNT_ENRL_STATUS": "D", "ENRL_STATUS_REASON": "CANC"}, "ENRL_DROP_DT"),
    "dropped": ({"STDNT_ENRL_STATUS": "D"}, "ENRL_DROP_DT"),
}
"""What PeopleSoft's row says of a student, and the column of its date."""


@pytest.mark.parametrize("statuses", list(product(_AS_ROWS, repeat=2)))
def test_two_careers_are_one_membership_as_the_publisher_has_it(statuses: tuple[str, str]) -> None:
    of_careers = list(zip(("UGRD", "GRAD"), statuses, ("2026-09-03", "2026-09-02"), strict=True))
    table = [f"{career},A,PSUNV,1259,1001,,active,{status},student,{day},none\n" for career, status, day in of_careers]
    rows = []
    for career, status, day in of_careers:
        columns, date_column = _AS_ROWS[status]
        rows.append(
            MirrorRow("STDNT_ENRL", {"ACAD_CAREER": career}, columns | {date_column: day}, False, OrderToken(channel="x"))
        )

    [example] = examples.parse("career," + HEAD + "".join(table))
    [shown] = example.steps[0].values()
    folded = fold("enrollment", keys.enrollment_key("main", "PSUNV", "1259", "1001", "9000001", "learner"), rows)

    assert (shown.status, str(shown.effective_date)) == (folded["status"], folded["effective_date"])

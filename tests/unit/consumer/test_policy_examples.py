"""Worked examples: a registrar's table, and what it finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.consumer.__main__ import main
from services.consumer.policy import examples
from services.consumer.policy.examples import COLUMNS, ExamplesError
from services.consumer.policy.model import default_text

HEAD = ",".join(COLUMNS) + "\n"
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
    assert "of 16 examples come out as they say." in capsys.readouterr().out


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
    ],
)
def test_a_table_that_cannot_be_used_says_where_and_why(
    table: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ExamplesError, match=said):
        examples.parse(table)
    code, told = run(tmp_path, default_text(), table, capsys)
    assert (code, said in told) == (2, True)

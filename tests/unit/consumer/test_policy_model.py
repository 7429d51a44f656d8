"""The registrar's file: what is accepted, and what an error tells."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from services.consumer.policy.model import Place, PolicyError, default_text, parse
from tests.policies import making

FALL = Place("PSUNV", "1259", None)


def test_the_packaged_policy_is_valid() -> None:
    policy = parse(default_text())

    assert policy.state("enrolled", None, FALL) == "active"
    assert policy.state("dropped", None, FALL) == "deleted"
    assert policy.state("waitlisted", None, FALL) is None
    assert policy.roles["other"] is None
    auditor, student = policy.roles["auditor"], policy.roles["student"]
    assert auditor is not None
    assert student is not None
    assert (auditor.base, auditor.label) == ("StudentEnrollment", "Auditor")
    assert (student.base, student.label) == ("StudentEnrollment", "StudentEnrollment")


def test_the_drop_action_decides_what_removal_means() -> None:
    policy = parse(default_text().replace("drop_action: deleted", "drop_action: inactive"))

    assert policy.state("dropped", None, FALL) == policy.state("cancelled", None, FALL) == "inactive"


BY_CENSUS = default_text().replace("withdrawn: inactive", "withdrawn: {until_census: removal, after_census: inactive}")
CENSUS = """
census:
  - {institution: PSUNV, term: "1259", day: 2026-09-15}
  - {institution: PSUNV, term: "1259", session: "8W1", day: 2026-09-04}
"""
COMBINED = """
combined:
  - {institution: PSUNV, term: "1259", combined: "0018", sections: ["1", "2"]}
  - {institution: PSUNV, term: "1259", combined: "0019", sections: ["3", "1"]}
"""


@pytest.mark.parametrize(
    ("on", "session", "state"),
    [
        (date(2026, 9, 15), "001", "deleted"),
        (date(2026, 9, 16), "001", "inactive"),
        (date(2026, 9, 16), None, "inactive"),
        (date(2026, 9, 4), "8W1", "deleted"),
        (date(2026, 9, 5), "8W1", "inactive"),
        (None, "001", "deleted"),
    ],
)
def test_a_status_may_depend_on_the_census_day_of_its_part_of_term(on: date | None, session: str | None, state: str) -> None:
    policy = parse(BY_CENSUS + CENSUS)

    assert policy.state("withdrawn", on, Place("PSUNV", "1259", session)) == state


def test_without_a_census_day_a_change_counts_as_one_before_it() -> None:
    policy = parse(BY_CENSUS + CENSUS)

    assert policy.state("withdrawn", date(2027, 1, 1), Place("PSUNV", "1271", "001")) == "deleted"


@pytest.mark.parametrize(
    ("starts", "told"),
    [
        ("tomorrow", "starts: Input should be 'at_once'"),
        ("{on_the_day_in: Mars/Base}", "starts.on_the_day_in: Mars/Base is no time zone of this machine"),
        ("{on_the_day_in: ../../etc/passwd}", "starts.on_the_day_in: ../../etc/passwd is no time zone of this machine"),
        ("{zone: Europe/Vienna}", "starts.on_the_day_in: Field required"),
    ],
)
def test_a_start_is_at_once_or_on_a_day_of_a_known_time_zone(starts: str, told: str) -> None:
    with pytest.raises(PolicyError) as refused:
        parse(default_text().replace("starts: at_once", f"starts: {starts}"))

    assert told in str(refused.value).splitlines()[0]
    assert str(refused.value).startswith("line ")


def test_limits_may_be_turned_off_on_purpose_only() -> None:
    rules, _, _ = default_text().partition("\nguard:")

    assert parse(rules).guard == parse(default_text()).guard, "a policy that was written before there was a guard has one"
    assert not parse(rules + "\nguard: none\n").guard.term.day.reached(1_000_000, 1)


def test_differences_are_repaired_at_once_listed_only_or_removed_after_days() -> None:
    rules = parse(default_text().replace("extra_manual: report ", "extra_manual: {remove_after_days: 14} ")).drift

    assert rules.repairs("missing", timedelta(0))
    assert not rules.repairs("extra_sis", timedelta(days=300))
    assert not rules.repairs("unknown_user", timedelta(days=300))
    assert not rules.repairs("extra_manual", timedelta(days=13, hours=23))
    assert rules.repairs("extra_manual", timedelta(days=14))
    assert (rules.removed_after("extra_manual"), rules.removed_after("extra_sis")) == (timedelta(days=14), None)


def test_a_difference_of_any_kind_that_is_somebodys_may_be_adopted_for_days() -> None:
    text = default_text().replace("wrong_state: repair", "wrong_state: {adopt_for_days: 730}")
    rules = parse(text.replace("extra_manual: report ", "extra_manual: {adopt_for_days: 1} ")).drift

    assert (rules.adopted_for("wrong_state"), rules.adopted_for("extra_manual")) == (timedelta(days=730), timedelta(days=1))
    assert (rules.adopted_for("missing"), rules.adopted_for("unknown_user")) == (None, None)
    assert not rules.repairs("wrong_state", timedelta(days=900))
    assert not rules.repairs("extra_manual", timedelta(days=900))
    assert rules.removed_after("extra_manual") is None


@pytest.mark.parametrize(
    ("template", "lms_user", "person"),
    [
        ("{person}", "0009001", "0009001"),
        ("{tenant}-{person}", "main-p-1", "p-1"),
        ("{tenant}-{person}", "other-p-1", None),
        ("emp.{person}", "empx12", None),
        ("{person:0>7}", "0009001", "9001"),
        ("{person:0>7}", "0000000", None),
        ("{person:0>7}", "9001", None),
        ("{person}/{person}", "1/1", None),
    ],
)
def test_a_persons_id_is_read_back_from_the_lms_or_not_at_all(template: str, lms_user: str, person: str | None) -> None:
    policy = parse(default_text().replace('user: "{person}"', f'user: "{template}"'))

    assert policy.sis_ids.person_of("main", lms_user) == person


@pytest.mark.parametrize(
    ("rule", "now", "reused"),
    [
        ("{same_course_parts: 1}", "009390-2-1259-8W1", False),
        ("{same_course_parts: 2}", "009390-2-1259-8W1", True),
        ("{same_course_parts: 1}", "009391-1-1259-001", True),
        ("{same_course_parts: 9}", "009390-1-1259-001", False),
        ("follow", "009391-1-1259-001", False),
    ],
)
def test_a_re_used_number_is_told_by_the_beginning_of_the_course_ids(rule: str, now: str, reused: bool) -> None:
    policy = parse(default_text().replace("{same_course_parts: 1}", rule))

    assert policy.is_reuse("009390-1-1259-001", now) == reused


def test_nothing_is_made_in_the_lms_unless_the_policy_says_so() -> None:
    before_there_was_any, _, _ = default_text().partition("\nprovision:")

    assert parse(default_text()).provision.kinds == parse(before_there_was_any).provision.kinds == frozenset()
    assert parse(making("courses", "people")).provision.kinds == {"course", "person"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (making(terms="{name: Fall}"), "provision.terms.name: must contain {term}, otherwise all of them would share one id"),
        (making(terms="{dates_in: Mars/Base}"), "provision.terms.dates_in: Mars/Base is no time zone of this machine"),
        (making(courses="{name: '{room}'}"), "provision.courses.name: unknown field {room}"),
        (making(courses="{code: '{section}'}"), "provision.courses: a course of several sections cannot be called after one"),
        (making(people="{login: student}"), "provision.people.login: must contain {person}"),
        (making(people="{when_removed: delete}"), "provision.people.when_removed: Input should be 'keep' or 'suspend'"),
        (making("sections").replace("\n  course: ", "\n  # course: "), "provision: courses and sections need sis_ids.course"),
        (making("terms").replace("\n  term: ", "\n  # term: "), "provision: terms need sis_ids.term"),
    ],
)
def test_what_is_made_is_called_by_a_rule_that_keeps_things_apart(text: str, told: str) -> None:
    with pytest.raises(PolicyError) as refused:
        parse(text)

    assert told in str(refused.value)


def test_a_section_may_have_a_course_of_its_own() -> None:
    shells = making(courses="{name: '{subject} {section}'}").replace("{institution}-{course}", "{term}-{section}-course")

    assert parse(shells).sis_ids.course == "{term}-{section}-course"


def test_section_numbers_may_be_padded() -> None:
    policy = parse(default_text().replace("{section}", "{section:0>5}", 2).replace("{term}-{section}", "{term}-{section:0>5}"))

    assert policy.sis_ids.section.format(institution="PSUNV", term="1259", section="71") == "PSUNV-1259-00071"


@pytest.mark.parametrize(
    ("wrong", "line", "reason"),
    [
        (('user: "{person}"', 'user: "{persn}"'), 'user: "{persn}"', "unknown field {persn}; known are tenant, person"),
        (('user: "{person}"', 'user: "{person!r}"'), 'user: "{person!r}"', "may only be padded"),
        (('user: "{person}"', 'user: "{person:.3}"'), 'user: "{person:.3}"', "may only be padded"),
        (('user: "{person}"', 'user: "{person.x}"'), 'user: "{person.x}"', "unknown field"),
        (('user: "{person}"', 'user: "{person"'), 'user: "{person"', "unbalanced braces"),
        (('user: "{person}"', 'user: "all"'), 'user: "all"', "must contain {person}"),
        (("withdrawn: inactive", "withdrawn: gone"), "withdrawn: gone", "Input should be"),
        (("  dropped:", "  droped:"), "droped:", "Input should be"),
        (("  completed: completed\n", ""), "statuses:\n", "lacks completed; write none"),
        (("  assistant: TaEnrollment\n", ""), "roles:\n", "lacks assistant"),
        (("base: StudentEnrollment,", "base: Student,"), "base: Student,", "Input should be"),
        (("withdrawn: inactive", "withdrawn: {until_census: removal}"), "withdrawn: {until_census: removal}", "Field required"),
        (("withdrawn: inactive", "withdrawn: {until_census: gone, after_census: none}"), "census: gone", "Input should be"),
        (("\nguard:", CENSUS + CENSUS.split("census:")[1] + "\nguard:"), "census:\n  - {inst", "two days for PSUNV, 1259"),
        (("left_behind: deleted", "left_behind: gone"), "left_behind: gone", "Input should be 'by_status' or 'deleted'"),
        (("same_course_parts: 1", "same_course_parts: 0"), "same_course_parts: 0", "greater than or equal to 1"),
        (("reused_numbers: {same", "reused_numbers: hold #"), "reused_numbers: hold", "Input should be 'follow'"),
        (("[DIS, LAB]", "[]"), "components: []", "at least 1 item"),
        (("follow: [withdrawn]", "follow: [enrolled]"), "follow: [enrolled]", "Input should be 'withdrawn', "),
        (("\nguard:", COMBINED + "\nguard:"), "combined:\n  - {inst", "has section PSUNV, 1259, 1 twice"),
        (("\nguard:", COMBINED.replace('"2"', "2") + "\nguard:"), 'sections: ["1", 2]', "should be a valid string"),
        (("extra_manual: report", "extra_manual: {days: 3}"), "extra_manual: {days", "Field required"),
        (
            ("extra_manual: report", "extra_manual: {adopt_for_days: 0}"),
            "extra_manual: {adopt",
            "drift.extra_manual.adopt_for_days",
        ),
        (("extra_sis: report", "extra_sis: {adopt_for_days: 731}"), "extra_sis: {adopt", "less than or equal to 730"),
        (("extra_sis: report", "extra_sis: {adopt_for_days: 9, remove_after_days: 9}"), "extra_sis: {adopt", "Extra inputs"),
        (("missing: repair", "missing: {remove_after_days: 3}"), "missing: {remove", "Field required"),
        (("wrong_role: repair", "wrong_role: adopt"), "wrong_role: adopt", "Input should be 'report' or 'repair'"),
        (("missing: repair", "missing: remove"), "missing: remove", "Input should be"),
        (("most_repairs: 500", "most_repairs: -1"), "most_repairs: -1", "greater than or equal to 0"),
        (("{most: 500}", "{most: -1}"), "{most: -1}", "greater than or equal to 0"),
        (("\ndrop_action: deleted", "\nx: 1\ndrop_action: deleted"), "x: 1\n", "Extra inputs are not permitted"),
        (("\ndrop_action:", "\nsis_ids: {}\ndrop_action:"), "sis_ids: {}", "written twice"),
        (("\ndrop_action: deleted", "\n? [a]\n: b\ndrop_action: deleted"), "? [a]", "unhashable"),
    ],
)
def test_an_error_names_line_and_reason(wrong: tuple[str, str], line: str, reason: str) -> None:
    assert wrong[0] in default_text()
    text = default_text().replace(*wrong)
    number = text[: text.index(line)].count("\n") + 1

    with pytest.raises(PolicyError) as caught:
        parse(text)

    first = str(caught.value).splitlines()[0]
    assert reason in first
    assert first.startswith((f"line {number}:", f"line {number - 1}:"))


@pytest.mark.parametrize("levels", [1, 9])
def test_nothing_stands_for_something_else(levels: int) -> None:
    """Nine lines of this kind would be gigabytes."""
    lines = ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, levels))]

    with pytest.raises(PolicyError, match=r"^line 1: write it out"):
        parse("\n".join(lines))


@pytest.mark.parametrize("text", ["census: [{day: 2026-09-31}]", "a: " + "[" * 5000, "a: !!int ''"])
def test_what_cannot_be_read_is_refused_like_anything_else(text: str) -> None:
    with pytest.raises(PolicyError, match=r"^line \d+: "):
        parse(text)


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "just words", "\x00"])
def test_what_is_no_policy_at_all_is_refused(text: str) -> None:
    with pytest.raises(PolicyError, match=r"^line \d+: "):
        parse(text)

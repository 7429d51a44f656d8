"""What an object should be, from what the SIS has told and the policy."""

from __future__ import annotations

from typing import Any

import pytest

from schemas import keys
from schemas.keys import EntityKey
from services.consumer.policy import model
from services.consumer.policy.model import Policy
from services.consumer.provision.wanting import (
    Circle,
    Moved,
    Subject,
    Told,
    Untold,
    Unwanted,
    Wish,
    named_after,
    parent,
    speaker,
    want,
)
from services.consumer.targets.objects import WantedObject
from tests.policies import making

KEY = keys.section_key("main", "PSUNV", "1259", "1001").key
TERM = Subject("term", "PSUNV-1259", "main", "PSUNV/1259", KEY)
COURSE = Subject("course", "PSUNV-MUS201", "main", "PSUNV/MUS201", KEY)
SECTION = Subject("section", "PSUNV-1259-1001", "main", KEY, KEY)
PERSON = Subject("person", "0009001", "main", "0009001", None)
ALL = ("terms", "courses", "sections", "people")
SUBJECTS = {"terms": TERM, "courses": COURSE, "sections": SECTION, "people": PERSON}


def policy(*kinds: str, **rules: str) -> Policy:
    return model.parse(making(*(kinds or ALL), **rules))


def told(**changes: dict[str, Any] | None) -> Told:
    """Everything, but for these."""
    events: dict[str, dict[str, Any] | None] = {
        "term": {
            "institution": "PSUNV",
            "term": "1259",
            "status": "active",
            "start_date": "2026-08-24",
            "end_date": "2026-12-18",
        },
        "course": {"institution": "PSUNV", "course": "MUS201", "status": "active", "subject": "MUS", "catalog_number": " 201"},
        "section": {"institution": "PSUNV", "term": "1259", "section": "1001", "status": "active", "course": "MUS201"},
        "person": {"person": "0009001", "status": "active", "display_name": "Clara  Wieck "},
    }
    given = events | changes
    return Told(given["term"], given["course"], given["section"], given["person"])


def of(kind: str, **more: Any) -> dict[str, Any]:
    """The event of a kind with something changed."""
    event = getattr(told(), kind)
    assert event is not None
    return {**event, **more}


def wish(subject: Subject, given: Told, rules: Policy) -> WantedObject:
    found = want(subject, given, rules)
    assert isinstance(found, Wish)
    return found.wanted


def test_each_is_called_as_the_policy_says_and_lies_in_its_parent() -> None:
    rules = policy()
    assert wish(TERM, told(), rules) == WantedObject("term", "PSUNV-1259", {"name": "1259"})
    assert wish(COURSE, told(), rules) == WantedObject(
        "course", "PSUNV-MUS201", {"name": "MUS 201", "code": "MUS 201"}, inside="PSUNV-1259"
    )
    assert wish(SECTION, told(), rules) == WantedObject("section", "PSUNV-1259-1001", {"name": "MUS 201 1001"}, "PSUNV-MUS201")
    assert wish(PERSON, told(), rules).values == {"name": "Clara Wieck", "login": "0009001", "state": "active"}


@pytest.mark.parametrize("kind", ALL)
def test_what_is_off_is_not_wanted(kind: str) -> None:
    others = policy(*(other for other in ALL if other != kind))
    assert want(SUBJECTS[kind], told(), others) == Unwanted("off")


def test_a_term_begins_and_ends_at_midnight_of_its_campus() -> None:
    """In summer and in winter time."""
    values = wish(TERM, told(), policy(terms="{dates_in: America/New_York}")).values
    assert (values["starts"], values["ends"]) == ("2026-08-24T04:00:00Z", "2026-12-19T04:59:59Z")


@pytest.mark.parametrize(
    ("subject", "given", "lacks"),
    [
        (SECTION, told(section=None), EntityKey("main", "section", KEY)),
        (COURSE, told(section=None), EntityKey("main", "section", KEY)),
        (SECTION, told(section=of("section", course=None)), EntityKey("main", "section", KEY)),
        (SECTION, told(course=None), EntityKey("main", "course", "PSUNV/MUS201")),
        (COURSE, told(course=None), EntityKey("main", "course", "PSUNV/MUS201")),
        (PERSON, told(person=None), EntityKey("main", "person", "0009001")),
    ],
)
def test_what_is_not_told_is_named(subject: Subject, given: Told, lacks: EntityKey) -> None:
    assert want(subject, given, policy()) == Untold(lacks)


def test_only_what_a_name_is_made_of_has_to_be_told() -> None:
    plain = policy("people", terms="{}", courses="{name: 'Course {course}', code: '{course}'}", sections="{name: '{section}'}")
    nothing_more = told(course=None, term=None)
    assert wish(COURSE, nothing_more, plain).values == {"name": "Course MUS201", "code": "MUS201"}
    assert wish(SECTION, nothing_more, plain).values == {"name": "1001"}
    assert wish(TERM, nothing_more, plain).values == {"name": "1259"}
    assert want(TERM, nothing_more, policy(terms="{dates_in: America/New_York}")) == Untold(
        EntityKey("main", "term", "PSUNV/1259")
    )


def test_a_name_of_which_nothing_is_known_is_the_id() -> None:
    nameless = told(course=of("course", subject=None, catalog_number=None))
    assert wish(COURSE, nameless, policy()).values["name"] == "PSUNV-MUS201"
    assert wish(PERSON, told(person=of("person", display_name=None)), policy()).values["name"] == "0009001"


@pytest.mark.parametrize(
    ("subject", "given", "why"),
    [
        (SECTION, told(section=of("section", status="cancelled")), "cancelled"),
        (SECTION, told(section=of("section", status="removed")), "removed"),
        (SECTION, told(course=of("course", status="removed")), "removed"),
        (TERM, told(term=of("term", status="removed")), "removed"),
        (PERSON, told(person=of("person", status="removed")), "removed"),
    ],
)
def test_what_the_sis_has_taken_back_is_not_made(subject: Subject, given: Told, why: str) -> None:
    assert want(subject, given, policy()) == Unwanted(why)  # type: ignore[arg-type]


@pytest.mark.parametrize("status", ["cancelled", "removed"])
def test_a_course_outlives_the_class_it_was_wanted_for_and_is_not_made_for_it(status: str) -> None:
    assert want(COURSE, told(section=of("section", status=status)), policy()) == Wish(
        WantedObject("course", "PSUNV-MUS201", {"name": "MUS 201", "code": "MUS 201"}, inside="PSUNV-1259"),
        unmade=Unwanted(status),  # type: ignore[arg-type]
    )


def test_a_course_is_called_after_itself_wherever_the_class_it_was_wanted_for_has_moved() -> None:
    moved = of("section", course="ART101")
    assert named_after(COURSE, moved) == EntityKey("main", "course", "PSUNV/MUS201")
    assert named_after(SECTION, moved) == EntityKey("main", "course", "PSUNV/ART101")
    by_course = policy(courses="{name: '{course}', code: '{course}'}")
    assert wish(COURSE, told(section=moved), by_course).values == {"name": "MUS201", "code": "MUS201"}


@pytest.mark.parametrize(
    ("told", "patient", "speaks"),
    [
        ({"A": "active", "B": "active"}, True, "A"),
        ({"A": "cancelled", "B": "active"}, True, "B"),
        ({"B": "active"}, True, "A"),
        ({"B": "active"}, False, "B"),
        ({"B": "cancelled"}, False, "A"),
        ({"A": "removed", "B": "cancelled"}, False, "A"),
        ({}, False, "A"),
    ],
)
def test_the_first_class_that_takes_place_speaks_for_those_that_share_a_section(
    told: dict[str, str], patient: bool, speaks: str
) -> None:
    events = {key: {"status": status} for key, status in told.items()}
    assert speaker(["A", "B"], events, patient=patient) == speaks


def test_a_removed_person_is_suspended_where_the_policy_says_so_and_never_made() -> None:
    found = want(PERSON, told(person=of("person", status="removed")), policy(people="{when_removed: suspend}"))
    assert found == Wish(WantedObject("person", "0009001", {"state": "suspended"}), unmade=Unwanted("removed"))


def test_a_login_is_the_sis_own_word_where_the_policy_asks_for_it() -> None:
    rules = policy(people="{login: '{login}@example.edu'}")
    found = want(PERSON, told(person=of("person", login="cwieck")), rules)
    assert isinstance(found, Wish)
    assert (found.wanted.values["login"], "login" in found.told) == ("cwieck@example.edu", True)
    assert want(PERSON, told(), rules) == Untold(EntityKey("main", "person", "0009001"))
    ours = want(PERSON, told(person=of("person", login="cwieck")), policy())
    assert isinstance(ours, Wish)
    assert (ours.wanted.values["login"], "login" in ours.told) == ("0009001", False)


def test_an_address_is_said_only_where_the_policy_has_one() -> None:
    assert "email" not in wish(PERSON, told(), policy()).values
    assert wish(PERSON, told(), policy(people="{email: '{person}@example.edu'}")).values["email"] == "0009001@example.edu"
    rules = policy(people="{email: '{email}'}")
    found = want(PERSON, told(person=of("person", email="clara@example.edu")), rules)
    assert isinstance(found, Wish)
    assert found.wanted.values["email"] == "clara@example.edu"
    assert sorted(found.told) == ["email", "name"]
    assert want(PERSON, told(), rules) == Untold(EntityKey("main", "person", "0009001"))


def test_whom_the_sis_keeps_under_another_id_moves_there_and_is_not_suspended() -> None:
    merged = told(person=of("person", status="removed", merged_into="0009002"))._replace(heir="0009002")
    heir = Subject("person", "0009002", "main", "0009002", None)
    assert want(PERSON, merged, policy(people="{when_removed: suspend}")) == Moved(WantedObject("person", "0009001", {}), heir)
    assert want(PERSON, merged, policy("terms")) == Moved(WantedObject("person", "0009001", {}), heir, ours=False)
    assert want(PERSON, merged._replace(heir=None), policy()) == Circle(EntityKey("main", "person", "0009002"))


def test_a_section_with_a_course_of_its_own_needs_no_course_of_the_sis() -> None:
    shells = model.parse(
        making(
            "terms", "people", courses="{name: '{term} {section}', code: '{section}'}", sections="{name: '{section}'}"
        ).replace('"{institution}-{course}"', '"{term}-{section}-c"')
    )
    untold = told(section=of("section", course=None), course=None)
    section = wish(SECTION, untold, shells)
    assert section.inside == "1259-1001-c"
    course = parent(SECTION, "course", "1259-1001-c", untold)
    assert wish(course, untold, shells).values == {"name": "1259 1001", "code": "1001"}


def test_the_parent_of_a_section_is_its_course_and_that_of_a_course_its_term() -> None:
    assert parent(SECTION, "course", "PSUNV-MUS201", told()) == COURSE
    assert parent(COURSE, "term", "PSUNV-1259", told()) == TERM

"""How ids in paths and parameters are read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.sandbox.canvas.addressing import Address, find_account, find_section, find_term, find_user, parse
from services.sandbox.canvas.clock import Clock
from services.sandbox.canvas.parameters import moment
from services.sandbox.canvas.world import World


def hexed(form: str, value: str) -> str:
    return f"hex:{form}:{value.encode().hex()}"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("17", Address("id", "17")),
        (" 17 ", Address("id", "17")),
        ("sis_user_id:17", Address("sis_user_id", "17")),
        ("sis_user_id: A:b ", Address("sis_user_id", "A:b")),
        ("self", Address("word", "self")),
        ("hex:sis_user_id:4a", Address("sis_user_id", "J")),
        ("hex:sis_user_id:4A", Address("sis_user_id", "J")),
        ("hex:sis_user_id:4", None),
        ("hex:sis_user_id:4g", None),
        ("hex:sis_user_id:4a 4b", None),
        ("hex:sis_user_id:", None),
        ("hex:4a", None),
        ("hex_sis_user_id:4a", Address("hex_sis_user_id", "4a")),
    ],
)
def test_an_id_is_taken_apart(text: str, address: Address | None) -> None:
    assert parse(text) == address


@given(st.text(min_size=1))
def test_the_hex_form_carries_any_text(value: str) -> None:
    assert parse(hexed("sis_section_id", value)) == Address("sis_section_id", value)


@pytest.fixture
def world() -> World:
    return World(Clock())


def test_a_user_is_found_through_live_logins_only(world: World) -> None:
    user, caller = world.add_user("Ada Lovelace"), world.add_user("Service")
    first, second = world.add_login(user, "ada@x", "A1"), world.add_login(user, "lovelace@x", "A2")
    second.integration_id = "I-2"
    first.state = "deleted"
    assert find_user(world, "sis_user_id:A1", caller) is None
    for named in (
        "sis_user_id:A2",
        hexed("sis_user_id", "A2"),
        "sis_login_id:LoveLace@X",
        "sis_integration_id:I-2",
        str(user.id),
    ):
        assert find_user(world, named, caller) is user
    assert find_user(world, "sis_user_id:a2", caller) is None, "SIS ids are exact"
    assert find_user(world, "self", caller) is caller
    assert find_user(world, "sis_section_id:A2", caller) is None


def test_a_suspended_login_still_finds_its_user(world: World) -> None:
    user = world.add_user("Ada")
    world.add_login(user, "ada@x", "A1").state = "suspended"
    assert find_user(world, "sis_user_id:A1", user) is user


def test_digits_are_always_a_canvas_id(world: World) -> None:
    section = world.add_section(world.add_course("C"), "S", "12345")
    assert find_section(world, "12345") is None
    assert find_section(world, "sis_section_id:12345") is section


def test_a_deleted_section_is_found(world: World) -> None:
    section = world.add_section(world.add_course("C"), "S", "S1")
    section.state = "deleted"
    assert find_section(world, "sis_section_id:S1") is section


def test_accounts_and_terms_have_words_of_their_own(world: World) -> None:
    assert find_account(world, "self") is find_account(world, "1") is world.root
    assert find_term(world, "default") is world.default_term
    assert find_term(world, "current") is None
    term = world.add_term("Fall", "F")
    term.start_at, term.end_at = moment("2000-01-01"), moment("2200-01-01")
    assert find_term(world, "current") is find_term(world, "sis_term_id:F") is term
    other = world.add_term("Also Fall", "G")
    other.start_at, other.end_at = term.start_at, term.end_at
    assert find_term(world, "current") is None, "two running terms leave it open"

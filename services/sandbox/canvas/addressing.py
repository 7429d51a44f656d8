"""Finding objects by what a path or parameter says: a Canvas id, or a SIS id in one of its forms (``lib/api.rb#api_find``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from services.sandbox.canvas.state import Account, Course, Pseudonym, Section, Term, User, uuid_of
from services.sandbox.canvas.world import World

Item = TypeVar("Item")


class Address(NamedTuple):
    """``digits`` → ("id", digits); ``sis_user_id:X`` → ("sis_user_id", "X"); a bare word → ("word", the word)."""

    form: str
    value: str


def parse(text: str) -> Address | None:
    """Take an id apart; None for something that can address nothing (malformed hex, a number with letters).

    The marker of the hex form is the prefix ``hex:`` before the whole address, an even number of digits of the UTF-8 value.
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        return Address("id", text)
    if text.startswith("hex:"):
        form, separator, encoded = text[4:].partition(":")
        try:
            value = bytes.fromhex(encoded).decode()
        except ValueError:
            return None
        # bytes.fromhex tolerates blanks between the digits, upstream does not.
        valid = separator and encoded.isalnum() and form.startswith("sis_")
        return Address(form, value) if valid else None
    form, separator, value = text.partition(":")
    return Address(form, value.strip()) if separator else Address("word", text)


def find_user(world: World, text: str, caller: User) -> User | None:
    """By SIS id only through a login that is not deleted: a user whose one login was deleted is not found."""
    match parse(text):
        case Address("id", value):
            found = world.users.get(int(value))
        case Address("word", "self"):
            found = caller
        case Address("sis_user_id", value):
            found = _of_live_login(world.logins_by_sis.get(value))
        case Address("sis_login_id", value):
            found = _of_live_login(world.logins_by_unique_id.get(value.lower()))
        case Address("sis_integration_id", value):
            found = next((user for user in world.users.values() if _has_integration_id(user, value)), None)
        case Address("uuid", value):
            found = _with_uuid(world.users, "user", value)
        case _:
            found = None
    return found


def _of_live_login(login: Pseudonym | None) -> User | None:
    return login.user if login and login.state != "deleted" else None


def _has_integration_id(user: User, value: str) -> bool:
    return any(login.integration_id == value and login.state != "deleted" for login in user.pseudonyms)


def _with_uuid(objects: Mapping[int, Item], kind: str, value: str) -> Item | None:
    return next((item for identity, item in objects.items() if uuid_of(kind, identity) == value), None)


def find_course(world: World, text: str) -> Course | None:
    """Whatever its state; the caller decides what a deleted course means."""
    match parse(text):
        case Address("id", value):
            return world.courses.get(int(value))
        case Address("sis_course_id", value):
            return world.courses_by_sis.get(value)
        case Address("sis_integration_id", value):
            return next((course for course in world.courses.values() if course.integration_id == value), None)
        case Address("uuid", value):
            return _with_uuid(world.courses, "course", value)
    return None


def find_section(world: World, text: str) -> Section | None:
    """Deleted sections too."""
    match parse(text):
        case Address("id", value):
            return world.sections.get(int(value))
        case Address("sis_section_id", value):
            return world.sections_by_sis.get(value)
        case Address("sis_integration_id", value):
            return next((section for section in world.sections.values() if section.integration_id == value), None)
    return None


def find_account(world: World, text: str) -> Account | None:
    """``self`` and ``default`` are the root account of the host."""
    match parse(text):
        case Address("id", value):
            return world.accounts.get(int(value))
        case Address("word", "self" | "default"):
            return world.root
        case Address("sis_account_id", value):
            return next((account for account in world.accounts.values() if account.sis_account_id == value), None)
        case Address("uuid", value):
            return _with_uuid(world.accounts, "account", value)
    return None


def find_term(world: World, text: str) -> Term | None:
    """Whatever its state. ``current`` works only when exactly one dated term is running."""
    match parse(text):
        case Address("id", value):
            found = world.terms.get(int(value))
        case Address("word", "default"):
            found = world.default_term
        case Address("word", "current"):
            found = _current_term(world)
        case Address("sis_term_id", value):
            found = world.terms_by_sis.get(value)
        case _:
            found = None
    return found


def _current_term(world: World) -> Term | None:
    now = world.clock.now()
    dated = [term for term in world.terms.values() if term.start_at and term.end_at and term.state != "deleted"]
    running = [term for term in dated if term.start_at and term.end_at and term.start_at <= now <= term.end_at]
    return running[0] if len(running) == 1 else None

"""Classes and people that a drill follows by hand, beside the traffic."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus

from schemas import keys
from services.sandbox.sis.messages import RowChange
from services.sandbox.sis.truth import STUDENT, Seat, section_id
from tests.drills.world import World
from tests.e2e.arena import announced, dropped, enrolled, eventually, one_class

CLASS = "99901"


@contextmanager
def one_person(world: World, emplid: str) -> Iterator[Seat]:
    """Somebody whom Canvas knows, and a class that everybody knows; without a seat at the beginning and at the end."""
    with a_class(world, CLASS, [emplid]) as (seat,):
        yield seat


@contextmanager
def a_class(world: World, class_nbr: str, people: Sequence[str]) -> Iterator[list[Seat]]:
    """A class and people that Canvas knows. Yields their seats in it, which they have neither now nor at the end."""
    post(world, announced(one_class(world.canvas, people, class_nbr)), operation="ZZ_CLASS_SYNC")
    eventually(world.arena.settled, 90, "the class is known")
    yield [Seat(section_id(class_nbr), emplid, STUDENT) for emplid in people]
    post(world, *(dropped(emplid, class_nbr) for emplid in people))
    eventually(world.arena.settled, 90, "nothing is left to do")


def post(world: World, *rows: RowChange, operation: str = "ZZ_ENRL_SYNC") -> None:
    """Send one message until it is accepted."""

    def accepted() -> bool:
        return world.arena.post(*rows, operation=operation).status_code == HTTPStatus.OK

    eventually(accepted, 90, "a message is accepted")


def enroll(world: World, class_nbr: str, people: Collection[str]) -> None:
    """Enroll them, and wait until Canvas has them."""
    post(world, *(enrolled(emplid, class_nbr) for emplid in people))
    await_settled(world, people)


def drop(world: World, class_nbr: str, people: Collection[str]) -> None:
    """Drop them, and wait until Canvas has them no more."""
    post(world, *(dropped(emplid, class_nbr) for emplid in people))
    await_settled(world, people)


def await_settled(world: World, people: Collection[str]) -> None:
    """Block until all that the student system said of them is read, and nothing is left to do about them; others may go on."""

    def settled() -> bool:
        unread = {keys.split(key)[3] for kind, key, _version in world.arena.unread() if kind == "enrollment"}
        work = world.ledger_ask("select count(*) from work where person = any(%s)", list(people))
        return not unread & set(people) and work == [(0,)]

    eventually(settled, 90, "nothing is left to do about them")


def active(world: World, class_nbr: str) -> set[str]:
    """Who has a seat in the class, by Canvas."""
    rows = world.canvas.roster(section_id(class_nbr))
    return {str(row["user"]) for row in rows if row["state"] == "active" and row["role"] == STUDENT}

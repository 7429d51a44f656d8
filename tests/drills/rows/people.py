"""Single people that a drill follows by hand, beside the traffic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from services.sandbox.sis.messages import RowChange
from services.sandbox.sis.truth import STUDENT, Seat, section_id
from tests.drills.world import World
from tests.e2e.arena import announced, dropped, eventually, one_class

CLASS = "99901"


@contextmanager
def one_person(world: World, emplid: str) -> Iterator[Seat]:
    """Somebody whom Canvas knows, and a class that everybody knows; without a seat at the beginning and at the end."""
    school_class = one_class(world.canvas, [emplid], CLASS)
    post(world, announced(school_class), operation="ZZ_CLASS_SYNC")
    eventually(world.arena.settled, 90, "the class is known")
    yield Seat(section_id(CLASS), emplid, STUDENT)
    post(world, dropped(emplid, CLASS))
    eventually(world.arena.settled, 90, "nothing is left to do")


def post(world: World, row: RowChange, operation: str = "ZZ_ENRL_SYNC") -> None:
    """Send one row until it is accepted."""

    def accepted() -> bool:
        return world.arena.post(row, operation=operation).status_code == HTTPStatus.OK

    eventually(accepted, 90, "a message is accepted")

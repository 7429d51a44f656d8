"""A mirror that lost history, between real processes: the ledger gives it back, and Canvas hears nothing of it."""

from __future__ import annotations

from http import HTTPStatus

from services.sandbox.sis.truth import STUDENT, Seat, section_id
from tests.e2e.arena import Arena, dropped, enrolled, eventually, one_class
from tests.e2e.conftest import MakeArena

ANA, BEN = "9000001", "9000002"


def versions(arena: Arena) -> dict[str, int]:
    return dict(arena.mirror("select person, version from entity where kind = 'enrollment'"))


def test_what_the_mirror_lost_comes_back_from_the_ledger_without_a_call(make_arena: MakeArena) -> None:
    arena = make_arena(publisher={"DIGEST_INTERVAL_SECONDS": "2"})
    one_class(arena.canvas, [ANA, BEN])
    arena.start()
    assert arena.post(enrolled(ANA), enrolled(BEN)).status_code == HTTPStatus.OK
    assert arena.post(dropped(BEN)).status_code == HTTPStatus.OK
    eventually(lambda: arena.state(Seat(section_id("26101"), ANA, STUDENT)) == "active", 20, "the add arrives")
    eventually(arena.settled, 30, "nothing is left to do")
    known, writes = versions(arena), len(arena.canvas.writes())

    arena.mirror("with gone as (delete from source_row) delete from entity where kind = 'enrollment' returning key")

    eventually(lambda: versions(arena).keys() == known.keys(), 60, "the ledger returned both")
    assert all(versions(arena)[person] > known[person] for person in known)
    eventually(arena.settled, 30, "nothing is left to do")
    statuses = dict(arena.ledger("select person, event->>'status' from entity where kind = 'enrollment'"))
    assert statuses == {ANA: "enrolled", BEN: "dropped"}
    assert len(arena.canvas.writes()) == writes
    eventually(lambda: arena.consumer.metric("sis_digest_repaired_total", difference="missing_there") == 2, 30, "both agree")

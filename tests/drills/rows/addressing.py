"""Where Canvas is, and how people and sections are named in it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from ssl import SSLContext
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx

from services.sandbox.demo.system import INTAKE_USER
from services.sandbox.sis.school import INSTITUTION, TERM
from services.sandbox.sis.truth import section_id
from tests.drills.catalogue import drill
from tests.drills.injectors.names import NAME, Resolver
from tests.drills.injectors.proxy import Link
from tests.drills.injectors.tls import Authority, front
from tests.drills.rows.people import a_class, await_settled, enroll, post
from tests.drills.world import World, lasting
from tests.e2e.arena import dropped, enrolled, eventually

_NAME_IS_KEPT_SECONDS = 11
"""By the HTTP library; so long new connections find their way without asking anybody."""


@drill(
    "V16",
    "Canvas's name means nothing; its certificate is expired, another host's, a stranger's",
    "TLS in front of Canvas, by an authority of the drill's; a resolver of their own for the consumers; each fault for a while",
    uses=["names", "tls"],
)
def v16(world: World) -> None:
    authority, resolver = Authority(world.data), Resolver(world.data)
    good = authority.issue(NAME)
    shown = front(good)
    canvas = world.network.link("canvas", ("127.0.0.1", urlsplit(world.system.canvas_url).port or 0), tls=shown)
    for part in world.consumers:
        url = f"https://{NAME}:{canvas.port}"
        part.restart(CANVAS_URL=url, SSL_CERT_FILE=str(authority.file), **resolver.environment)
    faults: list[tuple[str, str, AbstractContextManager[None]]] = [
        ("no address", "no_address", resolver.silenced()),
        ("expired", "certificate", _showing(shown, authority.issue(NAME, age=timedelta(days=2)), good)),
        ("another host's", "certificate", _showing(shown, authority.issue("elsewhere.test"), good)),
        ("a stranger's", "certificate", _showing(shown, Authority(world.data, "stranger").issue(NAME), good)),
    ]
    class_nbr, people = "99916", [f"971600{number}" for number in range(1, 7)]
    with a_class(world, class_nbr, people), world.traffic(seconds=30) as traffic:
        traffic.reach(0.05)
        for (name, code, fault), change in zip(faults, [enrolled, dropped] * 2, strict=True):
            failed = _failed(world)
            with fault:
                if code == "no_address":
                    time.sleep(_NAME_IS_KEPT_SECONDS)
                post(world, *(change(emplid, class_nbr) for emplid in people))
                _await_told(world, canvas, code)
                calls = _calls(world)
                time.sleep(lasting(4, 60))
                world.seen[f"{name}: calls"] = _calls(world) - calls
                assert _calls(world) == calls, "I19: something was sent to whom nobody knows"
                eventually(lambda code=code: _saying(world, code) > 0, 30, "a seat says why it waits")  # type: ignore[misc]
                world.seen[f"{name}: seats that say so"] = _saying(world, code)
                assert _failed(world) > failed, "no metric shows it"
            eventually(lambda calls=calls: _calls(world) > calls, 60, "Canvas is called again")  # type: ignore[misc]
        traffic.await_sent(120)


@contextmanager
def _showing(shown: SSLContext, certificate: Path, good: Path) -> Iterator[None]:
    shown.load_cert_chain(certificate)
    try:
        yield
    finally:
        shown.load_cert_chain(good)


def _await_told(world: World, canvas: Link, code: str) -> None:
    """Block until a log says that nobody is called, for this reason. Until then whoever came through before is thrown out."""
    before = _pauses(world, code)

    def told() -> bool:
        canvas.reset()
        return _pauses(world, code) > before

    eventually(told, 60, f"the log says {code}")


def _pauses(world: World, code: str) -> int:
    """How often the consumers' logs say that they call nobody for a while, for this reason."""
    logs = [world.folder / f"{part.name}.log" for part in world.consumers]
    lines = [line for log in logs for line in log.read_text(errors="replace").splitlines() if '"calls_paused"' in line]
    return sum(f'"{code}"' in line for line in lines)


def _saying(world: World, code: str) -> int:
    ((seats,),) = world.ledger_ask("select count(*) from work where code = %s", code)
    return int(seats)


def _failed(world: World) -> float:
    return sum(part.service.metric("lms_requests_total", outcome="server_fault") for part in world.consumers)


def _calls(world: World) -> int:
    return int(world.canvas.calls()["total"])


IDS = (
    "17/b", "17%2Fb", "17.json", "17", "50% of 17", "c:17", "sis_user_id:17", "hex:3137", "e 17", "e+17", "e%2017", "?17=1&a#b",
    "..", "../17", "\u00e4\u0430\u65e5\u672c", "\u00e9", "e\u0301", "'17\";--", "x" * 243, "x" * 242 + "y",
)  # fmt: skip
"""What an address may take for something else, and its neighbours, one of which a wrong address would name. A section's id has
twelve characters more, and Canvas's end at 255."""
OF_PEOPLESOFT = ("p/1.2%3:4 5\u00fc", "p/1.2%3:4 5u")
LONG = ("z" * 255, "z" * 254)


class Place(NamedTuple):
    """A seat by the ids of the student system, all in one term."""

    section: str
    person: str


@drill(
    "V17",
    "ids with / . % : blanks, unicode, 255 characters",
    "people and sections with such ids, and with such as they may be taken for, enrolled and half of them dropped by messages",
)
def v17(world: World) -> None:
    people = [*IDS, *LONG]
    sections = [*IDS, "L1", "L2"]
    everybody = {Place(section, person) for section, person in zip(sections, people, strict=True)}
    gone = set(sorted(everybody)[::2])
    world.canvas.users(*people)
    world.canvas.sections(*map(section_id, sections), course="1273-009017")
    with world.traffic() as traffic:
        _tell(world, everybody, "enrolled")
        eventually(lambda: _shown(world, sections) == everybody, 60, "everybody is where their own id leads, and only there")
        _tell(world, gone, "dropped")
        eventually(lambda: _shown(world, sections) == everybody - gone, 60, "who was dropped is gone, and nobody else")
        await_settled(world, people)
        for section, person in everybody:
            place = {"institution": INSTITUTION, "term": TERM, "section": section}
            trace = world.arena.operate("POST", "/trace", {"person": person, "section": place})
            assert "applied" in {finding["code"] for finding in trace.json()["findings"]}, trace.text
        with a_class(world, "99917", OF_PEOPLESOFT) as seats:
            enroll(world, "99917", OF_PEOPLESOFT[:1])
            assert [world.arena.state(seat) for seat in seats] == ["active", None]
            traffic.await_sent(120)
    assert _shown(world, sections) == everybody - gone
    logs = "".join((world.folder / f"{part.name}.log").read_text(errors="replace") for part in world.parts)
    assert not [each for each in people if len(each) > 4 and (each in logs or each.encode().hex() in logs)], "I14: an id in a log"
    world.seen |= {"ids": len({*people, *sections, *OF_PEOPLESOFT}), "longest": max(map(len, people))}


def _tell(world: World, places: Collection[Place], status: str) -> None:
    """One request in Enrollstream's own words; PeopleSoft's ids are shorter."""
    said = {"kind": "enrollment", "institution": INSTITUTION, "term": TERM, "status": status, "role": "student"}
    events = [said | place._asdict() for place in places]
    url = f"{world.arena.publisher.url}/intake/events"
    credentials = (INTAKE_USER, world.system.intake_password)
    answer = httpx.post(url, json=events, auth=credentials, timeout=30, trust_env=False)
    assert answer.status_code == HTTPStatus.OK, answer.text


def _shown(world: World, sections: Collection[str]) -> set[Place]:
    """Every active seat in these sections."""
    named = {section_id(section): section for section in sections}
    rows = [row for row in world.canvas.roster() if row["section"] in named and row["state"] == "active"]
    return {Place(named[row["section"]], row["user"]) for row in rows}

"""The rows themselves: made in bulk, changed behind the client's back, shown in every column, compared with a moment before."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from services.sandbox.canvas.control.requests import Routes, read
from services.sandbox.canvas.dates import effective_state
from services.sandbox.canvas.dump import KINDS, Snapshots, dump
from services.sandbox.canvas.interference import Act, interfere
from services.sandbox.canvas.population import Population, populate
from services.sandbox.canvas.rendering import instant
from services.sandbox.canvas.seeding import Missing, Objects, Strict, seed
from services.sandbox.canvas.state import Enrollment

if TYPE_CHECKING:
    from services.sandbox.canvas.app import Canvas


class Acts(Strict):
    """Done one after the other; the first that makes no sense stops them, and what came before it stays."""

    acts: list[Act]


class Rows:
    """The endpoints over them."""

    def __init__(self, canvas: Canvas) -> None:
        self._canvas = canvas
        self._snapshots = Snapshots(canvas.world)

    def routes(self) -> Routes:
        """What they answer to."""
        return [
            ("POST", "objects", self.objects),
            ("POST", "population", self.population),
            ("POST", "acts", self.acts),
            ("GET", "rosters", self.rosters),
            ("GET", "dump", self.dump),
            ("POST", "snapshots", self.take_snapshot),
            ("GET", "snapshots/{id:int}/changes", self.changes),
            ("DELETE", "snapshots/{id:int}", self.drop_snapshot),
        ]

    async def objects(self, request: Request) -> Response:
        """Create or change objects in bulk, by SIS id; repeating a request changes nothing."""
        return JSONResponse(seed(self._canvas.world, await read(request, Objects)))

    async def population(self, request: Request) -> Response:
        """Fill the account with courses, sections, people and enrollments; see `population.Population`."""
        return JSONResponse(populate(self._canvas.world, await read(request, Population)))

    async def acts(self, request: Request) -> Response:
        """What others do; see `interference.Act`. Answers with the ids of the rows each has touched."""
        wanted = await read(request, Acts)
        return JSONResponse({"touched": [interfere(self._canvas.world, act) for act in wanted.acts]})

    async def rosters(self, request: Request) -> Response:
        """All enrollments in every state, or those of one ``section`` (SIS id)."""
        section = request.query_params.get("section")
        rows = self._canvas.world.enrollments.values()
        found = [row for row in rows if section is None or row.section.sis_section_id == section]
        now = self._canvas.clock.now()
        return JSONResponse({"enrollments": [_roster_row(row, now) for row in found]})

    async def dump(self, request: Request) -> Response:
        """Every column of every row of the kinds asked for (``kind=``, repeatable); all kinds when none is."""
        kinds = request.query_params.getlist("kind") or KINDS
        for kind in kinds:
            if kind not in KINDS:
                raise Missing("kind", kind)
        return JSONResponse(dump(self._canvas.world, kinds))

    async def take_snapshot(self, _request: Request) -> Response:
        """Keep all rows as they are now, to compare with."""
        return JSONResponse({"id": self._snapshots.take()}, status_code=201)

    async def changes(self, request: Request) -> Response:
        """What is different since a snapshot, apart from the columns in ``ignore=`` (repeatable)."""
        identity = request.path_params["id"]
        found = self._snapshots.changes(identity, request.query_params.getlist("ignore"))
        if found is None:
            raise Missing("snapshot", str(identity))
        return JSONResponse({"changes": found})

    async def drop_snapshot(self, request: Request) -> Response:
        """Forget one."""
        return JSONResponse({"dropped": self._snapshots.drop(request.path_params["id"])})


def _roster_row(row: Enrollment, now: datetime) -> dict[str, Any]:
    login = row.user.login() or next(iter(row.user.pseudonyms), None)
    associated = row.associated_user.login() if row.associated_user else None
    return {
        "id": row.id,
        "section": row.section.sis_section_id,
        "course": row.course.sis_course_id,
        "user": login.sis_user_id if login else None,
        "associated_user": associated.sis_user_id if associated else None,
        "type": row.type,
        "role": row.role.name,
        "state": row.state,
        "effective_state": effective_state(row, now),
        "sis_import_id": row.sis_batch_id,
        "start_at": instant(row.start_at),
        "end_at": instant(row.end_at),
        "stuck_sis_fields": sorted(row.stuck_sis_fields),
    }

"""Canvas as a target: seats are enrollments, addressed by SIS ids, read before they are believed."""

from __future__ import annotations

from dataclasses import replace

from services.consumer.nouns import MissingKind, Seat, SeatState
from services.consumer.targets.canvas.addressing import by_sis_id
from services.consumer.targets.canvas.answers import NotFound, Payload
from services.consumer.targets.canvas.client import CanvasClient, Operation
from services.consumer.targets.canvas.roles import Roles
from services.consumer.targets.canvas.rows import STORED_STATES, Row, parse_rows
from services.consumer.targets.port import (
    AlreadySo,
    Done,
    Failure,
    IdentityMismatch,
    NotThere,
    Observation,
    Outcome,
    Presence,
    Refused,
    RosterPage,
    ServerFault,
    WrongShape,
)

_MAX_PAGES = 20
_WHATEVER_STATE = [("per_page", "100"), *(("state[]", state) for state in STORED_STATES)]
_TASKS: dict[SeatState, str] = {"deleted": "delete", "completed": "conclude", "inactive": "inactivate"}
"""``task`` of a DELETE. A missing or misspelt one concludes (``enrollments_api_controller.rb``), so it is always sent."""


class CanvasTarget:
    """`Target` for one Canvas account."""

    def __init__(self, client: CanvasClient, account: str, call_timeout_seconds: float) -> None:
        self._client = client
        self._timeout = call_timeout_seconds
        self._roles = Roles(client, account)

    async def close(self) -> None:
        """Close the connections to Canvas."""
        await self._client.close()

    # Reading

    async def read(self, seat: Seat) -> Observation | Failure:
        """The seat's row among all rows of this user in this section, whatever their state."""
        operation = Operation(self._timeout)
        return replace(await self._read(seat, operation), usage=operation.usage)

    async def _read(self, seat: Seat, operation: Operation) -> Observation | Failure:
        rows = await self._rows(seat, operation)
        if isinstance(rows, NotFound):
            missing = await self._missing(seat, operation)
            elsewhere = isinstance(missing, NotThere) and missing.missing == "elsewhere"
            return ServerFault("not_found_though_there") if elsewhere else missing
        if not isinstance(rows, list):
            return rows
        for row in rows:
            stranger = await self._belongs(row, seat, operation)
            if stranger is not None:
                return stranger
        return _clearest([row for row in rows if row.plays(seat) and not row.temporary])

    async def _rows(self, seat: Seat, operation: Operation) -> list[Row] | NotFound | Failure:
        params = [("user_id", by_sis_id("user", seat.lms_user)), ("type[]", seat.base_role), *_WHATEVER_STATE]
        page = await self._client.get(_enrollments_of(seat.lms_section), operation, params)
        rows: list[Row] = []
        for _ in range(_MAX_PAGES):
            if not isinstance(page, Payload):
                return page
            parsed = parse_rows(page.value)
            if parsed is None:
                return WrongShape("enrollment_list")
            rows += parsed
            if page.next_page is None:
                return rows
            page = await self._client.get_page(page.next_page, operation)
        return WrongShape("endless_list")

    async def roster(self, lms_section: str, page: str | None = None) -> RosterPage | Failure:
        """A hundred rows of the section (``app/controllers/enrollments_api_controller.rb``, `index`). Rows that Canvas makes by
        itself are left out: observers, the Test Student, temporary enrollments."""
        operation = Operation(self._timeout)
        return replace(await self._roster(lms_section, page, operation), usage=operation.usage)

    async def _roster(self, lms_section: str, page: str | None, operation: Operation) -> RosterPage | Failure:
        if page is None:
            result = await self._client.get(_enrollments_of(lms_section), operation, _WHATEVER_STATE)
        else:
            result = await self._client.get_page(page, operation)
        if isinstance(result, NotFound):
            there = await self._canvas_id("section", lms_section, operation)
            if not isinstance(there, str | None):
                return there
            return NotThere("section") if there is None else ServerFault("not_found_though_there")
        if not isinstance(result, Payload):
            return result
        rows = parse_rows(result.value)
        if rows is None:
            return WrongShape("enrollment_list")
        stranger = await self._of_another_section(rows, lms_section, operation)
        people = tuple(row.in_roster() for row in rows if row.made_by_people)
        return stranger or RosterPage(people, result.next_page)

    async def _of_another_section(self, rows: list[Row], lms_section: str, operation: Operation) -> Failure | None:
        """None when all rows are of this section. A token without the right to read SIS ids is shown none in them."""
        unproven = {row.section_id for row in rows if row.sis_section_id != lms_section}
        if not unproven:
            return None
        meant = await self._canvas_id("section", lms_section, operation)
        if not isinstance(meant, str | None):
            return meant
        return None if unproven == {meant} else IdentityMismatch("section")

    # Changing

    async def write(self, seat: Seat, wanted: SeatState, seen: Observation) -> Outcome:
        """One step from `seen` to `wanted`, by the gentlest call that Canvas has for it."""
        operation = Operation(self._timeout)
        return replace(await self._step(seat, wanted, seen, operation), usage=operation.usage)

    async def _step(self, seat: Seat, wanted: SeatState, seen: Observation, operation: Operation) -> Outcome:
        if seen.state not in ("absent", "deleted") and (seen.lms_enrollment is None or seen.lms_course is None):
            looked = await self._read(seat, operation)
            if not isinstance(looked, Observation):
                return looked
            seen = looked
        if seen.state == wanted or (wanted == "deleted" and seen.state == "absent"):
            return AlreadySo(seen)
        if wanted == "active" and seen.state == "inactive":
            return await self._reactivate(seat, seen, operation)
        if wanted == "active":
            return await self._enroll(seat, "active", operation)
        if seen.state in ("absent", "deleted"):
            # A row without access is made inactive at once; making it active first would open the course for a moment.
            return await self._enroll(seat, "inactive", operation)
        return await self._remove(seat, wanted, seen, operation)

    async def _enroll(self, seat: Seat, state: str, operation: Operation) -> Outcome:
        role = await self._roles.named(seat, operation)
        if not isinstance(role, dict):
            return role
        # Without enrollment_state Canvas invites instead of enrolling, and may write to people when the term starts.
        form = {
            "enrollment[user_id]": by_sis_id("user", seat.lms_user),
            "enrollment[type]": seat.base_role,
            "enrollment[enrollment_state]": state,
            "enrollment[notify]": "false",
            **role,
        }
        if seat.associated_user:
            # Unlike `user_id` not looked up (``enrollments_api_controller.rb#create``): only Canvas's own id means somebody.
            observed = await self._canvas_id("user", seat.associated_user, operation)
            if not isinstance(observed, str):
                return observed or NotThere("elsewhere")
            form["enrollment[associated_user_id]"] = observed
        path = f"sections/{by_sis_id('section', seat.lms_section)}/enrollments"
        result = await self._client.change("POST", path, operation, form=form)
        if isinstance(result, NotFound):
            return await self._missing(seat, operation)
        return await self._confirmed(result, seat, None, operation)

    async def _reactivate(self, seat: Seat, seen: Observation, operation: Operation) -> Outcome:
        """Unlike a second POST this leaves dates, section limit and login link as they are."""
        path = f"courses/{seen.lms_course}/enrollments/{seen.lms_enrollment}/reactivate"
        result = await self._client.change("PUT", path, operation)
        if isinstance(result, NotFound):
            return await self._row_elsewhere(seat, seen, operation)
        if isinstance(result, Refused) and result.code == "not_inactive":
            return NotThere("elsewhere")
        return await self._confirmed(result, seat, seen.lms_enrollment, operation)

    async def _remove(self, seat: Seat, wanted: SeatState, seen: Observation, operation: Operation) -> Outcome:
        path = f"courses/{seen.lms_course}/enrollments/{seen.lms_enrollment}"
        result = await self._client.change("DELETE", path, operation, params=[("task", _TASKS[wanted])])
        if isinstance(result, NotFound):
            # Deleted already, or moved to another course by a cross-listing: only a read can tell.
            return await self._row_elsewhere(seat, seen, operation)
        return await self._confirmed(result, seat, seen.lms_enrollment, operation)

    async def _confirmed(self, result: Payload | Failure, seat: Seat, row_id: str | None, operation: Operation) -> Outcome:
        """The change's own answer must show the seat that was meant."""
        if not isinstance(result, Payload):
            return result
        row = Row.parse(result.value)
        if row is None:
            return WrongShape("enrollment")
        if row_id is not None and row.id != row_id:
            return IdentityMismatch("enrollment")
        if not row.plays(seat):
            return IdentityMismatch("role")
        stranger = await self._belongs(row, seat, operation)
        if stranger is None:
            return Done(row.observation())
        # The change happened; whatever kept us from checking it must not read as "nothing was changed".
        return stranger if isinstance(stranger, IdentityMismatch) else ServerFault("unverified")

    # Finding out

    async def probe(self, kind: MissingKind, sis_id: str) -> Presence | Failure:
        """Ask for the object by its SIS id."""
        operation = Operation(self._timeout)
        found = await self._canvas_id(kind, sis_id, operation)
        if found is None or isinstance(found, str):
            return Presence(found is not None, operation.usage)
        return replace(found, usage=operation.usage)

    async def _canvas_id(self, kind: MissingKind, sis_id: str, operation: Operation) -> str | Failure | None:
        """Canvas's own id of a user or section, None when it has none."""
        result = await self._client.get(f"{kind}s/{by_sis_id(kind, sis_id)}", operation)
        if isinstance(result, NotFound):
            return None
        if not isinstance(result, Payload):
            return result
        if not isinstance(result.value, dict) or "id" not in result.value:
            return WrongShape(kind)
        return str(result.value["id"])

    async def _missing(self, seat: Seat, operation: Operation) -> Failure:
        """Which object a 404 was about. When both are there now, it appeared meanwhile or the section takes nobody."""
        user = await self._canvas_id("user", seat.lms_user, operation)
        if not isinstance(user, str | None):
            return user
        section = await self._canvas_id("section", seat.lms_section, operation)
        if not isinstance(section, str | None):
            return section
        if user is not None and section is not None:
            return NotThere("elsewhere")
        if user is None and section is None:
            return NotThere("both")
        return NotThere("user" if user is None else "section")

    async def _row_elsewhere(self, seat: Seat, seen: Observation, operation: Operation) -> Failure:
        """Look the row up by its id: works for deleted rows, in any course, and in the root account only
        (``app/models/account.rb``, `all_enrollments`)."""
        result = await self._client.get(f"accounts/self/enrollments/{seen.lms_enrollment}", operation)
        row = Row.parse(result.value) if isinstance(result, Payload) else None
        if row is None or row.id != seen.lms_enrollment or not row.plays(seat):
            return NotThere("elsewhere")
        if await self._belongs(row, seat, operation) is not None:
            return NotThere("elsewhere")
        return NotThere("elsewhere", row.observation())

    async def _belongs(self, row: Row, seat: Seat, operation: Operation) -> Failure | None:
        """None when the row is about this user and section (and observed user), else what is wrong.

        SIS ids in the row prove it at once. They may be absent (a token without the right to read them) or name another login
        of the same user; then Canvas's own ids are compared.
        """
        checks: list[tuple[MissingKind, str, str | None, str | None]] = [
            ("user", seat.lms_user, row.sis_user_id, row.user_id),
            ("section", seat.lms_section, row.sis_section_id, row.section_id),
        ]
        if seat.associated_user and row.associated_user_id is not None:
            checks.append(("user", seat.associated_user, None, row.associated_user_id))
        for kind, sis_id, shown, canvas_id in checks:
            if shown == sis_id:
                continue
            meant = await self._canvas_id(kind, sis_id, operation)
            if not isinstance(meant, str | None):
                return meant
            if meant != canvas_id:
                return IdentityMismatch(kind)
        return None


def _enrollments_of(lms_section: str) -> str:
    return f"sections/{by_sis_id('section', lms_section)}/enrollments"


def _clearest(rows: list[Row]) -> Observation:
    """The row to believe: Canvas keeps one per seat, yet if there were two, the one that gives access must not be missed."""
    if not rows:
        return Observation("absent")
    order = {"active": 0, "invited": 1, "creation_pending": 1, "inactive": 2, "completed": 3, "rejected": 4, "deleted": 5}
    return min(rows, key=lambda row: order.get(row.state, 1)).observation()

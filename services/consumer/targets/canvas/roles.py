"""Custom roles: Canvas wants their id, a policy names them by label (``role_overrides_controller.rb#api_index``)."""

from __future__ import annotations

import asyncio

from services.consumer.nouns import Seat
from services.consumer.targets.canvas.answers import NotFound, Payload
from services.consumer.targets.canvas.client import CanvasClient, Operation
from services.consumer.targets.port import Failure, NoPermission, Refused, WrongShape

_MAX_PAGES = 20
_REREAD_SECONDS = 60
"""An unknown label may be a role made a moment ago, so the list is read again, but not for every seat."""


class Roles:
    """The account's roles by (label, base type), read when first needed."""

    def __init__(self, client: CanvasClient, account: str) -> None:
        self._client = client
        self._account = account
        self._ids: dict[tuple[str, str], str] = {}
        self._read_at: float | None = None
        self._hidden = False
        """The token may not list roles, which takes the right to manage permissions."""
        self._reading = asyncio.Lock()

    async def named(self, seat: Seat, operation: Operation) -> dict[str, str] | Failure:
        """What to send for the role: nothing for a built-in one, which its type names well enough; else its id, or its label
        where ids are hidden (deprecated, yet understood: ``enrollments_api_controller.rb#create``)."""
        if seat.role == seat.base_role:
            return {}
        wanted = (seat.role, seat.base_role)
        async with self._reading:
            if wanted not in self._ids and self._may_read():
                failure = await self._read(operation)
                if failure is not None:
                    return failure
        if self._hidden:
            return {"enrollment[role]": seat.role}
        return {"enrollment[role_id]": self._ids[wanted]} if wanted in self._ids else Refused("unknown_role")

    def _may_read(self) -> bool:
        return self._read_at is None or asyncio.get_running_loop().time() - self._read_at > _REREAD_SECONDS

    async def _read(self, operation: Operation) -> Failure | None:
        params = [("show_inherited", "true"), ("per_page", "100"), ("state[]", "active")]
        page = await self._client.get(f"accounts/{self._account}/roles", operation, params)
        found: dict[tuple[str, str], str] = {}
        for _ in range(_MAX_PAGES):
            if isinstance(page, NotFound):
                return Refused("unknown_account")
            self._hidden = isinstance(page, NoPermission) and not page.whole_token
            if self._hidden:
                break
            if not isinstance(page, Payload):
                return page
            try:
                found |= {(str(role["label"]), str(role["base_role_type"])): str(role["id"]) for role in page.value}
            except (KeyError, TypeError):
                return WrongShape("role")
            if page.next_page is None:
                break
            page = await self._client.get_page(page.next_page, operation)
        self._ids, self._read_at = found, asyncio.get_running_loop().time()
        return None

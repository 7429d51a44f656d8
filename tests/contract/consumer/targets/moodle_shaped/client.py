"""Calls to a Moodle-shaped LMS, and what its answers mean. A status says nothing here: all is in the body."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import orjson

from services.consumer.targets.canvas.answers import Answer, NoAnswer
from services.consumer.targets.canvas.wire import AiohttpWire
from services.consumer.targets.port import (
    NO_USAGE,
    Failure,
    NoPermission,
    NotThere,
    Refused,
    ServerFault,
    Unknown,
    Usage,
    WrongShape,
)

_ADDRESS = "/webservice/rest/server.php"
_OF_THE_ACCOUNT = frozenset({"invalidtoken", "accessexception", "wsaccessusersuspended", "forcepasswordchangenotice"})
_NOT_ALLOWED = frozenset({"nopermissions", "requireloginerror", "wsusercannotassign"})
_GONE = frozenset({"invalidrecord", "invalidparameter", "codingerror"})
"""Said, among other things, of people and courses that do not exist (any more)."""
_TROUBLE = frozenset({"sitemaintenance", "upgraderunning", "dbconnectionfailed", "dmlreadexception", "dmlwriteexception"})


class Operation:
    """One deadline and one bill for all calls of a target's operation."""

    def __init__(self, seconds: float) -> None:
        self.deadline = asyncio.get_running_loop().time() + seconds
        self.usage = NO_USAGE


@dataclass(frozen=True, slots=True)
class Said:
    """A JSON answer that is no error. Of a change it is ``null``, which does not say that anything was done."""

    value: Any


class MoodleShapedClient:
    """Sends each call once."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url + _ADDRESS
        self._token = token
        self._wire = AiohttpWire()

    async def read(self, function: str, fields: Mapping[str, object], operation: Operation) -> Said | Failure:
        """Never `Unknown` or `NotThere`."""
        result = meaning(await self._answer(function, fields, operation), changes=False)
        return ServerFault("gone_meanwhile") if isinstance(result, NotThere) else result

    async def change(self, function: str, fields: Mapping[str, object], operation: Operation) -> Said | Failure:
        """An error of the LMS means that nothing was done."""
        return meaning(await self._answer(function, fields, operation), changes=True)

    async def close(self) -> None:
        """Close all connections."""
        await self._wire.close()

    async def _answer(self, function: str, fields: Mapping[str, object], operation: Operation) -> Answer | NoAnswer:
        operation.usage += Usage(calls=1)
        # The function last: a form that was cut on its way is then refused as a whole.
        form = {"wstoken": self._token, "moodlewsrestformat": "json", **fields, "wsfunction": function}
        headers = {"content-type": "application/x-www-form-urlencoded"}
        try:
            async with asyncio.timeout_at(operation.deadline):
                return await self._wire.send("POST", self._url, headers, urlencode(form).encode())
        except TimeoutError:
            return NoAnswer("timeout", sent=True)


def meaning(answer: Answer | NoAnswer, *, changes: bool) -> Said | Failure:
    """What an answer says of a call that `changes` something, or only reads."""
    if isinstance(answer, NoAnswer):
        return Unknown(answer.code) if changes and answer.sent else ServerFault(answer.code)
    if answer.status != 200:
        return ServerFault(f"http_{answer.status}")
    try:
        value = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return WrongShape("not_json")
    return _complaint(value.get("errorcode")) if isinstance(value, dict) and "exception" in value else Said(value)


def _complaint(code: object) -> Failure:
    """By the code alone; the message is in the site's language and may quote people."""
    if code in _OF_THE_ACCOUNT:
        return NoPermission(whole_token=True)
    if code in _NOT_ALLOWED:
        return NoPermission(whole_token=False)
    if code in _GONE:
        return NotThere("elsewhere")
    if code == "wsnoinstance":
        return Refused("no_manual_method")
    return ServerFault(str(code) if code in _TROUBLE else "other_exception")

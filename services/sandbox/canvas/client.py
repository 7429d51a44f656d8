"""A client of the control side, for tests, the demo and drills."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import httpx


class CanvasControl:
    """Blocking calls to ``<url>/_sandbox/``; raises `httpx.HTTPStatusError` when the sandbox refuses."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=f"{url}/_sandbox/", timeout=30, trust_env=False)

    def _call(self, method: str, path: str, content: object = None, **query: str | int) -> Any:
        answer = self._http.request(method, path, json=content, params=query)
        answer.raise_for_status()
        return answer.json()

    def objects(self, **kinds: list[dict[str, Any]]) -> dict[str, Any]:
        """Create or change ``terms roles courses sections users enrollments``; see `seeding.Objects`."""
        answer: dict[str, Any] = self._call("POST", "objects", kinds)
        return answer

    def populate(self, **amounts: Any) -> dict[str, Any]:
        """Fill the account; see `population.Population`. Returns the sections' SIS ids."""
        answer: dict[str, Any] = self._call("POST", "population", amounts)
        return answer

    def act(self, act: str, **which: Any) -> list[int]:
        """Do what somebody else does behind the client's back; see `interference.Act`. Returns the touched rows' ids."""
        touched: list[list[int]] = self._call("POST", "acts", {"acts": [{"act": act, **which}]})["touched"]
        return touched[0]

    def dump(self, kind: str = "enrollments") -> list[dict[str, Any]]:
        """Every row of a kind (see `dump.KINDS`) in every column."""
        found: list[dict[str, Any]] = self._call("GET", "dump", None, kind=kind)[kind]
        return found

    def snapshot(self) -> int:
        """Keep all rows as they are, to ask for `changes` later."""
        identity: int = self._call("POST", "snapshots")["id"]
        return identity

    def changes(self, snapshot: int, *ignore: str) -> list[dict[str, Any]]:
        """What is different since a snapshot, apart from the columns to ignore.

        Each has ``kind``, ``id``, ``sis`` and one of ``changed`` ({column: [was, is]}), ``added`` and ``removed``.
        """
        answer = self._http.get(f"snapshots/{snapshot}/changes", params={"ignore": list(ignore)})
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()["changes"]
        return found

    def users(self, *sis_user_ids: str) -> None:
        """People with invented names."""
        self.objects(users=[{"sis_user_id": sis_id} for sis_id in sis_user_ids])

    def sections(self, *sis_section_ids: str, course: str) -> None:
        """Sections of one published course, which is made when missing."""
        sections = [{"sis_section_id": sis_id, "course": course} for sis_id in sis_section_ids]
        self.objects(courses=[{"sis_course_id": course}], sections=sections)

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Change settings (none given: read them); ``throttle`` is a nested object."""
        answer: dict[str, Any] = self._call("PATCH", "settings", changes)
        return answer

    def token(self, alias: str, **changes: Any) -> dict[str, Any]:
        """Add a token (``secret=``), or change ``state`` or ``permissions``."""
        answer: dict[str, Any] = self._call("POST", "tokens", {"alias": alias, **changes})
        return answer

    def clock(self, **changes: Any) -> str:
        """``now=`` (ISO text), ``frozen=``, ``advance_seconds=``, ``reset=``; returns the new moment."""
        answer: str = self._call("POST", "clock", changes)["now"]
        return answer

    def fault(self, kind: str, **limits: Any) -> int:
        """Set a fault; see `faults.FaultSpec`. Returns its id."""
        identity: int = self._call("POST", "faults", {"kind": kind, **limits})["id"]
        return identity

    def faults(self) -> list[dict[str, Any]]:
        """All faults, with ``bit``: how many calls each has hit."""
        found: list[dict[str, Any]] = self._call("GET", "faults")["faults"]
        return found

    def bit(self, identity: int) -> int:
        """How many calls one fault has hit."""
        return next(int(fault["bit"]) for fault in self.faults() if fault["id"] == identity)

    def heal(self, identity: int | None = None) -> None:
        """Remove one fault, or all; calls that hang stay hung."""
        self._call("DELETE", "faults" if identity is None else f"faults/{identity}")

    def roster(self, section: str | None = None) -> list[dict[str, Any]]:
        """Enrollments in every state."""
        query = {} if section is None else {"section": section}
        rows: list[dict[str, Any]] = self._call("GET", "rosters", None, **query)["enrollments"]
        return rows

    def writes(self, after: int = 0) -> list[dict[str, Any]]:
        """Every attempt to change an enrollment after number `after`, in order."""
        found: list[dict[str, Any]] = []
        while True:
            page = self._call("GET", "writes", None, after=after + len(found))["writes"]
            found += page
            if not page:
                return found

    def mails(self) -> list[dict[str, Any]]:
        """What people were or will be mailed: ``kind enrollment user due sent``."""
        found: list[dict[str, Any]] = self._call("GET", "mails")["mails"]
        return found

    def violations(self) -> list[dict[str, Any]]:
        """What should never have happened."""
        found: list[dict[str, Any]] = self._call("GET", "violations")["violations"]
        return found

    def calls(self) -> dict[str, Any]:
        """``calls`` (endpoint, status, count), ``total``, ``max_in_flight``."""
        answer: dict[str, Any] = self._call("GET", "calls")
        return answer

    def forget_calls(self) -> None:
        """Count calls from zero again."""
        self._call("DELETE", "calls")

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> CanvasControl:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

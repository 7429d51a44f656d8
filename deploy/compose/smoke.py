"""One student added and dropped through the running system: ``docker compose exec sandbox python /smoke.py``.

Standard library only. It runs inside the sandbox's container because the control side of the sandbox answers to loopback alone.
Ends with 0 when Canvas's roster followed both changes.
"""

from __future__ import annotations

import base64
import http.client
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

SANDBOX, PUBLISHER = ("127.0.0.1", 8082), ("publisher", 8080)
CREDENTIALS = Path("/run/secrets/intake-credentials")
PATIENCE_SECONDS = 60
SECTION, STUDENT = "NORTH-2267-26191", "0090001"

OBJECTS = {
    "courses": [{"sis_course_id": "BIOL-101", "name": "Biology", "state": "available"}],
    "sections": [{"sis_section_id": SECTION, "course": "BIOL-101"}],
    "users": [{"sis_user_id": STUDENT, "name": "Invented Student"}],
}
ROWSET = """<?xml version="1.0"?>
<ZZ_ENRL_SYNC><MsgData><Transaction>
  <STDNT_ENRL class="R"><EMPLID>0090001</EMPLID><ACAD_CAREER>UGRD</ACAD_CAREER><INSTITUTION>NORTH</INSTITUTION><STRM>2267</STRM>
    <CLASS_NBR>26191</CLASS_NBR><STDNT_ENRL_STATUS>{status}</STDNT_ENRL_STATUS>
    <ENRL_STATUS_REASON>{reason}</ENRL_STATUS_REASON></STDNT_ENRL>
  <PSCAMA class="R"><AUDIT_ACTN>{action}</AUDIT_ACTN></PSCAMA>
</Transaction></MsgData></ZZ_ENRL_SYNC>"""


def main() -> int:
    _call(SANDBOX, "POST", "/_sandbox/objects", json.dumps(OBJECTS))
    print(f"canvas: {len(OBJECTS['users'])} user and {len(OBJECTS['sections'])} section are there")
    added = _follow(ROWSET.format(status="E", reason="ENRL", action="A"), "active")
    return 0 if added and _follow(ROWSET.format(status="D", reason="DROP", action="C"), "deleted") else 1


def _follow(rowset: str, wanted: str) -> bool:
    """Post one message as PeopleSoft would and watch the roster until it says `wanted`."""
    credentials = base64.b64encode(CREDENTIALS.read_text().splitlines()[0].encode()).decode()
    headers = {
        "Content-Type": "text/xml; charset=utf-8",
        "Authorization": f"Basic {credentials}",
        "From": "PSFT_CS",
        "ExternalOperationName": "ZZ_ENRL_SYNC.VERSION_1",
        "OrigTimeStamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f+0000"),
    }
    began = time.monotonic()
    status, answer = _call(PUBLISHER, "POST", "/intake/peoplesoft", rowset, headers)
    print(f"publisher: {status} after {time.monotonic() - began:.2f} s: {answer.splitlines()[-1]}")
    while time.monotonic() - began < PATIENCE_SECONDS:
        _, roster = _call(SANDBOX, "GET", f"/_sandbox/rosters?section={SECTION}")
        states = [row["state"] for row in json.loads(roster)["enrollments"] if row["user"] == STUDENT]
        if states == [wanted]:
            print(f"canvas: {wanted} after {time.monotonic() - began:.2f} s")
            return True
        time.sleep(0.1)
    print(f"canvas: not {wanted} after {PATIENCE_SECONDS} s, but {states}", file=sys.stderr)
    return False


def _call(
    address: tuple[str, int], method: str, path: str, body: str = "", headers: dict[str, str] | None = None
) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*address, timeout=15)
    connection.request(method, path, body.encode() or None, headers or {})
    response = connection.getresponse()
    return response.status, response.read().decode()


if __name__ == "__main__":
    sys.exit(main())

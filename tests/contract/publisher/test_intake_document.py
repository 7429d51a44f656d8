"""docs/intake.md is true: its examples are accepted, and every reason for quarantine is explained."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from services.publisher.changes import Translation
from services.publisher.dialect_file import read_dialect
from services.publisher.translate.canonical import CanonicalContext, translate

ROOT = Path(__file__).parents[3]
_REASON = re.compile(r'(?:Unreadable|RowRefused|Reject)\(\s*"([a-z_]+)"')


def test_every_reason_for_quarantine_is_explained() -> None:
    code = "".join(path.read_text() for path in (ROOT / "services" / "publisher").rglob("*.py"))
    reasons = set(_REASON.findall(code))
    document = (ROOT / "docs" / "intake.md").read_text()
    explained = {
        reason
        for line in document.splitlines()
        for reason in re.findall(r"`([a-z_]+)`", line.split("|")[1] if "|" in line else "")
    }
    assert {"malformed_xml", "unknown_code", "too_large", "bad_value"} <= reasons
    assert reasons <= explained


def test_the_example_event_is_accepted() -> None:
    context = CanonicalContext("main", "events:test", datetime(2026, 12, 2, tzinfo=UTC))
    found = translate(_example("json").encode(), context)
    assert isinstance(found, Translation)


def test_the_example_dialect_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "dialect.yaml"
    path.write_text(_example("yaml"))
    assert read_dialect(path).records == {"ZZ_ENRL_VW": "STDNT_ENRL"}


def _example(language: str) -> str:
    return (ROOT / "docs" / "intake.md").read_text().split(f"```{language}\n")[1].split("```")[0]

"""Settings that contradict each other are refused with what to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from services.publisher.settings import Settings


def settings(**changes: Any) -> Settings:
    """With what is needed."""
    given: dict[str, Any] = {"database_url": SecretStr("postgresql://db"), "intake_credentials_file": Path("sources")}
    return Settings(**(given | changes))


def test_kafka_has_to_give_up_before_the_request_is_answered() -> None:
    with pytest.raises(ValidationError, match="DELIVERY_TIMEOUT_SECONDS must be below ANSWER_WITHIN_SECONDS"):
        settings(answer_within_seconds=5, delivery_timeout_seconds=5)


def test_the_longest_body_has_to_fit_into_the_room_for_all_bodies() -> None:
    with pytest.raises(ValidationError, match="MAX_BODIES_BYTES must be at least MAX_BODY_BYTES"):
        settings(max_bodies_bytes=4096, max_body_bytes=8192)


def test_the_longest_extract_has_to_fit_into_the_room_for_all_extracts() -> None:
    with pytest.raises(ValidationError, match="MAX_SNAPSHOTS_BYTES must be at least MAX_SNAPSHOT_BYTES"):
        settings(max_snapshots_bytes=4096, max_snapshot_bytes=8192)


def test_a_time_zone_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValidationError, match="America/New_York"):
        settings(site_timezone="Middle/Earth")


def test_the_database_password_is_not_printed() -> None:
    assert "hunter2" not in repr(settings(database_url=SecretStr("postgresql://u:hunter2@db")))

"""Silence counts in active hours only, and in the site's time."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from services.publisher.cadence_file import read_cadences
from services.publisher.silence import Cadence, is_silent, silent_for
from services.publisher.yaml_file import YamlFileError

CHICAGO = ZoneInfo("America/Chicago")
OFFICE = Cadence(timedelta(minutes=30), frozenset(range(5)), time(7), time(22))


def at(day: int, hour: int, minute: int = 0, month: int = 11) -> datetime:
    """2026-11-27 is a Friday."""
    return datetime(2026, month, day, hour, minute, tzinfo=CHICAGO).astimezone(UTC)


@pytest.mark.parametrize(
    ("last", "now", "silent"),
    [
        (at(27, 21, 50), at(27, 22, 30), False),  # ten minutes of them were active
        (at(27, 21, 20), at(27, 22, 30), True),
        (at(27, 21, 50), at(30, 7, 10), False),  # a weekend lies between
        (at(27, 21, 50), at(30, 7, 25), True),
        (at(27, 12), at(27, 12, 30), False),
        (at(27, 12), at(27, 12, 31), True),
        (at(27, 12), at(27, 11), False),  # another process's clock is ahead
    ],
)
def test_a_source_is_silent_after_its_cadence_in_active_hours(last: datetime, now: datetime, silent: bool) -> None:
    assert is_silent(last, now, OFFICE, CHICAGO) is silent


@pytest.mark.parametrize(("month", "day", "hours"), [(3, 8, 23), (11, 1, 25)])
def test_days_of_another_length_count_as_they_are(month: int, day: int, hours: int) -> None:
    around_the_clock = Cadence(timedelta(hours=1))
    last, now = at(day, 0, month=month), at(day + 1, 0, month=month)
    assert silent_for(last, now, around_the_clock, CHICAGO) == timedelta(hours=hours)


def test_a_channel_that_is_long_dead_is_silent_without_counting_for_ever() -> None:
    last = datetime(1990, 1, 1, tzinfo=UTC)
    assert is_silent(last, at(27, 12), Cadence(timedelta(days=10)), CHICAGO)


def test_the_documented_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cadence.yaml"
    document = Path(__file__).parents[3] / "docs" / "sources.md"
    path.write_text(document.read_text().split("```yaml\n")[1].split("```")[0])
    assert read_cadences(path)["ib:PSFT_CS"] == OFFICE


@pytest.mark.parametrize(
    "text",
    [
        "a: {every_minutes: 0}",
        "a: {every_minutes: 5, days: [monday]}",
        'a: {every_minutes: 5, from: "22:00", until: "06:00"}',
        "[",
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cadence.yaml"
    path.write_text(text)
    with pytest.raises(YamlFileError, match=str(path)):
        read_cadences(path)


def test_without_a_file_nothing_is_expected() -> None:
    assert read_cadences(None) == {}

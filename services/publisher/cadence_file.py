"""How often each channel is expected to deliver, from a YAML file.

::

    ib:PSFT_CS: {every_minutes: 30, days: [mon, tue, wed, thu, fri], from: "07:00", until: "22:00"}
    snapshot:campus: {every_minutes: 1560}      # around the clock
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import time, timedelta
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from services.publisher import yaml_file
from services.publisher.silence import LONGEST, Cadence

_Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: tuple[_Day, ...] = get_args(_Day)
_Time = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]


class _Expected(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    every_minutes: float = Field(gt=0, le=LONGEST.total_seconds() / 60)
    days: list[_Day] = Field(default_factory=lambda: list(_DAYS), min_length=1)
    begins: _Time = Field(default="00:00", alias="from")
    ends: _Time | Literal["24:00"] = Field(default="24:00", alias="until")

    @model_validator(mode="after")
    def _begins_before_it_ends(self) -> Self:
        if self.begins >= self.ends:
            raise ValueError("`from` must be before `until`; hours across midnight are not supported")
        return self

    def cadence(self) -> Cadence:
        """As the rest of the publisher knows it."""
        ends = None if self.ends == "24:00" else time.fromisoformat(self.ends)
        days = frozenset(_DAYS.index(day) for day in self.days)
        return Cadence(timedelta(minutes=self.every_minutes), days, time.fromisoformat(self.begins), ends)


_FILE = TypeAdapter(dict[Annotated[str, Field(min_length=1, max_length=255)], _Expected])


def read_cadences(path: Path | None) -> Mapping[str, Cadence]:
    """By channel; none without a file. Raises `YamlFileError`."""
    if path is None:
        return {}
    said = yaml_file.read(path, _FILE)
    return {channel: expected.cadence() for channel, expected in said.items()}

"""A site's PeopleSoft dialect from a YAML file.

::

    records: {ZZ_ENRL_VW: STDNT_ENRL}            # record in the message: delivered record
    fields: {STDNT_ENRL: {STUDENT_ID: EMPLID}}   # delivered record: {field in the message: delivered field}
    ignored_records: [ZZ_PARKING]                # beside the delivered ones that are ignored anyway
    auditor_grading_bases: [AUD]
    name_types: [PRF, PRI]
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator

from services.publisher import yaml_file
from services.publisher.translate.dialect import IGNORED_RECORDS, Dialect
from services.publisher.translate.records import PEOPLESOFT

Name = Annotated[str, Field(min_length=1, max_length=64)]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    records: dict[Name, Name] = Field(default_factory=dict)
    fields: dict[Name, dict[Name, Name]] = Field(default_factory=dict)
    ignored_records: list[Name] = Field(default_factory=list)
    auditor_grading_bases: list[Name] = Field(default_factory=lambda: ["AUD"])
    name_types: list[Name] = Field(default_factory=lambda: ["PRF", "PRI"])

    @field_validator("records")
    @classmethod
    def _lead_to_known_records(cls, records: dict[str, str]) -> dict[str, str]:
        _refuse_unknown(records.values())
        return records

    @field_validator("fields")
    @classmethod
    def _belong_to_known_records(cls, fields: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        _refuse_unknown(fields)
        return fields


_FILE = TypeAdapter(_File)


def read_dialect(path: Path | None) -> Dialect:
    """The dialect in `path`, the delivered names without one; raises `YamlFileError`."""
    if path is None:
        return Dialect()
    said = yaml_file.read(path, _FILE)
    return Dialect(
        records=said.records,
        fields=said.fields,
        ignored_records=IGNORED_RECORDS | frozenset(said.ignored_records),
        auditor_grading_bases=frozenset(said.auditor_grading_bases),
        name_types=tuple(said.name_types),
    )


def _refuse_unknown(records: Iterable[str]) -> None:
    unknown = sorted(set(records) - set(PEOPLESOFT))
    if unknown:
        raise ValueError(f"{', '.join(unknown)} is not one of {', '.join(PEOPLESOFT)}")

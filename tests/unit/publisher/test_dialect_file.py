"""The site's own names for PeopleSoft's records and fields."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from services.publisher.dialect_file import read_dialect
from services.publisher.translate.dialect import Dialect
from services.publisher.yaml_file import YamlFileError
from tests.unit.publisher.rowsets import CONTEXT, enrollment, read, record


def test_without_a_file_the_delivered_names_hold(tmp_path: Path) -> None:
    empty = tmp_path / "empty.yaml"
    empty.write_text("# nothing of our own\n")
    assert read_dialect(None) == read_dialect(empty) == Dialect()


def test_a_sites_names_are_read(tmp_path: Path) -> None:
    path = tmp_path / "dialect.yaml"
    path.write_text("""
        records: {ZZ_ENRL_VW: STDNT_ENRL}
        fields: {STDNT_ENRL: {STUDENT_ID: EMPLID}}
        ignored_records: [ZZ_PARKING]
        auditor_grading_bases: [ZAU]
    """)
    fields = enrollment(GRADING_BASIS_ENRL="ZAU")
    fields["STUDENT_ID"] = fields.pop("EMPLID")
    rows = [record("ZZ_ENRL_VW", fields), record("ZZ_PARKING", {"A": "1"}), record("ADDRESSES", {"A": "1"})]
    found = read(*rows, context=replace(CONTEXT, dialect=read_dialect(path)))
    assert found.rejects == []
    assert [(change.key["EMPLID"], change.columns["AUDITOR"]) for change in found.changes] == [("0090001", "Y")]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("records: {ZZ: STDNT_ENROL}", "records: .*STDNT_ENROL is not one of STDNT_ENRL"),
        ("fields: {ZZ: {A: B}}", "fields: .*ZZ is not one of"),
        ("record: {}", "record: Extra"),
        ("name_types: PRF", "name_types: .*list"),
        ("[", "no YAML"),
        ("5", "the whole"),
    ],
)
def test_a_file_that_cannot_be_meant_so_says_what_to_change(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "dialect.yaml"
    path.write_text(text)
    with pytest.raises(YamlFileError, match=complaint):
        read_dialect(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(YamlFileError, match="nowhere"):
        read_dialect(tmp_path / "nowhere")

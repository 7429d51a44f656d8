"""What differs between PeopleSoft sites: names of records and fields, and which records are none of our business."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_OF_PERSONS = """
ADDRESSES ADDRESS_TYP CITIZENSHIP DISABILITY DIVERSITY DIVERS_ETHNIC EMAIL_ADDRESSES EMERGENCY_CNTCT PERSONAL_PHONE
PERSON_IMAGE PERSON_SA PERS_DATA_EFFDT PERS_NID PERS_SMOKER VISA_PMT_DATA
"""
_OF_CLASSES = """
CLASS_ASSOC CLASS_ATTRIBUTE CLASS_CHRSTC CLASS_COMPONENT CLASS_EXAM CLASS_MTG_PAT CLASS_NOTES CLASS_RSRV_CAP SESSION_TBL
SESS_TIME_PEROD
"""
IGNORED_RECORDS = frozenset(_OF_PERSONS.split()) | frozenset(_OF_CLASSES.split())
"""Delivered records that travel with the ones we want and say nothing about membership; their fields never leave the parser."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """A site's names, as its messages spell them. Empty: the delivered names."""

    records: Mapping[str, str] = field(default_factory=dict)
    """Record in the message -> delivered record, for example ``ZZ_ENRL_VW`` -> ``STDNT_ENRL``."""
    fields: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Delivered record -> field in the message -> delivered field."""
    ignored_records: frozenset[str] = IGNORED_RECORDS
    """Records of the message that are dropped without a word; known records nested in them are still read."""
    auditor_grading_bases: frozenset[str] = frozenset({"AUD"})
    """Values of GRADING_BASIS_ENRL that mean: listens, without credit."""
    name_types: tuple[str, ...] = ("PRF", "PRI")
    """NAME_TYPE values to keep; which of them wins is the fold's decision."""

    def record(self, name: str) -> str:
        """The delivered name of a record in a message."""
        return self.records.get(name, name)

    def field_names(self, record: str) -> Mapping[str, str]:
        """Aliases of the fields of one delivered record."""
        return self.fields.get(record, {})

"""Identities survive any text, and owners share a partition."""

from __future__ import annotations

from itertools import pairwise

import confluent_kafka
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import keys
from schemas.topics import DEFAULT_PARTITIONS, PARTITIONER, Topics

ids = st.text()


@given(st.lists(ids, min_size=1, max_size=5))
def test_any_text_survives_in_a_key(parts: list[str]) -> None:
    assert keys.split(keys.join(*parts)) == tuple(parts)


@given(st.lists(ids, min_size=1, max_size=4), st.lists(ids, min_size=1, max_size=4))
def test_two_identities_never_share_a_key(one: list[str], other: list[str]) -> None:
    assert (keys.join(*one) == keys.join(*other)) == (one == other)


@given(ids, ids, ids, ids, ids)
def test_an_enrollment_key_gives_its_parts_back(tenant: str, institution: str, term: str, section: str, person: str) -> None:
    key = keys.enrollment_key(tenant, institution, term, section, person, "staff")
    assert key.parts == (institution, term, section, person, "staff")


def test_leading_zeros_and_slashes_are_part_of_an_id() -> None:
    assert keys.person_key("main", "0090001").key == "0090001"
    assert keys.course_key("main", "NORTH", "004711/1").key == "NORTH/004711%2F1"


@given(ids, ids, ids)
def test_a_person_and_all_their_enrollments_have_one_record_key(tenant: str, person: str, section: str) -> None:
    enrollment = keys.enrollment_key(tenant, "NORTH", "2267", section, person, "learner")
    assert keys.record_key(enrollment) == keys.record_key(keys.person_key(tenant, person))


def test_objects_are_keyed_by_tenant_and_object() -> None:
    assert keys.record_key(keys.section_key("main", "NORTH", "2267", "26191")) == b"main/NORTH/2267/26191"
    assert keys.record_key(keys.term_key("main", "NORTH", "2267")) == b"main/NORTH/2267"


@pytest.mark.parametrize(("key", "partition"), [(b"main/0090001", 3), (b"main/0090002", 0), (b"main/NORTH/2267/26191", 7)])
def test_the_partition_of_a_key_is_frozen(key: bytes, partition: int) -> None:
    """Java's murmur2. Another partitioner, or another count, would split a person's history over two partitions."""
    assert PARTITIONER == "murmur2_random"
    assert confluent_kafka.murmur2(key, DEFAULT_PARTITIONS) == partition


def test_java_clients_agree_on_the_partition() -> None:
    """The published example on which librdkafka's own default (CRC32) differs: kafkajs issue 1154."""
    assert confluent_kafka.murmur2(b"TT0124", 15) == 10


def test_topic_names_carry_prefix_kind_and_version() -> None:
    topics = Topics("cell1")
    assert topics.entity("enrollment") == "cell1.enrollment.v1"
    assert topics.dead_letter(topics.entity("person")) == "dlq.cell1.person.v1"
    assert topics.kind("cell1.section.v1") == "section"
    assert topics.kind("cell1.section.v2") is None
    assert topics.all()[topics.markers] == 1


def test_the_topics_of_two_prefixes_never_meet() -> None:
    assert not any(set(a.all()) & set(b.all()) for a, b in pairwise([Topics("one"), Topics("two"), Topics("three")]))


@given(ids, ids, ids, ids)
def test_an_enrollment_key_begins_with_its_sections(institution: str, term: str, section: str, person: str) -> None:
    key = keys.enrollment_key("main", institution, term, section, person, "learner")
    assert key.section == keys.section_key("main", institution, term, section).key

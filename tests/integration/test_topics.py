"""Topics as the services create them on a real Kafka: what is missing, with the settings that the records need."""

from __future__ import annotations

import uuid

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]  # exported without saying so

from schemas.topics import Topics
from services.kit.kafka import create_topics
from tests.conftest import real_kafka_settings

DAY = 24 * 3600 * 1000


@pytest.mark.kafka
def test_what_is_missing_is_created_and_what_exists_stays_as_it_is() -> None:
    kafka, names = real_kafka_settings(), Topics(f"t{uuid.uuid4().hex[:10]}")
    first, digests, markers = names.entity("enrollment"), names.digests, names.markers

    create_topics(kafka, {first: 2})
    create_topics(kafka, {first: 5, digests: 1, markers: 1})

    admin = AdminClient(kafka.client())
    known = admin.list_topics(timeout=10).topics
    assert [len(known[topic].partitions) for topic in (first, digests, markers)] == [2, 1, 1]
    asked = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in (first, digests, markers)]
    found = [answer.result(10) for answer in admin.describe_configs(asked).values()]
    assert [each["cleanup.policy"].value for each in found] == ["delete", "delete", "compact"]
    assert [int(each["retention.ms"].value) for each in found[:2]] == [30 * DAY, DAY]

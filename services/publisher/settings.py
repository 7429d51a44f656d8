"""What the publisher reads from its environment, once per process."""

from __future__ import annotations

from pathlib import Path
from typing import Self
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings

from schemas.topics import Topics


class Settings(BaseSettings):
    """All settings of the publisher except Kafka's (`services.kit.kafka.KafkaSettings`). Times are seconds."""

    database_url: SecretStr = Field(description="PostgreSQL of the mirror, a libpq URL; the schema `mirror` is created in it")
    topic_prefix: str = Field(default="enrollstream", pattern=r"^[A-Za-z0-9._-]+$", description="start of all topic names")
    create_topics: bool = Field(default=False, description="create missing topics at the start")
    topic_replication: int = Field(default=1, ge=1, description="copies of each topic that CREATE_TOPICS makes; 3 in production")
    tenant: str = Field(default="main", min_length=1, description="the SIS id space that PeopleSoft messages belong to")
    site_timezone: str = Field(default="UTC", description="time zone of the SIS, for dates and times without one")

    intake_credentials_file: Path = Field(description="who may deliver changes, one name:secret a line; re-read when it changes")
    operations_credentials_file: Path | None = Field(
        default=None, description="who may call the operations API, one name:secret a line; without it the API refuses everybody"
    )
    quarantine_key_file: Path | None = Field(
        default=None, description="Fernet key for unparseable bodies in quarantine; without it only their digest is kept"
    )
    peoplesoft_dialect_file: Path | None = Field(
        default=None,
        description="YAML with the site's own names for PeopleSoft records and fields; the delivered names without it",
    )

    source_cadence_file: Path | None = Field(
        default=None, description="YAML with how often each channel delivers, and when; without it no silence is told"
    )
    person_logins: bool = Field(
        default=False, description="take what people sign in with from POST /intake/events and pass it on; refused otherwise"
    )
    person_emails: bool = Field(default=False, description="the same for their e-mail addresses")

    max_body_bytes: int = Field(default=5 * 1024 * 1024, ge=1024, description="longest request body")
    body_timeout_seconds: float = Field(default=5, gt=0, description="a body has to arrive within this time")
    answer_within_seconds: float = Field(default=8, gt=0, description="a change that is not safe by then is answered 503")
    delivery_timeout_seconds: float = Field(
        default=6, gt=0, description="how long one attempt to hand an event to Kafka may take; below ANSWER_WITHIN_SECONDS"
    )
    max_snapshot_bytes: int = Field(
        default=512 * 1024 * 1024, ge=1024, description="longest full extract; kept on disk meanwhile"
    )
    max_snapshots_bytes: int = Field(
        default=2 * 1024 * 1024 * 1024,
        ge=1024,
        description="bytes of all full extracts on disk at once; beyond, the answer is 503; at least MAX_SNAPSHOT_BYTES",
    )
    snapshot_timeout_seconds: float = Field(default=600, gt=0, description="a full extract has to arrive within this time")
    snapshot_max_absent_percent: float = Field(
        default=10,
        ge=0,
        le=100,
        description="what extracts may remove of a scope within 36 hours; one that would remove more waits for a person",
    )
    max_waiting_rows: int = Field(
        default=20_000, ge=1, description="source rows that may wait for a transaction; beyond, the answer is 503"
    )
    max_requests: int = Field(default=1_000, ge=1, description="deliveries in hand at once; beyond, the answer is 503")
    max_bodies_bytes: int = Field(
        default=64 * 1024 * 1024,
        ge=1024,
        description="bytes of all bodies in hand at once; beyond, the answer is 503; at least MAX_BODY_BYTES",
    )
    max_unpublished_events: int = Field(
        default=20_000, ge=1, description="events that may wait for Kafka; beyond, the answer is 503 until it has taken them"
    )
    outbox_sweep_after_seconds: float = Field(
        default=2, gt=0, description="an event that Kafka has not acknowledged for so long is sent again"
    )
    republish_per_second: int = Field(default=500, ge=1, description="most events a second that a republish emits")
    digest_interval_seconds: float = Field(
        default=3600, gt=0, description="how often the ledgers are told what the mirror holds, so that either finds what it lost"
    )
    digest_settled_seconds: float = Field(
        default=300, ge=0, description="versions that are older than this are all in the mirror, or lost; shorter for tests only"
    )
    returns_group_id: str = Field(
        default="enrollstream-mirror", min_length=1, description="Kafka consumer group that reads what ledgers return"
    )

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8080, ge=0, le=65535, description="port to listen on")
    log_level: str = Field(
        default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="least severe level that is logged"
    )

    @field_validator("site_timezone")
    @classmethod
    def _zone_exists(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, OSError, ValueError) as error:
            raise ValueError("SITE_TIMEZONE must be a name like America/New_York") from error
        return name

    @model_validator(mode="after")
    def _kafka_gives_up_before_we_answer(self) -> Self:
        if self.delivery_timeout_seconds >= self.answer_within_seconds:
            raise ValueError(
                "DELIVERY_TIMEOUT_SECONDS must be below ANSWER_WITHIN_SECONDS: the source has to hear that Kafka gave up"
            )
        return self

    @model_validator(mode="after")
    def _one_body_fits(self) -> Self:
        if self.max_bodies_bytes < self.max_body_bytes:
            raise ValueError("MAX_BODIES_BYTES must be at least MAX_BODY_BYTES: otherwise the longest body is never taken")
        return self

    @model_validator(mode="after")
    def _one_extract_fits(self) -> Self:
        if self.max_snapshots_bytes < self.max_snapshot_bytes:
            raise ValueError(
                "MAX_SNAPSHOTS_BYTES must be at least MAX_SNAPSHOT_BYTES: otherwise the longest extract is never taken"
            )
        return self

    @property
    def personal(self) -> frozenset[str]:
        """Which members with more than a name are taken of a person."""
        return frozenset(name for name, taken in (("login", self.person_logins), ("email", self.person_emails)) if taken)

    @property
    def topics(self) -> Topics:
        """Names of the topics under the prefix."""
        return Topics(self.topic_prefix)

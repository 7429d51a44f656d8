"""What the consumer reads from its environment, once per process."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings

from schemas.topics import Topics
from services.consumer.ledger.dead_letters import Timer, Timers


class LedgerSettings(BaseSettings):
    """What deciding needs; enough for the commands that work on the ledger alone."""

    database_url: SecretStr = Field(description="PostgreSQL of the ledger, a libpq URL; the schema `ledger` is created in it")
    tenant: str = Field(default="main", min_length=1, description="the SIS id space that this consumer's policy decides for")
    target: str = Field(default="canvas", pattern=r"^[a-z0-9_-]+$", description="name of the LMS account in tables and metrics")
    swap_settle_seconds: float = Field(default=3, ge=0, description="a removal waits so long for the add of a swap")
    log_level: str = Field(
        default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="least severe level that is logged"
    )


class Settings(LedgerSettings):
    """All settings of the consumer except Kafka's (`services.kit.kafka.KafkaSettings`). Times are seconds."""

    topic_prefix: str = Field(default="enrollstream", pattern=r"^[A-Za-z0-9._-]+$", description="start of all topic names")
    group_id: str = Field(default="enrollstream", min_length=1, description="Kafka consumer group of the intake")

    canvas_url: str = Field(pattern=r"^https?://", description="origin of Canvas, for example https://canvas.example.edu")
    canvas_token_file: Path = Field(description="file with the API token on one line; re-read when it changes")
    canvas_account: str = Field(default="self", description="Canvas account whose roles are used, and in which courses are made")
    policy_file: Path | None = Field(
        default=None,
        description="registrar's policy for the first start; the packaged one when absent. Later: `policy apply FILE`",
    )
    operations_credentials_file: Path | None = Field(
        default=None, description="who may call the operations API, one name:secret a line; without it the API refuses everybody"
    )

    lease_seconds: float = Field(default=15, gt=0, description="a driver that is silent for so long may be replaced")
    lease_renew_seconds: float = Field(default=5, gt=0, description="how often the driver renews its lease")
    call_timeout_seconds: float = Field(default=8, gt=0, description="longest call to the LMS; below lease minus renewal")
    late_bound_seconds: float = Field(default=60, ge=0, description="a call of unknown outcome may still land for so long")
    replica_lag_seconds: float = Field(default=5, ge=0, description="the LMS may answer reads from a copy that is so old")
    max_in_flight: int = Field(default=10, ge=1, le=500, description="calls to the LMS at the same time")
    rate_limit_reserve: float = Field(
        default=100, ge=0, le=500, description="left of the LMS's request quota for other tools that use the same token"
    )
    rate_limit_reserve_percent: float = Field(
        default=0, ge=0, le=80, description="the same as a share of the quota; the larger of the two is left"
    )
    release_concluded_seconds: float = Field(
        default=86_400, gt=0, description="a seat that a concluded course refuses is tried again after this, as long as it takes"
    )
    release_refused_seconds: float = Field(
        default=21_600, gt=0, description="a seat that the LMS refuses for another reason is tried again after this"
    )
    release_refused_times: int = Field(default=4, ge=0, description="so often for one decision; then it is left to a person")
    release_mismatch_seconds: float = Field(
        default=86_400, gt=0, description="a seat for which the LMS answers about somebody else is tried again after this"
    )
    release_mismatch_times: int = Field(default=2, ge=0, description="so often for one decision; then it is left to a person")
    start_in_shadow: bool = Field(
        default=False, description="at the very first start: decide everything, apply nothing, until a term is switched live"
    )
    compare_every_hours: float = Field(
        default=24, ge=0, description="how often the rosters of all sections are compared with the ledger; 0: only when asked"
    )
    history_months: int = Field(
        default=24,
        ge=0,
        description="whole months of history that are kept before the current one; traces and undos know nothing older; 0: all",
    )
    max_replay_records: int = Field(default=250_000, ge=1, description="most offsets or seats of one replay")
    replay_seats_per_second: int = Field(
        default=50, ge=1, le=10_000, description="most seats a second that all replays together open again"
    )

    ledger_timeout_seconds: float = Field(default=10, gt=0, description="longest statement of the intake; then it tries again")
    offset_check_seconds: float = Field(
        default=5, gt=0, description="how often an idle intake compares its offsets with the ledger"
    )
    log_check_seconds: float = Field(
        default=30, gt=0, description="how often the intake asks whether its topics are still the same ones, and as long"
    )
    dead_letter_limit: int = Field(
        default=100,
        ge=1,
        description="the intake stops when more of a partition's last records than this, and more than DEAD_LETTER_SHARE of"
        " them, cannot be used",
    )
    dead_letter_window: int = Field(default=1000, ge=1, description="so many records of a partition are looked back at for it")
    dead_letter_share: float = Field(default=0.2, ge=0, lt=1, description="see DEAD_LETTER_LIMIT")
    digest_repairs_per_second: int = Field(
        default=200, ge=1, description="most entities a second that the publisher is told of because a digest differs"
    )
    digest_tell_again_seconds: float = Field(
        default=300, gt=0, description="a difference that is still there is told again, in a later round, after this"
    )
    stop_seconds: float = Field(default=15, gt=0, description="after SIGTERM the process ends within this time")

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8081, ge=0, le=65535, description="port to listen on")
    log_level: str = Field(
        default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="least severe level that is logged"
    )

    @model_validator(mode="after")
    def _calls_end_before_the_lease(self) -> Self:
        if self.call_timeout_seconds >= self.lease_seconds - self.lease_renew_seconds:
            raise ValueError(
                "CALL_TIMEOUT_SECONDS must be below LEASE_SECONDS - LEASE_RENEW_SECONDS: a call has to end while its lease holds"
            )
        return self

    @property
    def release_timers(self) -> Timers:
        """When dead letters are tried again by themselves."""
        refused = Timer(self.release_refused_seconds, self.release_refused_times)
        of_outcome = {
            "concluded": Timer(self.release_concluded_seconds, None),
            "refused": refused,
            "identity_mismatch": Timer(self.release_mismatch_seconds, self.release_mismatch_times),
        }
        return Timers(of_outcome, otherwise=refused)

    @property
    def topics(self) -> Topics:
        """Names of the topics under the prefix."""
        return Topics(self.topic_prefix)

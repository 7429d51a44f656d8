"""What the driver has to be told; `services.consumer.settings.Settings` fits, and so does a small object in a test."""

from __future__ import annotations

from typing import Protocol


class DriveSettings(Protocol):
    """Times are seconds; see the consumer's settings for what each means."""

    @property
    def lease_seconds(self) -> float: ...
    @property
    def lease_renew_seconds(self) -> float: ...
    @property
    def call_timeout_seconds(self) -> float: ...
    @property
    def late_bound_seconds(self) -> float: ...
    @property
    def replica_lag_seconds(self) -> float: ...
    @property
    def max_in_flight(self) -> int: ...
    @property
    def rate_limit_reserve(self) -> float: ...
    @property
    def rate_limit_reserve_percent(self) -> float: ...
    @property
    def compare_every_hours(self) -> float: ...
    @property
    def stop_seconds(self) -> float: ...


def send_window_seconds(settings: DriveSettings) -> float:
    """How long an intent may wait before its call is sent. Window and call together end while the lease still holds, even when
    the intent is written just before a renewal; half of the slack is left for a renewal that comes late."""
    slack = settings.lease_seconds - settings.lease_renew_seconds - settings.call_timeout_seconds
    return min(1.0, slack / 2)


def suspect_seconds(settings: DriveSettings) -> float:
    """How long a seat stays suspect after a call of unknown outcome: the call may land late, and reads may lag behind it."""
    return settings.late_bound_seconds + settings.replica_lag_seconds

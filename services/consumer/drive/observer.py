"""What the driver tells about itself; the loop stays free of metrics."""

from __future__ import annotations

from typing import Protocol

from prometheus_client import Counter, Histogram

from services.consumer.guard.reviewing import Review
from services.consumer.metrics import Metrics
from services.consumer.nouns import Effect
from services.consumer.rosters.comparing import Comparison
from services.consumer.targets.port import Usage


class Observer(Protocol):
    """Called from the event loop; must not block."""

    def called(self, endpoint: str, outcome: str, seconds: float, usage: Usage | None) -> None:
        """One operation of the target has ended."""

    def confirmed(self, effect: Effect, age_seconds: float) -> None:
        """The LMS confirmed a decision for the first time; `age_seconds` since the publisher accepted the change."""

    def died(self, reason: str) -> None:
        """A seat became a dead letter."""

    def lease(self, *, held: bool) -> None:
        """This process took or lost the target."""

    def guarded(self, review: Review) -> None:
        """The guard judged the removals that waited."""

    def guard_failed(self) -> None:
        """It could not, for a defect of ours."""

    def roster_read(self, comparison: Comparison) -> None:
        """A section's roster was compared with the ledger."""

    def compared(self) -> None:
        """A comparison came to its end."""

    def rosters_failed(self) -> None:
        """Rosters could not be read or compared, for a defect of ours."""


class MetricsObserver:
    """`Observer` that feeds the consumer's metrics."""

    def __init__(self, metrics: Metrics, target: str) -> None:
        self._metrics = metrics
        self._target = target
        # Finding a child by its labels costs more than counting in it.
        self._calls: dict[tuple[str, str], Counter] = {}
        self._call_seconds: dict[str, Histogram] = {}
        self._freshness: dict[Effect, Histogram] = {}
        self._remaining = metrics.rate_limit_remaining.labels(target)

    def called(self, endpoint: str, outcome: str, seconds: float, usage: Usage | None) -> None:
        """Counter, duration and what the token has left."""
        if (endpoint, outcome) not in self._calls:
            self._calls[endpoint, outcome] = self._metrics.calls.labels(self._target, endpoint, outcome)
        self._calls[endpoint, outcome].inc()
        if endpoint not in self._call_seconds:
            self._call_seconds[endpoint] = self._metrics.call_seconds.labels(self._target, endpoint)
        self._call_seconds[endpoint].observe(seconds)
        if usage is not None and usage.remaining is not None:
            self._remaining.set(usage.remaining)

    def confirmed(self, effect: Effect, age_seconds: float) -> None:
        """Freshness; clocks of two machines may differ, an age is never negative."""
        if effect not in self._freshness:
            self._freshness[effect] = self._metrics.freshness.labels(effect)
        self._freshness[effect].observe(max(0.0, age_seconds))

    def died(self, reason: str) -> None:
        """Dead letters by reason class."""
        self._metrics.dead.labels(reason).inc()

    def lease(self, *, held: bool) -> None:
        """1 while we drive."""
        self._metrics.lease_held.labels(self._target).set(held)

    def guarded(self, review: Review) -> None:
        """Removals by what became of them, and holds by their scope."""
        for how, count in review.passed.items():
            self._metrics.removals.labels(self._target, how).inc(count)
        if review.held:
            self._metrics.removals.labels(self._target, "held").inc(review.held)
        for scope in review.opened:
            self._metrics.holds_opened.labels(self._target, scope).inc()

    def guard_failed(self) -> None:
        """Removals wait meanwhile."""
        self._metrics.guard_failures.labels(self._target).inc()

    def roster_read(self, comparison: Comparison) -> None:
        """Rosters, and what differed in them."""
        self._metrics.rosters_read.labels(self._target).inc()
        for difference in comparison.differences:
            self._metrics.roster_differences.labels(self._target, difference.kind).inc()

    def compared(self) -> None:
        """When everything that was asked for was compared."""
        self._metrics.compared_at.labels(self._target).set_to_current_time()

    def rosters_failed(self) -> None:
        """The comparison stands still meanwhile."""
        self._metrics.roster_failures.labels(self._target).inc()

"""The request throttle: one leaky bucket per access token (``app/middleware/request_throttle.rb``, ``increment_bucket.lua``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class ThrottleSettings:
    """Upstream's defaults; hosted installations publish `high_water_mark` 700 and `refusal_status` 429."""

    enabled: bool = True
    """Off: nothing is refused, but the bucket and the headers work as before."""
    maximum: float = 800.0
    high_water_mark: float = 600.0
    outflow: float = 10.0
    """Leaks so much a second."""
    up_front_cost: float = 50.0
    """Held by each request while it is in flight."""
    refusal_status: int = 403
    """403 or 429; both exist."""
    cost: float = 0.15
    """CPU plus database seconds that a request is charged with."""
    cost_by_endpoint: dict[str, float] = field(default_factory=dict)
    approved: list[str] = field(default_factory=list)
    """Aliases of tokens that are never refused."""
    blocked: list[str] = field(default_factory=list)
    """Aliases of tokens that are always refused, also where throttling is off."""


@dataclass(slots=True)
class Bucket:
    """The count leaks before an amount is added, so what is added now never leaks at once; both ends are clamped after that.

    A leak larger than a small rest therefore also eats into the amount, exactly as the Lua script does (decision 0050).
    """

    settings: ThrottleSettings
    count: float = 0.0
    last_touched: float = 0.0

    def increment(self, amount: float, now: float) -> None:
        leak = self.settings.outflow * max(now - self.last_touched, 0.0) if self.count > 0 else 0.0
        self.count = max(min(self.count - leak + amount, self.settings.maximum), 0.0)
        self.last_touched = now

    @property
    def full(self) -> bool:
        return self.count >= self.settings.high_water_mark

    @property
    def remaining(self) -> float:
        """May be negative: the count reaches up to the maximum."""
        return self.settings.high_water_mark - self.count


class Reservation:
    """One request's place in the bucket, from `Throttle.enter` until `leave`."""

    def __init__(self, bucket: Bucket, now: float) -> None:
        self._bucket = bucket
        self._held = bucket.settings.up_front_cost
        bucket.increment(self._held, now)
        self.refused = bucket.full and bucket.settings.enabled
        self.blocked = False

    def leave(self, cost: float, now: float) -> dict[str, str]:
        """Give the reservation back, charge `cost`, and return the headers.

        A refused request has no ``X-Request-Cost``, and its remaining is the current one, not zero; only who is on the block-list
        reads zero.
        """
        charged = 0.0 if self.refused else max(cost, 0.0)
        self._bucket.increment(charged - self._held, now)
        headers = {"X-Rate-Limit-Remaining": "0.0" if self.blocked else str(self._bucket.remaining)}
        return headers if self.refused else {"X-Request-Cost": str(charged)} | headers


class Throttle:
    """Buckets by client identifier; time is passed in."""

    def __init__(self, settings: ThrottleSettings, monotonic: Callable[[], float]) -> None:
        self.settings = settings
        self._monotonic = monotonic
        self._buckets: dict[bytes, Bucket] = {}

    def bucket(self, client: bytes) -> Bucket:
        """The bucket of one client, new ones empty."""
        if client not in self._buckets:
            self._buckets[client] = Bucket(self.settings, 0.0, self._monotonic())
        return self._buckets[client]

    def enter(self, client: bytes, alias: str = "") -> Reservation:
        """Reserve the up-front cost; look at `Reservation.refused` before doing the work."""
        reservation = Reservation(self.bucket(client), self._monotonic())
        if alias in self.settings.approved:
            reservation.refused = False
        elif alias in self.settings.blocked:
            reservation.refused = reservation.blocked = True
        return reservation

    def leave(self, reservation: Reservation, endpoint: str) -> dict[str, str]:
        """End a request, with the cost that is set for its endpoint."""
        cost = self.settings.cost_by_endpoint.get(endpoint, self.settings.cost)
        return reservation.leave(cost, self._monotonic())

    def refusal(self) -> tuple[int, str]:
        """Status and text body of a refusal."""
        status = self.settings.refusal_status
        phrase = "Too Many Requests" if status == 429 else "Forbidden"
        return status, f"{status} {phrase} (Rate Limit Exceeded)\n"

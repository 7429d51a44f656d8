"""When a seat, a probe or a token tries again. Pure: the random number is passed in."""

from __future__ import annotations

from typing import NamedTuple


class Backoff(NamedTuple):
    """Grows by `factor` from `first_seconds` to `cap_seconds`, less up to half of it, so that seats that failed together do
    not come back together."""

    first_seconds: float
    factor: float
    cap_seconds: float

    def delay(self, attempts: int, random: float) -> float:
        """Seconds to wait after the given number of failures in a row (1 for the first); `random` is in [0, 1)."""
        # Past 64 doublings every backoff is at its cap; the bound keeps the power from overflowing.
        full = min(self.cap_seconds, self.first_seconds * self.factor ** min(max(attempts - 1, 0), 64))
        return full * (1 - random / 2)


FAULT = Backoff(first_seconds=0.5, factor=2, cap_seconds=60)
"""A seat whose call failed at the LMS."""
PERMISSION = Backoff(first_seconds=30, factor=2, cap_seconds=900)
"""A seat that the token may not touch: somebody has to grant it, so asking often is noise."""
PROBE = Backoff(first_seconds=1, factor=1.5, cap_seconds=900)
"""A missing object: usually it appears within seconds (its feed is on the way) or not today."""
TOKEN = Backoff(first_seconds=1, factor=2, cap_seconds=30)
"""A whole token that is refused, revoked, or whose LMS is down."""
WAIT_TIMER_SECONDS = 300.0
"""A waiting seat is looked at after this time, and again when twice the time has passed, should its waking have been lost."""
WAIT_TIMER_CAP_SECONDS = 6 * 3600.0

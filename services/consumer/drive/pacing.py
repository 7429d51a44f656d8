"""How fast a token may call: the LMS's leaky bucket as its headers show it, and one gate for all calls of the token.

The bucket refuses a call when ``count + held >= capacity``; each call in flight holds a fixed amount until its real cost is
known, and the count leaks at a fixed rate (Canvas: ``app/middleware/request_throttle.rb``). The header says capacity - count
at the end of a call, so what our *other* calls held at that moment is subtracted in it already. How many those were, nobody
tells: of the calls in flight some had not arrived yet, and some had ended. So the bucket is kept in step by what our calls
cost and by the leak, and a header bounds it from both sides.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from services.consumer.drive.backoff import TOKEN
from services.consumer.targets.port import Usage

Clock = Callable[[], float]
"""Monotonic seconds."""
Random = Callable[[], float]
_LEARN_AFTER_CALLS = 200
"""So many calls without a refusal before one more may be in flight than the last refusal left."""
_OLD_NEWS_SECONDS = 10.0
"""Since the last answer; by then other tools may have used any part of the bucket."""
_FAILING_SEATS = 5
"""So many different seats failing with no success in between means that the LMS is down, not that the seats are bad."""


class Rates(NamedTuple):
    """The LMS's constants; Canvas's published defaults."""

    held_per_call: float = 50
    leak_per_second: float = 10
    capacity: float = 600


class Bucket:
    """An estimate of what the token has left. Pure arithmetic; the time is passed in."""

    def __init__(self, reserve: float, rates: Rates = Rates(), *, reserve_percent: float = 0) -> None:  # noqa: B008  (a tuple)
        """`reserve`, or `reserve_percent` of the largest bucket seen if that is more, is left for other tools that use the same
        token."""
        self._rates = rates
        self._least_reserve = reserve
        self._reserve_share = reserve_percent / 100
        self._free: float | None = None
        """Left if none of our calls were in flight; None while the LMS never said."""
        self._at = 0.0
        self._most = rates.capacity

    @property
    def _reserve(self) -> float:
        return max(self._least_reserve, self._reserve_share * self._most)

    def observe(self, remaining: float, others_in_flight: int, now: float, cost: float = 0.0) -> None:
        """Learn from the header of an answer to a call that cost so much. What other tools used shows as soon as it is more than
        our other calls can have held."""
        most = remaining + self._rates.held_per_call * others_in_flight
        known = remaining if self._free is None else self._left(self._free, now) - cost
        self._free = max(remaining, min(known, most))
        self._at = now
        self._most = max(self._most, remaining)

    def _left(self, free: float, now: float) -> float:
        return min(self._most, free + self._rates.leak_per_second * (now - self._at))

    def is_old_news(self, now: float) -> bool:
        """Whether other tools may have emptied the bucket since we heard of it."""
        return self._free is not None and now - self._at > _OLD_NEWS_SECONDS

    def slots(self, now: float) -> int | None:
        """How many calls may be in flight at once; None when the LMS sets no limit that we know of."""
        if self._free is None:
            return None
        # Strictly above: a bucket that is exactly full refuses.
        return max(0, int((self._left(self._free, now) - self._reserve - 1e-6) // self._rates.held_per_call))

    def wait_for(self, slots: int, now: float) -> float:
        """Seconds until `slots` calls may be in flight, by the leak alone."""
        if self._free is None:
            return 0.0
        missing = self._rates.held_per_call * slots + self._reserve + 1e-3 - self._free
        return max(0.0, missing / self._rates.leak_per_second - (now - self._at))


class Gate:
    """Lets calls through, first come first served, while the bucket, the limit and no pause forbid it. One per token."""

    def __init__(self, max_in_flight: int, bucket: Bucket, clock: Clock, random: Random) -> None:
        self._max = max_in_flight
        self._ceiling = max_in_flight
        """What refusals have taught: halved by one, raised again by long stretches without."""
        self._unrefused = 0
        self._bucket = bucket
        self._clock = clock
        self._random = random
        self._in_flight = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._paused_until = float("-inf")
        self._setbacks = 0
        """Pauses since the last success."""
        self._trying = True
        """At first and after a pause one call goes alone, until one succeeds."""
        self._failing: set[str] = set()

    @property
    def pause_left(self) -> float:
        """Seconds until anything may be sent again; 0 when not paused."""
        return max(0.0, self._paused_until - self._clock())

    def capacity(self) -> int:
        """How many calls may be in flight now."""
        now = self._clock()
        if now < self._paused_until:
            return 0
        slots = self._bucket.slots(now)
        limit = self._limit(now)
        return limit if slots is None else min(limit, slots)

    def _limit(self, now: float) -> int:
        """Whatever the bucket has left: while nobody knows what that is, one call goes ahead and asks."""
        return 1 if self._trying or self._bucket.is_old_news(now) else self._ceiling

    def enter_at_once(self) -> bool:
        """Take a slot if nobody has to be waited for."""
        free = not self._waiters and self._in_flight < self.capacity()
        self._in_flight += free
        return free

    async def enter(self) -> None:
        """Wait for a slot."""
        if self.enter_at_once():
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._pump()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Give the slot back, after what its call taught was told: a refusal must be known before the next one goes."""
        self._in_flight -= 1
        self._pump()

    def observe(self, usage: Usage) -> None:
        """Learn what the token has left, before leaving."""
        if usage.remaining is not None:
            self._bucket.observe(usage.remaining, self._in_flight - 1, self._clock(), usage.cost or 0.0)

    def succeeded(self) -> None:
        """The LMS works and the token is good."""
        self._failing.clear()
        self._setbacks = 0
        self._trying = False
        self._unrefused += 1
        if self._ceiling < self._max and self._unrefused >= _LEARN_AFTER_CALLS:
            self._ceiling += 1
            self._unrefused = 0

    def throttled(self) -> None:
        """Refused: the whole token waits until the bucket has leaked enough for one call, with jitter. An LMS that does not say
        what is left gets half as many calls at once from now on; what was sent together with the refused call may be refused
        as well, and teaches nothing more."""
        if self.pause_left == 0 and self._bucket.slots(self._clock()) is None:
            self._ceiling = max(1, self._ceiling // 2)
        self._unrefused = 0
        wait = max(1.0, self._bucket.wait_for(1, self._clock()))
        self._setbacks += 1
        repeated = TOKEN.delay(self._setbacks, 0) if self._setbacks > 1 else 0.0
        self._pause(max(wait, repeated) * (1 + self._random() / 4))

    def denied(self) -> None:
        """The token itself is refused: nobody calls for a while."""
        self._setbacks += 1
        self._pause(5 * TOKEN.delay(self._setbacks, self._random()))

    def failed(self, seat: str) -> None:
        """The LMS failed on this seat. Pauses only when many different seats fail in a row."""
        self._failing.add(seat)
        if len(self._failing) >= _FAILING_SEATS and self.pause_left == 0:
            self._setbacks += 1
            self._pause(min(15.0, TOKEN.delay(self._setbacks, self._random())))

    def _pause(self, seconds: float) -> None:
        self._paused_until = max(self._paused_until, self._clock() + seconds)
        self._trying = True
        self._pump()

    def _pump(self) -> None:
        """Let waiters through while there is room; if some are left and no call that ends will do it, set a timer."""
        while self._waiters and self._in_flight < self.capacity():
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._in_flight += 1
                waiter.set_result(None)
        now = self._clock()
        if self._waiters and self._timer is None and self._in_flight < self._limit(now):
            wait = max(self.pause_left, self._bucket.wait_for(self._in_flight + 1, now), 0.001)
            self._timer = asyncio.get_running_loop().call_later(min(wait, 1.0), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._pump()

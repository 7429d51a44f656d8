"""The arithmetic of the rate limit, with the numbers that Canvas publishes, and the gate over it."""

from __future__ import annotations

import asyncio

import pytest

from services.consumer.drive.pacing import Bucket, Gate
from services.consumer.targets.port import Usage
from services.sandbox.canvas.throttle import Reservation, Throttle, ThrottleSettings


class Clock:
    """Monotonic seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def fresh_gate(clock: Clock, *, max_in_flight: int = 50, reserve: float = 0.0) -> Gate:
    return Gate(max_in_flight, Bucket(reserve), clock, lambda: 0.0)


def gate(clock: Clock, *, max_in_flight: int = 50) -> Gate:
    """One that had its first answer, without a header."""
    it = fresh_gate(clock, max_in_flight=max_in_flight)
    it.succeeded()
    return it


def test_without_a_header_there_is_no_limit_to_know() -> None:
    assert Bucket(0).slots(0) is None


def test_an_idle_bucket_of_600_carries_eleven_calls() -> None:
    """The twelfth simultaneous request is refused: 12 x 50 = 600."""
    bucket = Bucket(0)
    bucket.observe(600, 0, now=0)
    assert bucket.slots(0) == 11


def test_after_30_seconds_from_full_the_count_is_300_and_five_calls_fit() -> None:
    bucket = Bucket(0)
    bucket.observe(0, 0, now=0)
    assert bucket.slots(30) == 5


def test_the_reserve_is_left_to_other_tools() -> None:
    bucket = Bucket(reserve=100)
    bucket.observe(600, 0, now=0)
    assert bucket.slots(0) == 9


@pytest.mark.parametrize(("reserve", "percent", "slots"), [(0, 0, 11), (100, 10, 9), (0, 50, 5), (100, 50, 5)])
def test_the_reserve_is_an_amount_or_a_share_of_the_bucket_whichever_is_more(reserve: float, percent: float, slots: int) -> None:
    bucket = Bucket(reserve, reserve_percent=percent)
    bucket.observe(600, 0, now=0)
    assert bucket.slots(0) == slots


def test_a_share_grows_with_a_bucket_that_turns_out_larger() -> None:
    bucket = Bucket(0, reserve_percent=50)
    bucket.observe(1200, 0, now=0)
    assert bucket.slots(0) == 11


def test_what_our_other_calls_hold_is_not_counted_twice() -> None:
    """The header was taken while four others of ours held 50 each."""
    bucket = Bucket(0)
    bucket.observe(600, 0, now=0)
    bucket.observe(400, 4, now=0)
    assert bucket.slots(0) == 11


def test_what_a_header_is_silent_of_is_not_room() -> None:
    """Five calls ended together. As their answers are read new calls go, of which the answers still unread know nothing: they
    say 600 less their own, and 50 for each of them would make a larger bucket of it with every answer."""
    bucket = Bucket(0)
    bucket.observe(599, 0, now=0, cost=1)
    for answer, others in enumerate([4, 5, 6, 7, 8], start=1):
        bucket.observe(599 - answer - 50 * (5 - answer), others, now=0, cost=1)
    assert bucket.slots(0) == 11


def test_what_other_tools_use_is_seen_though_our_own_calls_hide_some_of_it() -> None:
    bucket = Bucket(0)
    bucket.observe(600, 0, now=0)
    bucket.observe(150, 4, now=0)
    assert bucket.slots(0) == 6


def test_the_count_is_kept_by_what_our_calls_cost_and_by_the_leak() -> None:
    bucket = Bucket(0)
    bucket.observe(600, 0, now=0)
    for _ in range(10):
        bucket.observe(100, 20, now=0, cost=20)  # the header leaves everything from 100 to 1100 open
    assert bucket.slots(0) == 7
    assert bucket.slots(5.1) == 9


def test_the_wait_for_a_slot_is_what_the_leak_needs() -> None:
    """A refusal may carry any remaining: max(1, (50 x slots - remaining) / 10)."""
    bucket = Bucket(0)
    bucket.observe(13.67, 0, now=0)
    assert bucket.wait_for(1, now=0) == pytest.approx((50 - 13.67) / 10, abs=0.01)
    assert bucket.wait_for(1, now=2) == pytest.approx((50 - 13.67) / 10 - 2, abs=0.01)
    assert bucket.slots(3.6) == 0
    assert bucket.slots(3.7) == 1


def test_a_negative_remaining_is_waited_out() -> None:
    bucket = Bucket(0)
    bucket.observe(-200, 0, now=0)
    assert bucket.wait_for(1, now=0) == pytest.approx(25, abs=0.01)


def test_waiting_always_ends_in_a_slot() -> None:
    """Also when the first header ever seen came from a bucket that others had filled."""
    bucket = Bucket(reserve=100)
    bucket.observe(20, 0, now=0)
    assert (bucket.slots(bucket.wait_for(1, now=0)) or 0) >= 1


async def test_before_the_first_answer_one_call_goes_alone() -> None:
    """Other tools may have filled the bucket, and a refusal would cost all of them a pause."""
    it = fresh_gate(Clock())
    assert it.enter_at_once()
    assert not it.enter_at_once()
    it.observe(Usage(1, 1, 599))
    it.succeeded()
    it.leave()
    assert it.capacity() == 11


async def test_what_was_heard_long_ago_is_asked_again_by_one_call() -> None:
    clock = Clock()
    it = gate(clock)
    it.observe(Usage(1, 1, 599))
    clock.now += 9
    assert it.capacity() == 11
    clock.now += 2
    assert it.capacity() == 1
    assert it.enter_at_once()
    it.observe(Usage(1, 1, 149))
    it.succeeded()
    it.leave()
    assert it.capacity() == 2


async def test_the_gate_lets_no_more_through_than_the_limit() -> None:
    it = gate(Clock(), max_in_flight=2)
    await it.enter()
    await it.enter()
    third = asyncio.create_task(it.enter())
    await asyncio.sleep(0)
    assert not third.done()
    it.leave()
    await third


async def test_a_refusal_stops_the_whole_token_until_the_bucket_has_room() -> None:
    clock = Clock()
    it = gate(clock)
    await it.enter()
    it.observe(Usage(1, None, -50))
    it.throttled()
    it.leave()
    assert it.capacity() == 0
    assert it.pause_left == pytest.approx(10, abs=0.01)
    clock.now += 10.1
    assert it.capacity() == 1


async def test_after_a_pause_one_call_goes_alone_until_one_succeeds() -> None:
    clock = Clock()
    it = gate(clock)
    it.denied()
    assert it.capacity() == 0
    clock.now += 1000
    assert it.capacity() == 1
    it.succeeded()
    assert it.capacity() == 50


async def test_repeated_refusals_without_a_header_wait_longer_each_time() -> None:
    clock = Clock()
    it = gate(clock)
    waits = []
    for _ in range(4):
        it.throttled()
        waits.append(round(it.pause_left, 2))
        clock.now += 100
    assert waits == [1, 2, 4, 8]


def test_an_lms_without_headers_gets_half_as_many_calls_after_a_refusal_and_slowly_more_again() -> None:
    clock = Clock()
    it = gate(clock, max_in_flight=40)
    for _ in range(5):  # sent together, refused together
        it.throttled()
    clock.now += 100
    it.succeeded()
    assert it.capacity() == 20
    for _ in range(199):
        it.succeeded()
    assert it.capacity() == 21
    for _ in range(40 * 200):
        it.succeeded()
    assert it.capacity() == 40


def test_where_headers_tell_what_is_left_a_refusal_teaches_nothing_more() -> None:
    clock = Clock()
    it = gate(clock)
    it.observe(Usage(1, None, 600))
    it.throttled()
    clock.now += 5
    it.succeeded()
    assert it.capacity() == 11


def test_one_failing_seat_never_pauses_the_token() -> None:
    it = gate(Clock())
    for _ in range(100):
        it.failed("the same")
    assert it.pause_left == 0


def test_many_failing_seats_in_a_row_pause_it_and_a_success_in_between_prevents_that() -> None:
    it = gate(Clock())
    for number in range(4):
        it.failed(f"s{number}")
    it.succeeded()
    for number in range(4):
        it.failed(f"s{number}")
    assert it.pause_left == 0
    it.failed("s9")
    assert it.pause_left == 1


async def test_a_waiter_that_gives_up_takes_no_slot_with_it() -> None:
    it = gate(Clock(), max_in_flight=1)
    await it.enter()
    waiter = asyncio.create_task(it.enter())
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    it.leave()
    assert it.capacity() == 1
    await asyncio.wait_for(it.enter(), 1)


async def test_a_slot_given_at_the_moment_of_giving_up_is_given_back() -> None:
    it = gate(Clock(), max_in_flight=1)
    await it.enter()
    waiter = asyncio.create_task(it.enter())
    await asyncio.sleep(0)
    it.leave()  # hands the slot over; the waiter has not run yet
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    await asyncio.wait_for(it.enter(), 1)


class Canvas:
    """The sandbox's bucket, and calls that all take three steps of 50 ms: their answers come together."""

    def __init__(self, clock: Clock, *, cost: float) -> None:
        self.throttle = Throttle(ThrottleSettings(cost=cost), clock)
        self.calls: list[tuple[float, Reservation]] = []
        self.sent = 0
        self.refused = 0

    def send(self, now: float) -> None:
        self.sent += 1
        reservation = self.throttle.enter(b"token")
        self.refused += reservation.refused
        self.calls.append((now if reservation.refused else now + 0.15, reservation))

    def answers(self, now: float) -> list[tuple[bool, float]]:
        """Whether refused, and the header, of the calls that have ended by now, whose reservations all end before one is read."""
        ended = [one for at, one in self.calls if at <= now + 1e-9]
        self.calls = [(at, one) for at, one in self.calls if at > now + 1e-9]
        return [(one.refused, float(self.throttle.leave(one, "")["X-Rate-Limit-Remaining"])) for one in ended]


def play(it: Gate, clock: Clock, canvas: Canvas, *, steps: int, others: float = 0.0) -> None:
    """Work enough for ever, through the gate; other tools use so many units a second of the same token."""
    for _ in range(steps):
        clock.now += 0.05
        canvas.throttle.bucket(b"token").increment(others * 0.05, clock.now)
        for refused, remaining in canvas.answers(clock.now):
            it.observe(Usage(1, None if refused else canvas.throttle.settings.cost, remaining))
            if refused:
                it.throttled()
            else:
                it.succeeded()
            it.leave()
            while it.enter_at_once():
                canvas.send(clock.now)
        while it.enter_at_once():
            canvas.send(clock.now)


@pytest.mark.parametrize(("cost", "others"), [(0.5, 0), (0.15, 0), (2.5, 0), (0.5, 4), (2.5, 4)])
async def test_the_bucket_is_used_up_and_never_refuses(cost: float, others: float) -> None:
    clock = Clock()
    it, canvas = fresh_gate(clock, reserve=100), Canvas(clock, cost=cost)
    play(it, clock, canvas, steps=2400, others=others)
    sent = canvas.sent
    play(it, clock, canvas, steps=2400, others=others)
    assert canvas.refused == 0
    limit = min((10 - others) / cost, 9 / 0.15)  # the leak, or the most calls that fit into a bucket with this reserve
    assert (canvas.sent - sent) / 120 >= 0.95 * limit


async def test_a_bucket_that_others_filled_meanwhile_refuses_nothing() -> None:
    clock = Clock()
    it, canvas = fresh_gate(clock, reserve=100), Canvas(clock, cost=0.5)
    play(it, clock, canvas, steps=100)
    clock.now += 60
    canvas.answers(clock.now)
    it._in_flight = 0
    canvas.throttle.bucket(b"token").increment(540, clock.now)
    play(it, clock, canvas, steps=100)
    assert canvas.refused == 0

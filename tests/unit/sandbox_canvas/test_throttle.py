"""The throttle's arithmetic, with time passed in."""

from __future__ import annotations

import pytest

from services.sandbox.canvas.throttle import Reservation, Throttle, ThrottleSettings


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def throttle(time: Time, **changes: float) -> Throttle:
    return Throttle(ThrottleSettings(**changes), time)  # type: ignore[arg-type]


def fill(bucket_of: Throttle, count: float) -> None:
    bucket_of.bucket(b"token").increment(count, bucket_of._monotonic())


@pytest.mark.parametrize(("high_water_mark", "fitting"), [(600.0, 11), (700.0, 13)])
def test_so_many_simultaneous_requests_fit_into_an_idle_bucket(high_water_mark: float, fitting: int) -> None:
    busy = throttle(Time(), high_water_mark=high_water_mark)
    entered = [busy.enter(b"token") for _ in range(fitting + 1)]
    assert [reservation.refused for reservation in entered] == [False] * fitting + [True]


def test_each_token_has_a_bucket_of_its_own() -> None:
    busy = throttle(Time())
    for _ in range(12):
        last = busy.enter(b"token")
    assert last.refused
    assert not busy.enter(b"another").refused


def test_a_full_bucket_takes_five_more_after_thirty_idle_seconds() -> None:
    time = Time()
    busy = throttle(time)
    fill(busy, 600)
    time.now += 30
    assert [busy.enter(b"token").refused for _ in range(6)] == [False] * 5 + [True]


def test_a_request_gives_its_reservation_back_and_pays_its_cost() -> None:
    time = Time()
    busy = throttle(time)
    fill(busy, 300)
    reservation = busy.enter(b"token")
    time.now += 2
    assert reservation.leave(7.5, time.now) == {"X-Request-Cost": "7.5", "X-Rate-Limit-Remaining": str(600 - (300 - 20 + 7.5))}


def test_a_refusal_tells_the_current_remaining_and_no_cost() -> None:
    time = Time()
    busy = throttle(time)
    fill(busy, 586.33)
    reservation = busy.enter(b"token")
    assert reservation.refused
    headers = reservation.leave(3.0, time.now)
    assert set(headers) == {"X-Rate-Limit-Remaining"}
    assert float(headers["X-Rate-Limit-Remaining"]) == pytest.approx(13.67)


def test_remaining_is_negative_between_the_mark_and_the_maximum_and_never_below() -> None:
    time = Time()
    busy = throttle(time)
    held = [busy.enter(b"token") for _ in range(20)]
    assert busy.bucket(b"token").remaining == -200
    assert float(held[0].leave(0, time.now)["X-Rate-Limit-Remaining"]) == -150


def test_what_is_added_now_does_not_leak_at_once() -> None:
    time = Time()
    busy = throttle(time)
    time.now += 500
    busy.enter(b"token")
    assert busy.bucket(b"token").count == 50


def test_a_long_leak_eats_a_small_rest_and_into_the_reservation() -> None:
    """Both ends are clamped only after the amount was added, as in ``increment_bucket.lua``."""
    time = Time()
    busy = throttle(time)
    fill(busy, 10)
    time.now += 3
    busy.enter(b"token")
    assert busy.bucket(b"token").count == 30


def test_switched_off_it_refuses_nothing_and_still_counts() -> None:
    busy = throttle(Time(), enabled=False)
    reservations: list[Reservation] = [busy.enter(b"token") for _ in range(13)]
    assert not any(reservation.refused for reservation in reservations)
    assert busy.bucket(b"token").remaining == -50


@pytest.mark.parametrize(
    ("status", "text"), [(403, "403 Forbidden (Rate Limit Exceeded)\n"), (429, "429 Too Many Requests (Rate Limit Exceeded)\n")]
)
def test_the_refusal_is_text_in_both_modes(status: int, text: str) -> None:
    assert throttle(Time(), refusal_status=status).refusal() == (status, text)


def test_the_cost_may_differ_by_endpoint() -> None:
    busy = Throttle(ThrottleSettings(cost=0.5, cost_by_endpoint={"enrollments.list": 9.0}), Time())
    assert busy.leave(busy.enter(b"token"), "enrollments.list")["X-Request-Cost"] == "9.0"
    assert busy.leave(busy.enter(b"token"), "users.get")["X-Request-Cost"] == "0.5"

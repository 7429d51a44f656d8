"""The standard library as simulated processes see it: clocks, threads and chance that belong to the simulation.

Instead of editing the product, the names ``time``, ``threading``, ``random``, ``uuid``, ``secrets`` and ``datetime`` of its
loaded modules are replaced while a simulation runs. A module that is new tomorrow is covered as well.
"""

from __future__ import annotations

import datetime as real_datetime
import functools
import random as real_random
import secrets as real_secrets
import sys
import threading as real_threading
import time as real_time
import uuid as real_uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from services.kit import failpoints, postgres
from tests.simulation.database import EPOCH_SECONDS, Databases
from tests.simulation.fibers import Killed, Scheduler, Threading

_PRODUCT = ("services.publisher", "services.consumer", "services.kit", "services.sandbox.canvas", "schemas")


class _Delegating:
    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class Time(_Delegating):
    """`time` on the virtual clock. A host's wall clock may be wrong, its monotonic one never jumps."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(real_time)
        self._scheduler = scheduler

    def monotonic(self) -> float:
        return self._scheduler.now + 1000.0

    perf_counter = monotonic

    def time(self) -> float:
        process = self._scheduler.process
        return EPOCH_SECONDS + self._scheduler.now + (process.wall_offset if process else 0.0)

    def sleep(self, seconds: float) -> None:
        end = self._scheduler.now + seconds
        while self._scheduler.now < end:
            self._scheduler.block(end - self._scheduler.now)


class _DatetimeMeta(type):
    clock: Callable[[], float]

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, real_datetime.datetime)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return real_datetime.datetime(*args, **kwargs)  # noqa: DTZ001

    def __getattr__(cls, name: str) -> Any:
        return getattr(real_datetime.datetime, name)


def _datetime(clock: Time) -> Any:
    class Datetime(metaclass=_DatetimeMeta):
        @staticmethod
        def now(tz: Any = None) -> Any:
            return real_datetime.datetime.fromtimestamp(clock.time(), tz)

    return Datetime


class Random(_Delegating):
    """`random`, `secrets` and `uuid` from the generator of whoever runs."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(real_random)
        self._scheduler = scheduler

    def _generator(self) -> real_random.Random:
        process = self._scheduler.process
        return process.random if process else self._scheduler.random

    def random(self) -> float:
        return self._generator().random()

    def uniform(self, a: float, b: float) -> float:
        return self._generator().uniform(a, b)


class Secrets(_Delegating):
    def __init__(self, chance: Random) -> None:
        super().__init__(real_secrets)
        self._chance = chance

    def token_hex(self, size: int = 16) -> str:
        return self._chance._generator().randbytes(size).hex()


class Uuid(_Delegating):
    def __init__(self, chance: Random) -> None:
        super().__init__(real_uuid)
        self._chance = chance

    def uuid4(self) -> real_uuid.UUID:
        return real_uuid.UUID(bytes=self._chance._generator().randbytes(16), version=4)


def _at_failpoint(scheduler: Scheduler, bites: Callable[[str], None]) -> Callable[[str], None]:
    def failpoint(name: str) -> None:
        process = scheduler.process
        armed = process.failpoints.get(name) if process else None
        if process is None or armed is None:
            return
        action, left = armed
        process.failpoints[name] = (action, left - 1)
        if left != 1:
            return
        bites(f"{action} at {name}")
        if action == "kill":
            process.alive = False
            process.cut_off()
            raise Killed
        process.paused_until = scheduler.now + float(action.removeprefix("pause "))
        scheduler.step_aside()

    return failpoint


@functools.lru_cache(maxsize=4)
def _names(wanted: frozenset[int], _modules: int) -> list[tuple[Any, str]]:
    """Where the product's modules name these objects; looked up again when a module has been loaded."""
    return [
        (module, attribute)
        for name, module in list(sys.modules.items())
        if module is not None and name.startswith(_PRODUCT)
        for attribute, value in vars(module).items()
        if id(value) in wanted and not attribute.startswith("__")
    ]


@contextmanager
def installed(scheduler: Scheduler, databases: Databases, bites: Callable[[str], None]) -> Iterator[Time]:
    """The product runs on the simulation's ground until the end of the block."""
    clock, chance = Time(scheduler), Random(scheduler)
    replacements: dict[int, Any] = {
        id(real_time): clock,
        id(real_threading): Threading(scheduler),
        id(real_random): chance,
        id(real_secrets): Secrets(chance),
        id(real_uuid): Uuid(chance),
        id(real_uuid.uuid4): Uuid(chance).uuid4,
        id(real_datetime.datetime): _datetime(clock),
        id(failpoints.failpoint): _at_failpoint(scheduler, bites),
        id(postgres.migrate): lambda *_args: None,
    }
    put: list[tuple[Any, str, Any]] = []
    for module, attribute in _names(frozenset(replacements), len(sys.modules)):
        value = getattr(module, attribute)
        put.append((module, attribute, value))
        setattr(module, attribute, replacements[id(value)])
    real_connect = psycopg.connect
    psycopg.connect = databases.connect
    try:
        yield clock
    finally:
        psycopg.connect = real_connect
        for module, attribute, value in put:
            setattr(module, attribute, value)

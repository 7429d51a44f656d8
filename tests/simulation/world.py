"""The whole system in one thread: two publishers, two consumers, both databases, the log, Canvas and the student system."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import structlog
from psycopg import conninfo
from pydantic import SecretStr
from starlette.responses import Response

from schemas import keys
from schemas.events import EnrollmentRole
from schemas.topics import Topics
from services.consumer import bootstrap as consumer_bootstrap
from services.consumer import digests as consumer_digests
from services.consumer import housekeeping
from services.consumer.api.desk import Answer
from services.consumer.drive import driver, lookout, probing
from services.consumer.intake import reader
from services.consumer.ledger import history as ledger_history
from services.consumer.ledger import overruling, policies, replays
from services.consumer.ledger import retention as ledger_retention
from services.consumer.ledger.overruling import Asked, Filter, Over, Refused
from services.consumer.metrics import Metrics as ConsumerMetrics
from services.consumer.nouns import PersonRef, SeatState
from services.consumer.policy import model
from services.consumer.replay import runner as replay
from services.consumer.settings import Settings as ConsumerSettings
from services.consumer.targets.canvas.client import CanvasClient
from services.kit import postgres as kit_postgres
from services.kit.kafka import KafkaSettings
from services.publisher import bootstrap as publisher_bootstrap
from services.publisher.changes import Unavailable
from services.publisher.metrics import Metrics as PublisherMetrics
from services.publisher.mirror import digests as mirror_digests
from services.publisher.mirror import writer
from services.publisher.settings import Settings as PublisherSettings
from tests.httpx_wire import HttpxWire
from tests.policies import unguarded
from tests.simulation import shims
from tests.simulation.database import Databases
from tests.simulation.fibers import Process, Scheduler, run_loop
from tests.simulation.lms import ORIGIN, SECRET, Lms
from tests.simulation.log import DeadLetters, Digests, History, Log, Member, Producer, Ranges, Returns, Watch, log_ends
from tests.simulation.sis import INSTITUTION, TENANT, TERM, Message, Sis, section_name

PUBLISHERS = ("publisher-1", "publisher-2")
CONSUMERS = ("consumer-1", "consumer-2")
LATE_SECONDS, LAG_SECONDS, CALL_SECONDS = 4.0, 1.0, 1.5
PARTITIONS = {"enrollment": 3, "section": 2}


class Violation(AssertionError):
    """A promise is broken."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule


@dataclass
class Trace:
    """What happened, for whoever has to understand a seed."""

    lines: list[str] = field(default_factory=list)
    wanted: bool = False

    def add(self, at: float, text: str) -> None:
        if self.wanted:
            self.lines.append(f"{at:9.4f} {text}")


class World:
    """One run. Build it inside `simulated`."""

    def __init__(self, databases: Databases, folder: Path, seed: int, trace: Trace | None = None) -> None:
        self.seed = seed
        self.databases = databases
        self.scheduler = Scheduler(seed)
        self.trace = trace or Trace()
        self.bitten: Counter[str] = Counter()
        self.violations: list[Violation] = []
        self.calm = True
        """No fault was ever asked for."""
        chance = random.Random(seed)  # noqa: S311
        databases.begin_run(self.scheduler)
        databases.bites = self.bites
        self.topics = Topics("sim")
        partitions = {name: PARTITIONS.get((self.topics.kind(name) or ""), 1) for name in self.topics.all()}
        self.log = Log(self.scheduler, self.topics, partitions)
        self.log.bites = self.bites
        self.lms = Lms(self.scheduler, seed, LATE_SECONDS, CALL_SECONDS)
        self.lms.bites = self.bites
        self.lms.violated = self.violated
        people = [f"P{number}" for number in range(1, chance.randint(2, 5) + 1)]
        sections = {f"{100 + number}": f"C{1 + number // 2}" for number in range(chance.randint(2, 4))}
        self.sis = Sis(chance, people, sections)
        self.processes: dict[str, Process] = {}
        self.programs: dict[str, Any] = {}
        self._folder = folder
        self._births = 0
        self._kafka = KafkaSettings(bootstrap_servers="simulated:9092")
        self._accepted: list[Callable[[Message], None]] = []
        self.hurt_ledger_at = -1e9
        """When the ledger last lost history."""
        self.overridden = False
        """A registrar has decided a seat: a ledger that loses history may forget it."""
        self.hurt_mirror = False
        self.only_in_ledger = False
        """Mirror and log have both lost something."""

    # --- telling ---

    def bites(self, fault: str) -> None:
        self.bitten[fault] += 1
        self.trace.add(self.scheduler.now, f"! {fault}")

    def violated(self, rule: str, detail: str) -> None:
        self.trace.add(self.scheduler.now, f"VIOLATION {rule}: {detail}")
        self.violations.append(Violation(rule, f"at {self.scheduler.now:.3f} s: {detail}"))

    def on_accepted(self, function: Callable[[Message], None]) -> None:
        """Called in the moment in which the source hears 2xx."""
        self._accepted.append(function)

    # --- processes ---

    @property
    def current(self) -> Process:
        """Whoever runs now."""
        process = self.scheduler.process
        assert process is not None
        return process

    def start(self, slot: str) -> None:
        """A new process in a slot that is empty."""
        self._births += 1
        process = Process(f"{slot}.{self._births}", self.seed * 1000 + self._births)
        process.on_death.append(lambda: self.trace.add(self.scheduler.now, f"{process.name} is dead"))
        self.processes[slot] = process
        self.trace.add(self.scheduler.now, f"{process.name} starts")
        life = self._publisher_life if slot in PUBLISHERS else self._consumer_life
        run_loop(self.scheduler, process, lambda: life(slot, process))

    async def _publisher_life(self, slot: str, process: Process) -> None:
        program = publisher_bootstrap.publisher(_publisher_settings(self.databases.url("mirror"), self._folder), self._kafka)
        process.stop = asyncio.Event()  # type: ignore[attr-defined]
        self.programs[slot] = program
        await program.start()
        await process.stop.wait()  # type: ignore[attr-defined]
        await program.stop()

    async def _consumer_life(self, slot: str, process: Process) -> None:
        program = consumer_bootstrap.consumer(_consumer_settings(self.databases.url("ledger"), self._folder), self._kafka)
        self.programs[slot] = program
        if not await program.run():
            raise RuntimeError(f"{slot} failed")

    def running(self, slot: str) -> bool:
        process = self.processes.get(slot)
        return process is not None and process.alive and not process.fibers[0].done

    def kill(self, slot: str) -> None:
        process = self.processes.get(slot)
        if process is not None and process.alive:
            self.scheduler.kill(process)

    def stop(self, slot: str) -> None:
        """SIGTERM."""
        process = self.processes.get(slot)
        if process is None or not self.running(slot) or process.loop is None or slot not in self.programs:
            return
        if slot in CONSUMERS:
            process.loop.call_soon_threadsafe(self.programs[slot].stop)
        else:
            process.loop.call_soon_threadsafe(process.stop.set)  # type: ignore[attr-defined]

    def pause(self, slot: str, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        self.processes[slot].paused_until = max(self.processes[slot].paused_until, self.scheduler.now + seconds)

    # --- the student system delivers ---

    def deliver(self, message: Message, slot: str) -> None:
        """One attempt at one publisher; without a 2xx it will be made again."""
        process = self.processes.get(slot)
        if process is None or not self.running(slot) or slot not in self.programs or process.loop is None:
            return
        message.attempts += 1
        mirror = self.programs[slot].mirror

        async def attempt() -> None:
            try:
                await mirror.accept(message.changes, "peoplesoft")
            except Unavailable as error:
                self.trace.add(self.scheduler.now, f"message {message.number} to {process.name}: 503 {error.reason}")
                return
            self.trace.add(self.scheduler.now, f"message {message.number} to {process.name}: 200")
            for function in self._accepted:
                function(message)
            message.delivered = True

        loop = process.loop
        loop.call_soon_threadsafe(lambda: _discard(loop.create_task(attempt())))

    def operate(self, slot: str, order: replays.Order) -> None:
        """An operator asks a consumer for a replay; the call and its audit row are one transaction."""
        process, desk = self.processes[slot], self.programs[slot].desk

        def work(connection: Any) -> Answer:
            name = replays.create(connection, order, "operator")
            return Answer(Response(), {"replay": str(name)}, "done" if name else "refused")

        def call() -> None:
            with contextlib.suppress(psycopg.Error):
                desk._in_one_transaction("operator", "replay.create", work)

        self.scheduler.spawn(process, f"{process.name}/operator", call)

    def override(self, slot: str, person: str, section: str, role: EnrollmentRole, gives: SeatState, seconds: float) -> None:
        """The registrar decides a seat for so long. Of its person only the end is to be checked, in all classes: one that gives
        access decides what becomes of another section of the course that they have left."""
        self.overridden = True
        for each in self.sis.sections:
            self.sis.promise_no_order_in(each, person)

        def work(connection: Any) -> None:
            ends_at = connection.execute("select clock_timestamp() + %s * interval '1 second'", [seconds]).fetchone()[0]
            key = keys.join(INSTITUTION, TERM, section)
            asked = Asked(PersonRef(TENANT, person), key, role, gives, ends_at, "an exception", "registrar")
            overruling.make(connection, self.programs[slot].policies, asked)
            self.bites("seat overridden")

        self._register(slot, work)

    def withdraw_override(self, slot: str) -> None:
        """The registrar takes the newest override back that is in force."""

        def work(connection: Any) -> None:
            for one in overruling.find(connection, TENANT, Filter(state="in_force"), 2**62, 1):
                overruling.withdraw(connection, self.programs[slot].policies, TENANT, one.number, "registrar", "a mistake")
                self.bites("override withdrawn")

        self._register(slot, work)

    def perform(self, slot: str, actor: str, action: str, work: Callable[[Any], None]) -> None:
        """What a person asks of a consumer, if it runs: one audited transaction, which nobody repeats when it fails."""
        if not self.running(slot) or slot not in self.programs:
            return
        process, desk = self.processes[slot], self.programs[slot].desk

        def in_transaction(connection: Any) -> Answer:
            work(connection)
            return Answer(Response(), {})

        def call() -> None:
            with contextlib.suppress(psycopg.Error):
                desk._in_one_transaction(actor, action, in_transaction)

        self.scheduler.spawn(process, f"{process.name}/{actor}", call)

    def _register(self, slot: str, work: Callable[[Any], None]) -> None:
        """What the registrar asks of a consumer; a refusal is an answer."""

        def unless_refused(connection: Any) -> None:
            with contextlib.suppress(Refused, Over):
                work(connection)

        self.perform(slot, "registrar", "override", unless_refused)

    def ask_for_digests(self, slot: str) -> None:
        """An operator asks a publisher for a round of digests."""
        process = self.processes.get(slot)
        if process is None or not self.running(slot) or slot not in self.programs or process.loop is None:
            return
        mirror, loop = self.programs[slot].mirror, process.loop

        async def ask() -> None:
            with contextlib.suppress(Unavailable):
                await mirror.ask_for_digests("operator")

        loop.call_soon_threadsafe(lambda: _discard(loop.create_task(ask())))

    # --- time ---

    def run(self, seconds: float) -> None:
        """Let everybody work for so long."""
        end = self.scheduler.now + seconds
        self.scheduler.run_until(end)
        self.sis.now = self.scheduler.now
        for process in self.processes.values():
            if process.failure is not None and not isinstance(process.failure, SystemExit):
                self.violated("alive", f"{process.name} ended by itself: {process.failure!r}")
                self.trace.add(self.scheduler.now, _traceback(process.failure))
                process.failure = None
            if process.alive and process.fibers[0].done:
                self.scheduler.kill(process)  # its program has ended, and takes its threads with it

    def close(self) -> None:
        """Nobody lives on."""
        for slot in list(self.processes):
            self.kill(slot)


def _traceback(error: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(error))


def _discard(_value: object) -> None:
    pass


@contextmanager
def simulated(databases: Databases, folder: Path, seed: int, trace: Trace | None = None) -> Iterator[World]:
    """A world in which the product runs on virtual ground."""
    world = World(databases, folder, seed, trace)
    scheduler = world.scheduler
    consumer_metrics, publisher_metrics = _metrics()

    def canvas_client(_url: str, token: Any) -> CanvasClient:
        process = scheduler.process
        assert process is not None
        return CanvasClient(ORIGIN, token, HttpxWire(world.lms.transport(process)))

    adapters: list[tuple[Any, str, Any]] = [
        (writer, "KafkaLog", lambda settings, timeout, *_: Producer(world.log, settings, timeout)),
        (writer, "History", lambda _settings, topics: History(world.log, topics)),
        (publisher_bootstrap, "Metrics", lambda: publisher_metrics),
        (reader, "EventLog", lambda _settings, group, names, *_: Member(world.log, world.current, group, names)),
        (reader, "DeadLetters", lambda _settings, name_of, *_: DeadLetters(world.log, name_of)),
        (reader, "LogWatch", lambda *_: Watch(world.log)),
        (mirror_digests, "log_ends", lambda *_: log_ends(world.log)),
        (consumer_digests, "DigestLog", lambda *_: Digests(world.log)),
        (publisher_bootstrap, "ReturnsLog", lambda *_: Returns(world.log, world.current)),
        (consumer_bootstrap, "RangeLog", lambda *_: Ranges(world.log)),
        (consumer_bootstrap, "CanvasClient", canvas_client),
        (consumer_bootstrap, "Metrics", lambda: consumer_metrics),
        (ledger_history, "create_partitions", lambda *_: None),
        (ledger_retention, "forget", lambda *_: None),
    ]
    adapters += [(module, name, value) for module, name, value in _SLOWER if hasattr(module, name)]
    with ExitStack() as stack:
        for module, name, replacement in adapters:
            stack.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, replacement)
        stack.enter_context(shims.installed(scheduler, databases, world.bites))
        stack.enter_context(_logs(world))
        with databases.as_ledger() as connection:
            policies.ensure(connection, TENANT, _POLICY)
        stack.callback(world.close)
        yield world


@functools.cache
def _publisher_settings(url: str, folder: Path) -> PublisherSettings:
    return PublisherSettings(
        database_url=SecretStr(url),
        topic_prefix="sim",
        intake_credentials_file=folder / "callers",
        answer_within_seconds=3,
        delivery_timeout_seconds=1,
        outbox_sweep_after_seconds=3,
        digest_settled_seconds=2,
        digest_interval_seconds=60,
    )


@functools.cache
def _consumer_settings(url: str, folder: Path) -> ConsumerSettings:
    return ConsumerSettings(
        database_url=SecretStr(url),
        topic_prefix="sim",
        group_id="sim",
        canvas_url=ORIGIN,
        canvas_token_file=folder / "token",
        swap_settle_seconds=0.5,
        lease_seconds=4,
        lease_renew_seconds=1,
        call_timeout_seconds=CALL_SECONDS,
        late_bound_seconds=LATE_SECONDS,
        replica_lag_seconds=LAG_SECONDS,
        max_in_flight=4,
        rate_limit_reserve=0,
        offset_check_seconds=2,
        stop_seconds=6,
        digest_tell_again_seconds=10,
    )


_POLICY = unguarded()
_PARSE = functools.cache(model.parse)
_SLOWER: list[tuple[Any, str, Any]] = [
    (model, "parse", _PARSE),
    (kit_postgres, "make_conninfo", functools.cache(conninfo.make_conninfo)),
    (probing, "_EVERY_SECONDS", 2.0),
    (driver, "_ASK_SECONDS", 3.0),
    (lookout, "_TICK_SECONDS", 3.0),
    (housekeeping, "_EVERY_SECONDS", 5.0),
    (consumer_digests, "_RETRY_SECONDS", 3.0),
    (mirror_digests, "_LOOK_SECONDS", 6.0),
    (mirror_digests, "_RETRY_SECONDS", 6.0),
    (writer, "_SWEEP_INTERVAL_SECONDS", 2.0),
    (writer, "_LONGEST_RETRY_SECONDS", 3.0),
    (consumer_bootstrap, "Pace", functools.partial(replay.Pace, look=5.0)),
]
"""How often idle parts look around: what costs a seed much and finds nothing. Each look has another cause as well."""
_METRICS: list[Any] = []


def _metrics() -> tuple[ConsumerMetrics, PublisherMetrics]:
    """Made once: building them takes longer than a simulated process lives."""
    if not _METRICS:
        _METRICS.extend((ConsumerMetrics(), PublisherMetrics()))
    return _METRICS[0], _METRICS[1]


_DEFECTS = {
    "attempt_failed",
    "guard_failed",
    "part_failed",
    "replay_failed",
    "sweep_failed",
    "returned_event_refused",
    "mirror_event_refused",
}
"""Lines that the product writes when a part of it has failed in a way that nobody foresaw."""


@contextmanager
def _logs(world: World) -> Iterator[None]:
    """The product's log lines become part of the trace."""

    def processor(_logger: Any, _method: str, event: Any) -> Any:
        process = world.scheduler.process
        if event["event"] in _DEFECTS and (process is None or process.alive):
            world.violated("defect", f"{event['event']}: {event.get('exc_info')!r}")
        if world.trace.wanted:
            words = {name: value for name, value in event.items() if name not in ("event", "exc_info")}
            error = event.get("exc_info")
            world.trace.add(
                world.scheduler.now,
                f"{process.name if process else 'world'}: {event['event']} {words}{f' {error!r}' if error else ''}",
            )
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[processor], cache_logger_on_first_use=False)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        structlog.configure(**before)


def prepare(folder: Path) -> None:
    """Files that the settings point to."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "token").write_text(SECRET + "\n")
    (folder / "callers").write_text("sis:simulated-secret\n")


__all__ = ["CONSUMERS", "PUBLISHERS", "Trace", "Violation", "World", "prepare", "section_name", "simulated"]

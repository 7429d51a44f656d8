"""A whole system of real processes to break: three brokers, two databases, Canvas, two publishers, two consumers, a SIS.

One world hosts many drills, one after the other. After each everything is healed, and the next begins on what the last one
left: the same topics, the same ledger, more people.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg

from schemas.topics import Topics
from services.kit.kafka import create_topics
from services.sandbox.demo.processes import Processes
from services.sandbox.demo.system import INTAKE_USER, System, Wiring
from services.sandbox.sis.client import Poster
from services.sandbox.sis.morning import plan_morning
from tests.drills.brokers import Brokers
from tests.drills.databases import Server
from tests.drills.injectors import disk, signals
from tests.drills.injectors.proxy import Link, Network
from tests.drills.supervisor import Part, Supervisor
from tests.drills.traffic import Traffic
from tests.e2e.arena import Arena, eventually
from tests.policies import unguarded

LOGS = Path(__file__).parents[2] / ".run" / "drills"
"""Logs stay here after a run."""

CONSUMER = {
    "LEASE_SECONDS": "6",
    "LEASE_RENEW_SECONDS": "1.5",
    "CALL_TIMEOUT_SECONDS": "3",
    "LATE_BOUND_SECONDS": "4",
    "REPLICA_LAG_SECONDS": "0.5",
    "SWAP_SETTLE_SECONDS": "1",
    "OFFSET_CHECK_SECONDS": "2",
    "LOG_CHECK_SECONDS": "3",
    "DIGEST_TELL_AGAIN_SECONDS": "20",
}
"""The same rules with shorter times, so that what was lost is found and repaired within a drill."""

PUBLISHER = {"DIGEST_INTERVAL_SECONDS": "20", "DIGEST_SETTLED_SECONDS": "5"}
"""The same: mirror and ledger compare what they hold three times a minute instead of once an hour."""

CONVERGE_SECONDS = 240.0
"""A bound for a loaded machine, no promise: what was needed is in the report."""
_PARTITIONS = 3
_LEDGER_DISK_MIB = 768
_SCHOOL = 200
"""People and sections of one morning have numbers of their own below this."""


class World:
    """Everything, running. `traffic` is what drills work with; the parts are there to be broken."""

    def __init__(self, seed: int, name: str = "world") -> None:
        """Starts nothing; enter the context."""
        self.seed = seed
        self.folder = LOGS / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._stack = ExitStack()
        self._schools = 0
        self.healed_at = 0.0
        self.ledger_disk: Path | None = None
        self.seen: dict[str, object] = {}
        """What the drill under way puts into its report."""
        self.topics = Topics("drill")
        self.expected_ends: set[int | None] = set()
        """Exit codes of parts that the drill under way means."""
        self.expected_dead_letters = False
        self._letters_before: dict[str, int] = {}

    # -- building ----------------------------------------------------------------------------------------------------------

    def __enter__(self) -> World:
        try:
            self._build()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _build(self) -> None:
        # Not below the logs: the database's user must be able to walk there.
        scratch = tempfile.TemporaryDirectory(prefix="enrollstream-drills-", ignore_cleanup_errors=True)
        self.data = Path(self._stack.enter_context(scratch))
        self.data.chmod(0o755)
        self.network = self._stack.enter_context(Network())
        with ThreadPoolExecutor() as threads:
            brokers = threads.submit(self._start_brokers)
            self.mirror = self._start_database("mirror", self.data / "mirror")
            self.ledger = self._start_database("ledger", self._ledger_disk() / "data")
            self.brokers = brokers.result()
        self.create_missing_topics()
        self.processes = self._stack.enter_context(Processes(self.folder))
        # The drill's own way to a database is a link too, so that it finds a promoted standby; it is never cut.
        mirror_url, ledger_url = self._database_url("mirror", 0), self._database_url("ledger", 0)
        wiring = Wiring(self.folder, {}, mirror_url, ledger_url, self.topics.prefix, PUBLISHER, CONSUMER, unguarded())
        self.system = System(self.processes, wiring)
        self.canvas = self._stack.enter_context(self.system.start_canvas("--latency-ms", "10", "--seed", str(self.seed)))
        self._calm = {"latency_ms": 10, "jitter_ms": 0, "visibility_lag_seconds": 0}
        self.publishers = [self._publisher(number) for number in (1, 2)]
        self.consumers = [self._consumer(number) for number in (1, 2)]
        targets = [("127.0.0.1", part.service.port) for part in self.publishers]
        self.front: Link = self.network.link("front", *targets)
        publisher, consumer = self.publishers[0].service, self.consumers[0].service
        self.arena = Arena(self.processes, self.system, self.canvas, self.topics, self.brokers.settings, publisher, consumer)
        self._supervisor = Supervisor(self.parts)
        self._supervisor.start()
        self._stack.callback(self._supervisor.stop)
        for part in self.parts:
            part.start()
        for part in self.parts:
            part.service.await_ready(120)

    def _ledger_disk(self) -> Path:
        """A small disk where the machine lets us, so that it can be filled."""
        folder = self.data / "ledger"
        folder.mkdir()
        if disk.missing() is None:
            self._stack.enter_context(disk.small_disk(folder, _LEDGER_DISK_MIB))
            self.ledger_disk = folder
        return folder

    def _start_brokers(self) -> Brokers:
        brokers = Brokers(self.data / "kafka", self.network)
        self._stack.callback(brokers.stop)
        brokers.start()
        return brokers

    def _start_database(self, name: str, folder: Path) -> Server:
        server = Server(name, folder)
        self._stack.callback(lambda: getattr(self, name, server).stop())
        server.start()
        server.execute(f'create database "{name}"')
        for number in range(3):
            self.network.link(f"{name}.{number}", ("127.0.0.1", server.port))
        return server

    def _database_url(self, name: str, number: int) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.network.links[f'{name}.{number}'].port}/{name}"

    def _publisher(self, number: int) -> Part:
        environment = self.brokers.variables("PUBLISHER") | {"DATABASE_URL": self._database_url("mirror", number)}
        return Part(self.system.publisher(f"publisher-{number}"), environment)

    def _consumer(self, number: int) -> Part:
        environment = self.brokers.variables(f"CONSUMER{number}") | {"DATABASE_URL": self._database_url("ledger", number)}
        return Part(self.system.consumer(f"consumer-{number}"), environment)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for pid in self.pids():
            signals.resume(pid)
        self._stack.close()

    # -- parts -------------------------------------------------------------------------------------------------------------

    @property
    def parts(self) -> list[Part]:
        """Publishers and consumers."""
        return [*self.publishers, *self.consumers]

    def pids(self) -> list[int]:
        """Every process but Canvas."""
        servers = [
            server.pid for server in (getattr(self, "mirror", None), getattr(self, "ledger", None)) if server and server.alive
        ]
        parts = [part.pid for part in getattr(self, "consumers", []) + getattr(self, "publishers", []) if part.service.alive]
        return [*(self.brokers.pids if hasattr(self, "brokers") else []), *servers, *parts]

    def on_exit(self, function: Callable[[], None]) -> None:
        """Call this when the world ends."""
        self._stack.callback(function)

    def driver(self) -> Part:
        """The consumer that drives Canvas."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for part in self.consumers:
                if part.service.alive and not signals.is_paused(part.pid) and part.service.metric("sis_lease_held") == 1:
                    return part
            time.sleep(0.1)
        raise AssertionError("nobody drives Canvas after 60 s")

    def other(self, part: Part) -> Part:
        """The second of its kind."""
        return next(each for pair in (self.publishers, self.consumers) if part in pair for each in pair if each is not part)

    @property
    def enrollments(self) -> str:
        """The topic that matters most."""
        return self.topics.entity("enrollment")

    @property
    def event_topics(self) -> list[str]:
        """All that the intake reads."""
        return [self.topics.entity(kind) for kind in ("enrollment", "person", "section", "course", "term")]

    # -- traffic and verdict -----------------------------------------------------------------------------------------------

    @contextmanager
    def traffic(
        self, students: int = 16, sections: int = 6, seconds: float = 12, *, gateways: bool = False, timeout_seconds: float = 15
    ) -> Iterator[Traffic]:
        """A morning under way inside. Behind: everything is healed, the end awaited and judged. Evidence goes to `seen`.

        With `gateways` two senders share the messages, each with a publisher of its own, so that order is lost between them.
        """
        self._schools += 1
        chance = random.Random(f"{self.seed} {self._schools}")  # noqa: S311
        morning = plan_morning(chance.randrange(1_000_000), students, sections, seconds, self._schools * _SCHOOL)
        ports = [part.service.port for part in self.publishers] if gateways else [self.front.port]
        posters = [
            Poster(
                f"http://127.0.0.1:{port}/intake/peoplesoft",
                INTAKE_USER,
                self.system.intake_password,
                timeout_seconds=timeout_seconds,
            )
            for port in ports
        ]
        before = self._counts()
        traffic = Traffic(morning, posters, self.canvas)
        traffic.start()
        yield traffic
        self.heal()
        needed = traffic.await_converged(self.arena.settled, CONVERGE_SECONDS)
        self.seen |= traffic.numbers()
        self.seen |= {name: value - before[name] for name, value in self._counts().items()}
        self.seen["recovered in s"] = round(needed, 1)
        broken = [*traffic.broken(), *self.broken(), *self.arena.leaks(morning)[:3]]
        assert not broken, "; ".join(broken)

    def _counts(self) -> dict[str, int]:
        ((unknown,),) = self.ledger_ask("select coalesce(sum(mark), 0)::bigint from seat")
        return {"unknown outcomes": int(unknown)}

    def ledger_ask(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """The same as the arena's."""
        return self.arena.ledger(query, *parameters)

    @contextmanager
    def ledger_session(self) -> Iterator[psycopg.Connection]:
        """For what only somebody with the ledger's password can do; each statement by itself."""
        with psycopg.connect(self.ledger.url("ledger"), autocommit=True) as connection:
            connection.execute("set search_path = ledger")
            yield connection

    def broken(self) -> list[str]:
        """What holds of a settled world whatever was done to it."""
        found = [f"I12: {each}" for each in self.arena.violations()]
        found += [f"I5: Canvas saw a rule broken: {each['rule']}" for each in self.canvas.violations()]
        found += self._offsets()
        if dead := self.ledger_ask("select reason, count(*) from work where state = 'dead' group by reason"):
            found.append(f"I2: seats need a person: {dead}")
        if not self.expected_dead_letters:
            found += [f"I8: {count} dead letters of {topic}" for topic, count in self.dead_letters().items() if count]
        codes = {code for part in self.parts for code in part.ends}
        if strange := codes - self.expected_ends:
            found.append(f"processes ended with {strange}, expected {self.expected_ends or 'none'}")
        return found

    def dead_letters(self) -> dict[str, int]:
        """New ones since the drill began, by topic of the records."""
        ends = {topic: sum(self.brokers.ends(self.topics.dead_letter(topic)).values()) for topic in self.event_topics}
        return {topic: end - self._letters_before.get(topic, 0) for topic, end in ends.items()}

    def _offsets(self) -> list[str]:
        """I7: Kafka's offset is never ahead of the ledger's."""
        stored = {(topic, partition): offset for topic, partition, offset in self.ledger_ask(
            'select topic, "partition", max(next) from intake_offset group by topic, "partition"'
        )}  # fmt: skip
        committed = self.brokers.committed(self.topics.prefix)
        return [
            f"I7: {topic}/{partition} is committed to {offset}, the ledger has {stored.get((topic, partition))}"
            for (topic, partition), offset in committed.items()
            if topic in self.event_topics and offset > stored.get((topic, partition), -1)
        ]

    # -- healing -----------------------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """Remove every fault, start what is down, and wait until every part is ready. Safe to call twice."""
        self.healed_at = time.monotonic()
        for pid in self.pids():
            signals.resume(pid)
        self.network.heal()
        self.canvas.heal()
        self.canvas.settings(**self._calm)
        for server in (self.mirror, self.ledger):
            if not server.alive:
                server.start()
            server.await_answer()
        self.brokers.revive()
        with self._supervisor.lock:
            for part in self.parts:
                if part.special and part.service.alive:
                    part.stop()
                if not part.service.alive:
                    if part.wanted and part.service.process is not None:
                        part.ends.append(part.service.process.exit_code)
                    part.start()
        for part in self.parts:
            self._await_ready(part)

    def _await_ready(self, part: Part, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while part.service.get("/readyz") is None:
            assert time.monotonic() < deadline, f"{part.name} is not ready {seconds:g} s after healing"
            time.sleep(0.1)

    @contextmanager
    def by_hand(self) -> Iterator[None]:
        """Parts are not looked after inside."""
        with self._supervisor.lock:
            yield

    def begin_drill(self) -> None:
        """Forget what the last drill expected and saw."""
        self.seen = {}
        self.expected_ends = set()
        self.expected_dead_letters = False
        self._letters_before = {}
        self._letters_before = self.dead_letters()
        self._recoveries_before = self._recoveries()
        for part in self.parts:
            part.ends.clear()
            part.unhealthy = 0

    def ends(self) -> Mapping[str, list[int | None]]:
        """Parts that ended in this drill, with their exit codes."""
        return {part.name: list(part.ends) for part in self.parts if part.ends}

    def create_missing_topics(self) -> None:
        """As an operator would."""
        wanted = {name: min(count, _PARTITIONS) for name, count in self.topics.all().items()}
        create_topics(self.brokers.settings, wanted, 3)
        self.brokers.await_all()

    def _recoveries(self) -> int:
        ((count,),) = self.ledger_ask("select count(*) from audit where action = 'recovery.enter'")
        return int(count)

    def await_recovery(self, seconds: float, what: str) -> None:
        """Block until the ledger has found out, in this drill, that something lost history; `seen` tells when and why."""
        begun = time.monotonic()

        def entered() -> bool:
            with suppress(psycopg.OperationalError):
                return self._recoveries() > self._recoveries_before
            return False

        eventually(entered, seconds, what)
        self.seen |= {"noticed after s": round(time.monotonic() - begun, 1)}
        ((self.seen["reason"],),) = self.ledger_ask("select reason from recovery")

    def await_recovered(self, seconds: float = 240) -> None:
        """Block until the ledger trusts itself again."""
        eventually(lambda: self.ledger_ask("select active from recovery") == [(False,)], seconds, "recovery mode ends")

    def await_end(self, *parts: Part, seconds: float = 60) -> None:
        """Block until one of these has ended by itself (a failpoint)."""
        deadline = time.monotonic() + seconds
        while not any(part.ends for part in parts):
            assert time.monotonic() < deadline, f"the failpoint did not bite within {seconds:g} s"
            time.sleep(0.05)


def full_length() -> bool:
    """``DRILLS_FULL_LENGTH=1``: pauses and outages as long as the fault matrix has them, not just longer than every timeout."""
    return bool(os.environ.get("DRILLS_FULL_LENGTH"))


def lasting(short: float, matrix: float) -> float:
    """How long a fault lasts."""
    return matrix if full_length() else short

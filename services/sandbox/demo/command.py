"""Runs the whole system on this machine, plays a registration morning and ends with a verdict.

It starts PostgreSQL, an in-memory Kafka, the Canvas sandbox, the publisher and the consumer as processes of their own; it needs
nothing that is not in the Python environment. Exit code: 0 for a match, 1 for differences, 2 when a part could not run. It reads
no environment variable.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from services.sandbox.demo import bad_feed, world
from services.sandbox.demo.display import Display
from services.sandbox.demo.play import Outcome, play
from services.sandbox.demo.processes import Processes, ProcessFailed
from services.sandbox.demo.system import INTAKE_USER, Service, System, Wiring, start_broker
from services.sandbox.demo.verdict import Latencies, Verdict, measure, unexplained
from services.sandbox.postgres import EmbeddedPostgres
from services.sandbox.sis.bad_feed import plan_bad_feed
from services.sandbox.sis.client import Poster
from services.sandbox.sis.morning import Morning, plan_morning

MATCH, DIFFERENCES, BROKEN, INTERRUPTED = 0, 1, 2, 130
_SETTLE_SECONDS = 45.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command reads."""
    parser.add_argument("--keep", action="store_true", help="leave the system running after the verdict, until Ctrl-C")
    parser.add_argument("--folder", type=Path, default=Path(".run/demo"), help="logs and secrets (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="another seed is another morning (default: %(default)s)")
    parser.add_argument("--students", type=int, default=300, help="at least 10 (default: %(default)s)")
    parser.add_argument("--sections", type=int, default=60, help="at least 4 (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=40.0, help="how long the morning takes (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Set up, play, judge, tear down."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Display() as display:
        try:
            return _run(arguments, display)
        except ProcessFailed as error:
            display.end()
            display.console.print(str(error), style="red", markup=False, soft_wrap=True)
            return BROKEN
        except KeyboardInterrupt:
            display.end()
            display.console.print("stopped")
            return INTERRUPTED


def _run(arguments: argparse.Namespace, display: Display) -> int:
    folder = arguments.folder.absolute()
    with alone_in(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return _play_and_judge(arguments, display, folder)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep a second demo out: it would delete the first one's database under its feet. Raises `ProcessFailed`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ProcessFailed(f"another demo is running in {folder}; end it, or choose another --folder") from error
        yield


def _play_and_judge(arguments: argparse.Namespace, display: Display, folder: Path) -> int:
    morning = plan_morning(arguments.seed, arguments.students, arguments.sections, arguments.seconds)
    with ExitStack() as stack:
        display.step("PostgreSQL")
        database = stack.enter_context(EmbeddedPostgres(folder / "postgres"))
        processes = stack.enter_context(Processes(folder))
        display.step("Kafka, in memory")
        kafka = start_broker(processes, folder, "enrollstream")
        mirror_url, ledger_url = database.create_database("mirror"), database.create_database("ledger")
        system = System(processes, Wiring(folder, kafka, mirror_url, ledger_url, policy=_policy()))
        display.step("Canvas sandbox, 40-120 ms a call, throttled as upstream")
        canvas = stack.enter_context(system.start_canvas("--latency-ms", "40", "--jitter-ms", "80"))
        world.seed(canvas, morning)
        display.step(f"watch the rosters change in a browser: {system.canvas_url}/")
        display.step("publisher and consumer")
        publisher, consumer = system.publisher().start(), system.consumer().start()
        publisher.await_ready()
        consumer.await_ready()
        display.step(f"{morning.changes} changes of {len(morning.school.students)} invented students; logs are in {folder}")
        canvas.forget_calls()
        poster = Poster(f"{publisher.url}/intake/peoplesoft", INTAKE_USER, system.intake_password)

        def watch(outcome: Outcome) -> None:
            processes.check()
            display.show(outcome)

        outcome = asyncio.run(play(morning, poster, canvas, lambda: _settled(consumer), watch, _SETTLE_SECONDS))
        verdict = _judge(morning, outcome, publisher, canvas.calls()["calls"], [each["rule"] for each in canvas.violations()])
        feed = plan_bad_feed(morning) if verdict.match else None
        if feed is not None:
            display.step(f"a bad feed: it drops {feed.dropped} of {feed.members} students of {feed.section}")
            token, school = system.operator_token, morning.school
            scene = asyncio.run(bad_feed.play(feed, school, poster, canvas, consumer.url, token, processes.check))
            verdict = replace(verdict, scene=scene)
        display.verdict(verdict)
        if arguments.keep:
            _keep(display, processes, system, publisher, consumer)
    return MATCH if verdict.match else DIFFERENCES


def _policy() -> str:
    return (files("services.sandbox.demo") / "policy.yaml").read_text(encoding="utf-8")


def _settled(consumer: Service) -> bool:
    unsettled = consumer.metric("sis_seats") - consumer.metric("sis_seats", state="settled")
    return unsettled == 0 and consumer.metric("sis_sections_to_decide") == 0


def _judge(morning: Morning, outcome: Outcome, publisher: Service, calls: list[dict[str, str]], broken: list[str]) -> Verdict:
    return Verdict(
        changes_in=sum(each.message.changes for each in outcome.deliveries if each.accepted),
        events_out=int(publisher.metric("sis_events_published_total")),
        suppressed=int(publisher.metric("sis_source_rows_total", result="unchanged")),
        memberships=sum(each.message.enrollment_changes for each in outcome.deliveries if each.accepted),
        calls=_by_purpose(calls),
        writes=len(outcome.writes),
        timing=measure(morning, outcome.deliveries, outcome.writes, outcome.started),
        answers=Latencies(tuple(each.answered - each.first_sent for each in outcome.deliveries if each.answered)),
        expected=len(outcome.expected),
        differences=outcome.differences,
        unexplained=unexplained(morning, outcome.deliveries, outcome.writes),
        refused=len(morning.messages) - sum(each.accepted for each in outcome.deliveries),
        violations=broken,
    )


def _by_purpose(calls: list[dict[str, str]]) -> dict[str, int]:
    """Canvas's counters by endpoint and status, in words."""
    purposes = {"writes": 0, "reads": 0, "probes": 0, "refused by the throttle": 0}
    for each in calls:
        purposes[_purpose(each["endpoint"], str(each["status"]))] += int(each["count"])
    return purposes


def _purpose(endpoint: str, status: str) -> str:
    if status in ("403", "429"):
        return "refused by the throttle"
    if endpoint in ("users.get", "sections.get"):
        return "probes"
    return "writes" if endpoint in ("enrollments.create", "enrollments.delete", "enrollments.reactivate") else "reads"


def _keep(display: Display, processes: Processes, system: System, publisher: Service, consumer: Service) -> None:
    kafka = system.wiring.kafka["KAFKA_BOOTSTRAP_SERVERS"]
    addresses = [
        ("publisher", f"{publisher.url}  (/intake/peoplesoft, /intake/events, /readyz, /metrics)"),
        ("consumer", f"{consumer.url}  (/replays, /trace, /readyz, /metrics)"),
        ("rosters, live", f"{system.canvas_url}/"),
        ("Canvas sandbox", f"{system.canvas_url}  (control side: /_sandbox/rosters, /_sandbox/writes, /_sandbox/faults)"),
        ("Kafka", kafka),
        ("mirror", system.wiring.mirror_url),
        ("ledger", system.wiring.ledger_url),
        ("secrets", str(system.secrets)),
    ]
    for name, address in addresses:
        display.console.print(f"  {name:<15} {address}", markup=False, soft_wrap=True)
    display.step("running until Ctrl-C")
    while True:
        processes.check()
        time.sleep(0.5)

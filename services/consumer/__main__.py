"""``python -m services.consumer``: run a consumer process until SIGTERM, or change the policy. ``--help`` lists the settings."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import getpass
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop
from pydantic import ValidationError
from pydantic_settings import BaseSettings

from services.consumer.app import create_app
from services.consumer.bootstrap import Consumer, consumer
from services.consumer.ledger.policy_plans import WorldChanged
from services.consumer.policy.examples import ExamplesError
from services.consumer.policy.model import PolicyError
from services.consumer.policy_command import PlanError, apply, plan, test
from services.consumer.settings import LedgerSettings, Settings
from services.kit import logs
from services.kit.collector import collect_rarely
from services.kit.http import server
from services.kit.kafka import KafkaSettings
from services.kit.postgres import MigrationError
from services.kit.settings import describe, explain
from services.kit.watchdog import Watchdog

_SETTINGS: tuple[type[BaseSettings], ...] = (Settings, KafkaSettings)
_GRACE_SECONDS = 5
"""After the time in which the process should have ended."""


def main(words: Sequence[str] | None = None) -> int:
    """0 after an orderly stop; 1 when a part failed, an example came out wrong or a plan no longer holds; 2 for settings or files
    that cannot be used."""
    arguments = _parser().parse_args(words)
    try:
        if arguments.command != "policy":
            return _serve()
        return {"test": _test, "plan": _plan, "apply": _apply}[arguments.action](arguments)
    except ValidationError as error:
        sys.stderr.write(explain(error, _SETTINGS) + "\n")
    except WorldChanged as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except (PolicyError, ExamplesError, PlanError, MigrationError, OSError) as error:
        sys.stderr.write(f"{error}\n")
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.consumer",
        description="Reads events from Kafka into the ledger, decides what every seat should be, and makes the LMS so.",
        epilog="Settings are environment variables:\n\n" + describe(*_SETTINGS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="[COMMAND]", help="without one, run until SIGTERM")
    policy = commands.add_parser("policy", help="try or change the registrar's policy")
    actions = policy.add_subparsers(dest="action", metavar="ACTION", required=True)
    action = actions.add_parser("apply", help="store a policy as the new active version and decide everybody again")
    action.add_argument("file", type=Path, help="the policy, YAML")
    action.add_argument("--actor", default=_system_user(), help="who changes it, for the audit (default: the system's user)")
    action.add_argument("--plan", metavar="DIGEST", help="apply it only if it still changes exactly what that plan said")
    action.add_argument(
        "--within", type=int, default=0, metavar="N", help="or so many seats of each kind more or fewer, whichever they are"
    )
    planned = actions.add_parser("plan", help="show which seats a policy would change, without writing anything")
    planned.add_argument("file", type=Path, help="the policy, YAML")
    planned.add_argument("--rows", type=int, default=0, metavar="N", help="show so many of the seats in full (they name people)")
    tried = actions.add_parser("test", help="decide worked examples under a policy, without any database")
    tried.add_argument("file", type=Path, nargs="?", help="the policy, YAML (default: the packaged one)")
    tried.add_argument("--examples", type=Path, help="the examples, CSV (default: the packaged ones)")
    return parser


def _test(arguments: argparse.Namespace) -> int:
    report, right = test(arguments.file, arguments.examples)
    print(report)
    return 0 if right else 1


def _system_user() -> str:
    """A container's user may be a bare number, which has no name anywhere."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _apply(arguments: argparse.Namespace) -> int:
    print(apply(_ledger_settings(), arguments.file, arguments.actor, arguments.plan, arguments.within))
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    print(plan(_ledger_settings(), arguments.file, arguments.rows))
    return 0


def _ledger_settings() -> LedgerSettings:
    settings = LedgerSettings()
    logs.configure("consumer", settings.log_level)
    return settings


def _serve() -> int:
    settings, kafka = Settings(), KafkaSettings()
    logs.configure("consumer", settings.log_level)
    return uvloop.run(_run(settings, kafka))


async def _run(settings: Settings, kafka: KafkaSettings) -> int:
    """The HTTP surface outlives the work, so that health is answered from the first moment to the last."""
    program: Consumer = consumer(settings, kafka)
    program.on_end = Watchdog(settings.stop_seconds + _GRACE_SECONDS).start().arm
    http = server(create_app(program), settings.host, settings.port)
    http.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]  # see below
    # A signal ends the work first and the server after it; left to itself, the server would end first and raise it again.
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, program.stop)
    collect_rarely()
    serving, working = asyncio.create_task(http.serve()), asyncio.create_task(program.run())
    await asyncio.wait([serving, working], return_when=asyncio.FIRST_COMPLETED)
    stopped_serving = serving.done()
    program.stop()
    succeeded = await working
    http.should_exit = True
    await serving
    return 0 if succeeded and not stopped_serving else 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: a client library that hangs while it closes must not hold up the end; nothing is left to be saved.
    os._exit(code)

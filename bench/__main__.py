"""``python -m bench [SCENARIO ...] [--quick] [--write]``: run and print; ``--write`` keeps it in docs/benchmarks.md."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import psycopg

from bench import driving, intake, machine, memory, overhead, page, publishing, replaying
from bench.figures import Result
from bench.ground import RUN, Ground
from services.kit.kafka import KafkaSettings
from services.sandbox.postgres import EmbeddedPostgres

SCENARIOS: Mapping[str, Callable[[Ground, bool], Result]] = {
    "overhead": overhead.run,
    "publisher": publishing.run,
    "intake": intake.run,
    "driver": driving.run,
    "throttle": driving.throttle,
    "memory": memory.run,
    "replay": replaying.run,
}


def main() -> int:
    """0 when every goal was met, 1 when one was missed."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("scenario", nargs="*", choices=[*SCENARIOS, []], help="all without one")
    parser.add_argument("--quick", action="store_true", help="fewer samples: shows that it works, not how fast it is")
    parser.add_argument("--write", action="store_true", help="keep the result in docs/benchmarks.md")
    arguments = parser.parse_args()
    if not os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        sys.exit("KAFKA_BOOTSTRAP_SERVERS is not set: `make bench` starts a Kafka and sets it")
    RUN.mkdir(parents=True, exist_ok=True)
    results = []
    with EmbeddedPostgres() as server:
        _give_memory(server)
        with psycopg.connect(server.url()) as connection:
            row = connection.execute("select split_part(version(), ' on ', 1)").fetchone()
        postgres = f"{row[0]}, 1 GB of buffers" if row else ""
        ground = Ground(KafkaSettings(), server)  # from the environment
        for name in arguments.scenario or SCENARIOS:
            where = machine.describe(postgres)
            results.append(SCENARIOS[name](ground, arguments.quick))
            run = f"- Run on {datetime.now(UTC):%Y-%m-%d}: `{name}{' --quick' if arguments.quick else ''}`."
            section = "\n".join([results[-1].markdown(), *where, run])
            print(f"{section}\n", flush=True)
            if arguments.write:
                page.keep([section])
    missed = [goal for result in results for goal in result.goals if not goal.met]
    print(f"{len(missed)} of {sum(len(result.goals) for result in results)} goals missed")
    return 1 if missed else 0


def _give_memory(server: EmbeddedPostgres) -> None:
    """As on a small server of its own: the default of 128 MB measures the system's cache from 100,000 seats on."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("alter system set shared_buffers = '1GB'")
        connection.execute("checkpoint")
    server.kill()  # nothing is in it yet
    server.start_again()


if __name__ == "__main__":
    sys.exit(main())

"""Runs an in-memory Kafka with Enrollstream's topics until SIGTERM or Ctrl-C. It reads no environment variable.

The log is gone when the process ends.
"""

from __future__ import annotations

import argparse
import signal

from schemas.topics import DEFAULT_PARTITIONS, Topics
from services.sandbox import children
from services.sandbox.broker import EmbeddedBroker


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command reads."""
    parser.add_argument("--topic-prefix", default=Topics().prefix, help="as TOPIC_PREFIX of the services (default: %(default)s)")
    parser.add_argument(
        "--partitions",
        type=int,
        default=DEFAULT_PARTITIONS,
        help="of each entity topic; the others have one (default: %(default)s)",
    )
    parser.add_argument("--round-trip-ms", type=int, default=0, help="delay of every answer (default: %(default)s)")
    children.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until stopped."""
    # Blocked before librdkafka starts threads, so that none of them takes the signal away from the wait below.
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with EmbeddedBroker(_topics(arguments.topic_prefix, arguments.partitions)) as broker:
        if arguments.round_trip_ms:
            broker.set_round_trip(arguments.round_trip_ms)
        if not arguments.outlive_parent:
            children.end_with_parent()
        children.announce(arguments.ready_file, bootstrap_servers=broker.bootstrap_servers)
        signal.sigwait(signals)
    return 0


def _topics(prefix: str, partitions: int) -> dict[str, int]:
    return {name: partitions if count > 1 else count for name, count in Topics(prefix).all().items()}

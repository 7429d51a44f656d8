"""``python -m services.publisher``: run one publisher process until SIGTERM. ``--help`` lists its settings."""

from __future__ import annotations

import argparse
import math
import signal
import sys
from types import FrameType

import structlog
from pydantic import ValidationError

from services.kit import logs
from services.kit.collector import collect_rarely
from services.kit.http import server
from services.kit.kafka import KafkaSettings
from services.kit.settings import describe, explain
from services.publisher.app import create_app
from services.publisher.bootstrap import publisher
from services.publisher.settings import Settings

log = structlog.get_logger()
_SETTINGS = (Settings, KafkaSettings)
_NOT_STARTED = 3


def main() -> int:
    """Read the settings, then serve; 0 after an orderly stop, 2 for settings that cannot be used, 3 when it could not start."""
    parser = argparse.ArgumentParser(
        prog="python -m services.publisher",
        description="Takes changes of the student information system in and publishes them to Kafka.",
        epilog="Settings are environment variables:\n\n" + describe(*_SETTINGS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args()
    try:
        settings, kafka = Settings(), KafkaSettings()
    except ValidationError as error:
        sys.stderr.write(explain(error, _SETTINGS) + "\n")
        return 2
    logs.configure("publisher", settings.log_level)
    # uvicorn stops in order on either signal and then raises it again, for whoever handled it before: that is us.
    signal.signal(signal.SIGTERM, _stopped)
    signal.signal(signal.SIGINT, _stopped)
    if settings.quarantine_key_file is None:
        log.warning("quarantine_without_key")  # bytes that do not parse cannot be looked at later: only their digest is kept
    # Any change is answered by then; only an extract may take longer to arrive, and it comes again.
    finish_within = math.ceil(settings.body_timeout_seconds + settings.answer_within_seconds)
    uvicorn = server(create_app(publisher(settings, kafka)), settings.host, settings.port, finish_within)
    collect_rarely()
    uvicorn.run()
    return 0 if uvicorn.started else _NOT_STARTED


def _stopped(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())

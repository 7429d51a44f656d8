"""What the Kafka clients of the consumer share."""

from __future__ import annotations

import logging
import time

from confluent_kafka import KafkaError, KafkaException


def error_name(error: KafkaException) -> str:
    """The client's own name of what went wrong, as its documentation lists it."""
    cause = error.args[0]
    return cause.name() if isinstance(cause, KafkaError) else str(cause)


class _Sparse(logging.Filter):
    """At most one line in five seconds: a broker that is away makes the client write twenty a second."""

    _next = 0.0

    def filter(self, _record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + 5
        return True


def sparse_logger() -> logging.Logger:
    """The clients' own log lines, few of them."""
    logger = logging.getLogger("librdkafka")
    if not any(isinstance(known, _Sparse) for known in logger.filters):
        logger.addFilter(_Sparse())
    return logger

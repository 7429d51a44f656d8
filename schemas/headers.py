"""Record headers: the CloudEvents 1.0 Kafka binding in binary mode, and the W3C trace context.

Source: cloudevents/spec, ``cloudevents/bindings/kafka-protocol-binding.md``, section 3.2.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from schemas.keys import EntityKind

Headers = dict[str, str]
CONTENT_TYPE = "application/json"
_TYPE_PREFIX = "org.enrollstream."


def event_headers(
    kind: EntityKind, version: int, content_hash: str, accepted_at: datetime, source: str, traceparent: str | None = None
) -> Headers:
    """Headers of one event, of which these say what it is.

    `source` is a URI reference for the way that the change came in. The id is unique (the hash covers the entity's ids), and the
    same event published twice has the same one. No header names a person: brokers, proxies and tracing tools show headers more
    freely than values.
    """
    return {
        "ce_specversion": "1.0",
        "ce_type": f"{_TYPE_PREFIX}{kind}.v1",
        "ce_source": source,
        "ce_id": f"{kind}-{version}-{content_hash}",
        "ce_time": _isoformat(accepted_at),
        "ce_dataschema": f"urn:enrollstream:{kind}:v1",
        "content-type": CONTENT_TYPE,
        "traceparent": traceparent or new_traceparent(),
    }


@lru_cache(maxsize=16)
def _isoformat(time: datetime) -> str:
    """Kept: all changes of a message are accepted at one moment."""
    return time.isoformat()


def header(headers: Sequence[tuple[str, bytes | str | None]] | None, name: str) -> str | None:
    """The first header called `name`, decoded; None when absent. Kafka allows repeated names, the first one counts."""
    for found, value in headers or ():
        if found == name and value is not None:
            return value if isinstance(value, str) else value.decode("utf-8", "replace")
    return None


def new_traceparent() -> str:
    """A fresh W3C trace context (``00-<trace id>-<span id>-01``); 01 asks readers that trace to record it.

    Its ids have to be unique, not secret: asking the system for each would cost more than the other headers together.
    """
    ids = f"{random.getrandbits(192):048x}"
    return f"00-{ids[:32]}-{ids[32:]}-01"

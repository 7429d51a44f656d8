"""Logs: one JSON object a line on stderr, only allow-listed fields, no ids of people."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_FIELDS = """
event level ts service exception error_type reason outcome kind topic partition offset position version count duration_ms attempt
retry_in_s target lane call status epoch state method route port path action bytes policy_version waiting_on operation channel
code timeline system_id floor line replay_id table mode sent received
"""
ALLOWED_FIELDS = frozenset(_FIELDS.split())
"""Everything else is dropped: a field that might carry a name or an id has to be argued into this list."""


def configure(service: str, level: str = "INFO") -> None:
    """Set up structlog for this process, and route the standard library's warnings and errors through it."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            _exception_type_and_frames,
            _allow_listed,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    handler = _IntoStructlog(level=logging.WARNING)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def _exception_type_and_frames(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep the type and the frames of an exception, never its message: messages quote rows, bodies and parameters."""
    error = fields.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        fields["error_type"] = type(error).__name__
        frames, trace = [], error.__traceback__
        while trace is not None:
            frames.append(f"{trace.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}")
            trace = trace.tb_next
        fields["exception"] = " < ".join(reversed(frames))
    return fields


def _allow_listed(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {name: value for name, value in fields.items() if name in ALLOWED_FIELDS}


class _IntoStructlog(logging.Handler):
    """Libraries log free text that may quote data; keep the logger's name and level, drop the text."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno, "library_log", reason=record.name, exc_info=record.exc_info and record.exc_info[1]
        )

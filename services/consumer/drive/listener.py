"""Hearing of new work from another process: PostgreSQL's notifications, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from services.consumer.ledger import database
from services.consumer.nouns import WORK_CHANNEL
from services.kit.postgres import AWAY

log = structlog.get_logger()
_LOOK_UP_SECONDS = 0.2
_RETRY_SECONDS = 1.0


class Listener:
    """Calls `wake` for each notification that names the target. Notifications may be lost (a broken connection): the driver
    looks at the table every second anyway."""

    def __init__(self, url: str, target: str, wake: Callable[[], None]) -> None:
        """`wake` is called in the listener's thread."""
        self._url = url
        self._target = target
        self._wake = wake
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="drive-listener", daemon=True)

    def start(self) -> None:
        """Listen from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; it does within a fraction of a second."""
        self._stopping.set()

    def join(self) -> None:
        """Wait for the thread."""
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except AWAY as error:
                log.warning("listener_disconnected", target=self._target, error_type=type(error).__name__)
                self._stopping.wait(_RETRY_SECONDS)

    def _listen(self) -> None:
        with database.connect(self._url) as connection:
            connection.execute(f'listen "{WORK_CHANNEL}"')
            while not self._stopping.is_set():
                for notification in connection.notifies(timeout=_LOOK_UP_SECONDS):
                    if notification.payload == self._target:
                        self._wake()
                    if self._stopping.is_set():
                        break

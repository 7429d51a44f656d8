"""A real browser for tests of pages: Chromium without a window, spoken to by its DevTools protocol over a WebSocket.

https://chromedevtools.github.io/devtools-protocol/ has the commands and events. A machine without Chromium skips these tests and
says so; in CI that is an error.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_START_SECONDS = 30.0
_COMMAND_SECONDS = 20.0
_LOOK_EVERY_SECONDS = 0.05


def require_chromium() -> str:
    """Where the browser is."""
    found = next((path for path in map(shutil.which, _NAMES) if path), None)
    if found is None:
        reason = f"no browser: none of {', '.join(_NAMES)} is on PATH (Debian and Ubuntu: apt-get install chromium)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


class Tab:
    """One tab. Everything that it says of itself is kept: see `complaints`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self.complaints: list[str] = []
        """Script errors, warnings and errors of the console, and what the browser refused to load or run."""
        self.requested: list[str] = []
        """The addresses of everything that was loaded."""
        self._listener = asyncio.ensure_future(self._listen())

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(_COMMAND_SECONDS):
            return await answer

    async def open(self, url: str) -> None:
        """Go there, and wait until everything is loaded."""
        self._loaded.clear()
        await self.command("Page.navigate", url=url)
        await self.loaded()

    async def loaded(self) -> None:
        """Wait for the end of the load that is under way, or of the next one."""
        async with asyncio.timeout(_COMMAND_SECONDS):
            await self._loaded.wait()

    async def value(self, expression: str) -> Any:
        """What a JavaScript expression is, as JSON has it; promises are awaited. Also where the page's own scripts are off."""
        answer = await self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, expression: str, seconds: float = 10.0) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not await self.value(expression):
            if time.monotonic() > end:
                shown = await self.value("document.body.innerText")
                raise AssertionError(f"not within {seconds} s: {expression}\nthe page says:\n{shown}")
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    async def screenshot(self, *, width: int, height: int, dark: bool = False, whole: bool = False) -> bytes:
        """A PNG, for people: of what fits into the window, or of the `whole` page."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await self.command("Emulation.setEmulatedMedia", features=scheme)
        await self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        picture = await self.command("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(picture["data"])

    async def _listen(self) -> None:
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                answer = self._answers.pop(said["id"])
                if "error" in said:
                    answer.set_exception(RuntimeError(said["error"]["message"]))
                else:
                    answer.set_result(said["result"])
            else:
                self._note(said["method"], said["params"])

    def _note(self, event: str, details: dict[str, Any]) -> None:
        match event:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Network.requestWillBeSent":
                self.requested.append(details["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(details["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if details["type"] in ("error", "warning", "assert"):
                self.complaints.append(str(details["args"]))
            case "Log.entryAdded" if details["entry"]["level"] in ("error", "warning"):
                self.complaints.append(str(details["entry"]))

    async def __aenter__(self) -> Self:
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.command(f"{domain}.enable")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.cancel()
        with suppress(asyncio.CancelledError):
            await self._listener


@asynccontextmanager
async def browsing() -> AsyncIterator[Tab]:
    """A new browser with nothing remembered, for the time of a test."""
    program = require_chromium()
    with tempfile.TemporaryDirectory(prefix="enrollstream-browser-", ignore_cleanup_errors=True) as folder:
        arguments = [program, *_arguments(folder)]
        browser = await asyncio.create_subprocess_exec(*arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port = await _port(Path(folder) / "DevToolsActivePort", browser)
            async with aiohttp.ClientSession() as http, _socket(http, port) as socket, Tab(socket) as tab:
                yield tab
        finally:
            browser.kill()
            await browser.wait()


def _arguments(folder: str) -> list[str]:
    return [
        "--headless",
        "--no-sandbox",  # it refuses to run as root otherwise; it sees our own pages only
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--no-proxy-server",
        "--hide-scrollbars",
        f"--user-data-dir={folder}",
        "--remote-debugging-port=0",
        "about:blank",
    ]


async def _port(file: Path, browser: asyncio.subprocess.Process) -> int:
    """Where DevTools listen: the browser writes it down when it is ready."""
    end = time.monotonic() + _START_SECONDS
    while not (lines := _lines(file)):
        assert browser.returncode is None, f"the browser ended with {browser.returncode}"
        assert time.monotonic() < end, f"the browser was not ready after {_START_SECONDS} s"
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
    return int(lines[0])


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


@asynccontextmanager
async def _socket(http: aiohttp.ClientSession, port: int) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with http.get(f"http://127.0.0.1:{port}/json/list") as answer:
        page = next(target for target in await answer.json(content_type=None) if target["type"] == "page")
    async with http.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as socket:
        yield socket

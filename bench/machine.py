"""What a figure depends on: the machine, the versions, and who else was busy."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("confluent-kafka", "psycopg", "aiohttp", "httpx", "pydantic", "uvloop")


def describe(postgres: str) -> list[str]:
    """Lines for the head of a report; `postgres` is the server's own word for its version."""
    return [
        f"- Machine: {os.cpu_count()} cores ({_field('/proc/cpuinfo', 'model name')}), "
        f"{int(_field('/proc/meminfo', 'MemTotal').split()[0]) / 1024 / 1024:.0f} GiB, {platform.system()} {platform.release()}; "
        "everything of a run shares them, over loopback.",
        f"- Load average before the run: {os.getloadavg()[0]:.1f}.",
        f"- {postgres}, Apache Kafka (one broker), Python {platform.python_version()}, "
        + ", ".join(f"{package} {version(package)}" for package in _PACKAGES)
        + ".",
        f"- Commit {_commit()}.",
    ]


def cpu_seconds(pid: int) -> float:
    """User and system time of one process so far (``/proc/PID/stat``, fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """Resident memory of one process, MB."""
    return int(_field(f"/proc/{pid}/status", "VmRSS").split()[0]) / 1000


def peak_mb(pid: int) -> float:
    """The most that it ever was."""
    return int(_field(f"/proc/{pid}/status", "VmHWM").split()[0]) / 1000


def _field(file: str, name: str) -> str:
    for line in Path(file).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"


def _commit() -> str:
    told = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return told.stdout.strip() or "unknown"

"""``python -m services.sandbox sis``: plays the morning against any publisher."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from services.sandbox.sis.client import Poster, Progress
from services.sandbox.sis.morning import plan_morning


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command reads."""
    parser.add_argument("--url", default="http://127.0.0.1:8080/intake/peoplesoft", help="where to post (default: %(default)s)")
    parser.add_argument("--credentials-file", type=Path, required=True, help="one line name:secret, sent as Basic credentials")
    parser.add_argument("--seed", type=int, default=7, help="another seed is another morning (default: %(default)s)")
    parser.add_argument("--students", type=int, default=300, help="at least 10 (default: %(default)s)")
    parser.add_argument("--sections", type=int, default=60, help="at least 4 (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=40.0, help="how long the morning takes (default: %(default)s)")
    parser.add_argument("--concurrency", type=int, default=16, help="posts under way at once (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Play; 0 when every message was accepted."""
    name, _, secret = arguments.credentials_file.read_text().splitlines()[0].partition(":")
    morning = plan_morning(arguments.seed, arguments.students, arguments.sections, arguments.seconds)
    poster = Poster(arguments.url, name, secret, arguments.concurrency)
    deliveries = asyncio.run(poster.play(morning.messages, _print_progress))
    refused = [each for each in deliveries if not each.accepted]
    print(f"\n{morning.changes} changes in {len(deliveries)} messages; {len(refused)} refused", file=sys.stderr)
    return 1 if refused else 0


def _print_progress(progress: Progress) -> None:
    line = f"\r{progress.accepted} of {progress.total} messages accepted, {progress.repeated} attempts repeated"
    print(line, end="", file=sys.stderr, flush=True)

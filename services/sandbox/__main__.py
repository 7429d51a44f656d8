"""``python -m services.sandbox COMMAND``: picks a command and leaves the rest to its module.

A command's module offers ``add_arguments(parser)`` and ``run(arguments) -> int``, the exit code; it is imported only when it
is called for.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple


class Command(NamedTuple):
    module: str
    summary: str


COMMANDS = {
    "canvas": Command("services.sandbox.canvas.command", "a faithful Canvas over HTTP, with faults on demand"),
    "broker": Command("services.sandbox.broker_command", "an in-memory Kafka, for the demo and quick tests"),
    "sis": Command("services.sandbox.sis.command", "a small SIS that plays registration morning against a publisher"),
    "demo": Command("services.sandbox.demo.command", "the whole system on this machine, a morning, and a verdict"),
    "up": Command("services.sandbox.demo.up", "publisher and consumer against your own services"),
}


def main(words: Sequence[str]) -> int:
    """Run one command; without one, print the list and return 2."""
    if not words or words[0] not in COMMANDS:
        asked_for_help = bool(words) and words[0] in ("-h", "--help")
        print(_overview(), file=sys.stdout if asked_for_help else sys.stderr)
        return 0 if asked_for_help else 2
    name = words[0]
    module = importlib.import_module(COMMANDS[name].module)
    parser = argparse.ArgumentParser(prog=f"python -m services.sandbox {name}", description=module.__doc__)
    module.add_arguments(parser)
    code: int = module.run(parser.parse_args(words[1:]))
    return code


def _overview() -> str:
    lines = [f"  {name:<8} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: python -m services.sandbox COMMAND [--help]", "", *lines])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""``python -m schemas``: write or check the generated JSON Schema."""

from __future__ import annotations

import argparse
import shutil
import sys

from schemas import compatibility, generate


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m schemas", description="The event contract as JSON Schema.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("write", help="generate schemas/json from the models")
    commands.add_parser("check", help="fail when schemas/json is stale or breaks the readers of a release")
    release = commands.add_parser("release", help="keep the current schemas as those of a release")
    release.add_argument("version", help="for example 0.2.0")
    options = parser.parse_args(arguments)
    if options.command == "write":
        return _write()
    return _release(options.version) if options.command == "release" else _check()


def _write() -> int:
    for file in generate.write():
        print(file.relative_to(generate.FOLDER.parent.parent))
    return 0


def _check() -> int:
    stale = [f"{file.name} is stale: run `python -m schemas write`" for file in generate.stale()]
    problems = stale or compatibility.problems()
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"event contract: {len(problems)} problem(s)" if problems else "event contract: up to date and compatible")
    return 1 if problems else 0


def _release(version: str) -> int:
    folder = compatibility.RELEASED / version
    if folder.exists():
        print(f"{folder.name} exists; what was released does not change", file=sys.stderr)
        return 1
    if _check():
        return 1
    shutil.copytree(generate.FOLDER, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

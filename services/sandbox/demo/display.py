"""What the person in front of the terminal sees: live progress, then the verdict. Plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from services.sandbox.demo.play import Outcome
from services.sandbox.demo.verdict import Latencies, Scene, Verdict, Write

_PLAIN_EVERY_SECONDS = 5.0
_SHOWN_WRITES = 8
_SHOWN_DIFFERENCES = 25


class Display:
    """Shows a run. Use as a context; `step` before the morning, `show` while it runs, `verdict` at the end."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._live: Live | None = None
        self._last_line = 0.0

    def step(self, text: str) -> None:
        """One line of what is being done."""
        self.console.print(f"[dim]·[/dim] {text}")

    def show(self, outcome: Outcome) -> None:
        """Bring the picture up to date."""
        if self.console.is_terminal:
            if self._live is None:
                self._live = Live(console=self.console, transient=True, auto_refresh=False)
                self._live.start()
            self._live.update(_picture(outcome), refresh=True)
        elif time.monotonic() - self._last_line >= _PLAIN_EVERY_SECONDS:
            self._last_line = time.monotonic()
            self.console.print(_plain(outcome), soft_wrap=True)

    def end(self) -> None:
        """Take the moving picture away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def verdict(self, verdict: Verdict) -> None:
        """The figures, then MATCH or the differences."""
        self.end()
        self.console.print(_figures(verdict))
        if verdict.scene is not None:
            self.console.print(_told(verdict.scene), markup=False, soft_wrap=True)
        for line in _reasons(verdict):
            self.console.print(line, style="red", markup=False)
        seats = f"{verdict.expected} active seats"
        if verdict.match:
            self.console.print(f"[bold green]MATCH[/bold green]: Canvas shows what the SIS holds, person by person ({seats}).")
        elif verdict.scene is not None:
            self.console.print("[bold red]NO MATCH[/bold red]: the bad feed was not stopped as it should be.")
        else:
            self.console.print(f"[bold red]NO MATCH[/bold red]: {len(verdict.differences)} differences in {seats}.")

    def __enter__(self) -> Display:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.end()


def _plain(outcome: Outcome) -> str:
    progress = outcome.progress
    return (
        f"{time.time() - outcome.started:5.0f} s  {progress.accepted}/{progress.total} messages accepted, "
        f"{progress.changes} changes, {len(outcome.writes)} writes in Canvas, {len(outcome.differences)} seats still to come"
    )


def _picture(outcome: Outcome) -> RenderableType:
    progress = outcome.progress
    bars = Table.grid(padding=(0, 2))
    bars.add_row(
        "SIS → publisher", ProgressBar(progress.total, progress.accepted, width=40), _of(progress.accepted, progress.total)
    )
    seats, right = len(outcome.expected), max(0, len(outcome.expected) - len(outcome.differences))
    bars.add_row("Canvas as the SIS will end", ProgressBar(seats, right, width=40), _of(right, seats))
    counts = (
        f"{progress.changes} changes in · {len(outcome.writes)} writes in Canvas · {progress.repeated} posts repeated · "
        f"{time.time() - outcome.started:.0f} s"
    )
    return Panel(Group(bars, Text(counts, style="dim"), _latest(outcome.writes[-_SHOWN_WRITES:])), title="registration morning")


def _of(done: int, total: int) -> str:
    return f"{done} of {total}"


def _latest(writes: Iterable[Write]) -> Table:
    table = Table.grid(padding=(0, 2))
    for write in writes:
        added = write.state == "active"
        clock = time.strftime("%H:%M:%S", time.localtime(write.at))
        sign = Text("+" if added else "−", style="green" if added else "red")
        table.add_row(Text(clock, style="dim"), sign, write.seat.person, write.seat.section, write.seat.role)
    return table


def _figures(verdict: Verdict) -> Table:
    table = Table.grid(padding=(0, 3))
    reads = sum(count for kind, count in verdict.calls.items() if kind != "writes")
    rows = [
        ("changes in", str(verdict.changes_in), "changed SIS rows, duplicates included"),
        ("events out", str(verdict.events_out), "acknowledged by Kafka"),
        ("no-ops suppressed", str(verdict.suppressed), "duplicates, older rows and rows that move nobody"),
        ("SIS hears 200 after", _latency(verdict.answers), f"{_count(verdict.answers)}; the change is in mirror and log by then"),
        ("Canvas calls made", str(reads + verdict.calls.get("writes", 0)), _calls(verdict)),
        (
            "Canvas writes saved",
            str(verdict.saved),
            f"{verdict.memberships} membership rows came, {verdict.writes} writes went out",
        ),
        ("adds, SIS → Canvas", _latency(verdict.timing.adds), _count(verdict.timing.adds)),
        (
            "drops, SIS → Canvas",
            _latency(verdict.timing.drops),
            f"{_count(verdict.timing.drops)}; 3 s of it wait for a swap's add",
        ),
        (
            "after a late object",
            _latency(verdict.timing.waited),
            f"{_count(verdict.timing.waited)} before Canvas knew person or section",
        ),
        ("coalesced", str(verdict.timing.coalesced), "moves taken back before Canvas had to hear of them"),
    ]
    for name, value, remark in rows:
        table.add_row(name, Text(value, style="bold"), Text(remark, style="dim"))
    return table


def _told(scene: Scene) -> str:
    if scene.hold_seconds is None:
        return "The bad feed was not held."
    add = "did not arrive" if scene.add_seconds is None else f"was in Canvas after {scene.add_seconds:.1f} s"
    return (
        f"The bad feed was held after {scene.hold_seconds:.1f} s: {scene.cause}\n"
        f"{scene.held} of {scene.dropped} removals were held, {scene.lost} seats lost; a registration for the same class {add}. "
        f"{'The SIS took its message back, and the hold was over.' if scene.over else 'The hold did not end.'}"
    )


def _calls(verdict: Verdict) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in verdict.calls.items() if count)


def _latency(latencies: Latencies) -> str:
    figures = [latencies.percentile(share) for share in (0.5, 0.95, 1.0)]
    return " / ".join("-" if figure is None else f"{figure:.2f}" for figure in figures) + " s"


def _count(latencies: Latencies) -> str:
    return f"p50 / p95 / max of {len(latencies.values)}"


def _reasons(verdict: Verdict) -> Iterable[str]:
    for difference in verdict.differences[:_SHOWN_DIFFERENCES]:
        seat = difference.seat
        yield f"  {difference.kind:<10} {seat.person} in {seat.section} as {seat.role}; Canvas: {difference.state}"
    if len(verdict.differences) > _SHOWN_DIFFERENCES:
        yield f"  ... and {len(verdict.differences) - _SHOWN_DIFFERENCES} more"
    for write in verdict.unexplained[:_SHOWN_DIFFERENCES]:
        yield f"  the SIS never asked for: {write.seat.person} in {write.seat.section} as {write.seat.role} → {write.state}"
    if verdict.refused:
        yield f"  the publisher did not accept {verdict.refused} messages"
    yield from (f"  Canvas complains: {each}" for each in verdict.violations[:_SHOWN_DIFFERENCES])

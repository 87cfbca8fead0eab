"""Progress of a stage: a bar on a terminal, a sparse line otherwise."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from matrix_video.services.console import make_console, say

_EVERY_SECONDS: Final = 30.0


class Advance(Protocol):
    """Says that ``count`` more units are done; ``note`` stands beside the count until the next."""

    def __call__(self, count: int, note: str = "") -> None: ...


@contextmanager
def progress(title: str, total: int) -> Generator[Advance]:
    """Yield ``advance(count)``, to be called after ``count`` more units of ``total`` are done.

    Written to stderr, so that a command's result can be piped. Without a terminal: one line every
    half minute and one at the end; none for a stage of no work.
    """
    console = make_console(stderr=True)
    if not console.is_terminal:
        yield _plain(console, title, total)
        return
    columns = (
        TextColumn("{task.description:<24}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
    )
    note = TextColumn("{task.fields[note]}", style="dim", markup=False)
    with Progress(*columns, TimeRemainingColumn(), note, console=console) as bars:
        task = bars.add_task(title, total=total, note="")

        def advance(count: int, note: str = "") -> None:
            bars.update(task, advance=count, note=note)

        yield advance


def _plain(console: Console, title: str, total: int) -> Advance:
    done, last = 0, time.monotonic()

    def advance(count: int, note: str = "") -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if done >= total or now - last > _EVERY_SECONDS:
            say(console, f"{title}: {done}/{total}  {note}".rstrip())
            last = now

    return advance

"""Progress of a stage: a bar on a terminal, a sparse line otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_EVERY_SECONDS: Final = 30.0


@contextmanager
def progress(title: str, total: int) -> Generator[Callable[[int], None]]:
    """Yield ``advance(count)``, to be called after ``count`` more units of ``total`` are done.

    Written to stderr, so that a command's result can be piped. Without a terminal: one line every
    half minute and one at the end; none for a stage of no work.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain(console, title, total)
        return
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bars:
        task = bars.add_task(title, total=total)
        yield lambda count: bars.advance(task, count)


def _plain(console: Console, title: str, total: int) -> Callable[[int], None]:
    done, last = 0, time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if done >= total or now - last > _EVERY_SECONDS:
            console.print(f"{title}: {done}/{total}", highlight=False)
            last = now

    return advance

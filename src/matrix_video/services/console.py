"""The terminal: names, captions and replies are printed as they are, never read as markup."""

from __future__ import annotations

from rich.console import Console


def make_console(*, stderr: bool = False) -> Console:
    """The console of every command: ``[/b]`` and ``:cat:`` in a line or in a table are text.

    ``stderr``: for what is not the command's result.
    """
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def say(console: Console, line: str, style: str | None = None) -> None:
    """Print one line without wrapping it: a path broken in two can be neither copied nor found."""
    console.print(line, style=style, soft_wrap=True)

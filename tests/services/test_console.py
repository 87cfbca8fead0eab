"""What the terminal shows: names and replies never as markup, few lines of progress."""

import ast
from pathlib import Path

import pytest
from rich.table import Table

import matrix_video
from matrix_video.services.console import make_console, say
from matrix_video.services.progress import progress

HOSTILE = ("[/x]", "[bold]", "[red]a[/red]", ":smile:", "[link=file:///x]y", "\\[a]")


@pytest.mark.parametrize("terminal", ["0", "1"])
@pytest.mark.parametrize("text", HOSTILE)
def test_lines_tables_and_bars_show_text_as_it_is(
    text: str, terminal: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    if terminal == "1":
        monkeypatch.setenv("FORCE_COLOR", "1")
    console = make_console()
    say(console, f"{text} line", style="bold")
    table = Table(text, "n", title=f"{text} title")
    table.add_row(f"{text} cell", "1")
    console.print(table)
    with progress(f"{text} t", 1) as advance:
        advance(1, f"{text} note")
    out, err = capsys.readouterr()
    for shown in ("line", "cell"):
        assert f"{text} {shown}" in out
    assert f"{text} t" in err
    assert f"{text} note" in err


def test_there_is_no_other_console() -> None:
    """Nor another progress column that reads markup: `rich` reads it unless told otherwise."""
    for file in Path(matrix_video.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func).rpartition(".")[2]
            off = any(
                word.arg == "markup" and ast.unparse(word.value) == "False"
                for word in node.keywords
            )
            assert off or name not in {"Console", "TextColumn", "from_markup"}, (file, node.lineno)


@pytest.mark.parametrize(
    ("total", "seconds", "lines"),
    [
        (0, 0, ""),  # a stage without work says nothing
        (3, 0, "stage: 3/3  loss 0.3\n"),
        (6, 20, "stage: 2/6  loss 0.3\nstage: 4/6  loss 0.3\nstage: 6/6  loss 0.3\n"),
    ],
)
def test_lines_are_few_and_the_last_one_is_complete(
    total: int,
    seconds: int,
    lines: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = (seconds * count for count in range(100))
    monkeypatch.setattr("matrix_video.services.progress.time.monotonic", lambda: next(clock))
    with progress("stage", total) as advance:
        for _ in range(total):
            advance(1, "loss 0.3")
    assert capsys.readouterr().err == lines

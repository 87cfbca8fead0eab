"""Progress: few lines without a terminal, the last one complete; a bar on one."""

import pytest

from matrix_video.services.progress import progress


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


def test_a_terminal_gets_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress("stage", 2) as advance:
        advance(2, "loss 0.3")
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert "loss 0.3" in shown

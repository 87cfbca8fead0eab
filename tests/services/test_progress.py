"""Progress without a terminal: few lines, the last one complete."""

import pytest

from matrix_video.services.progress import progress


def test_one_line_when_done(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("stage", 3) as advance:
        for _ in range(3):
            advance(1)
    assert capsys.readouterr().err == "stage: 3/3\n"


def test_a_stage_without_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("stage", 0):
        pass
    assert capsys.readouterr().err == ""


def test_long_stages_speak_every_half_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr("matrix_video.services.progress.time.monotonic", lambda: next(clock))
    with progress("stage", 6) as advance:
        for _ in range(6):
            advance(1)
    assert capsys.readouterr().err == "stage: 2/6\nstage: 4/6\nstage: 6/6\n"


def test_a_terminal_gets_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress("stage", 2) as advance:
        advance(2)
    assert "2/2" in capsys.readouterr().err


def test_a_note_stands_beside_the_count(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with progress("stage", 1) as advance:
        advance(1, "loss 0.3")
    assert capsys.readouterr().err == "stage: 1/1  loss 0.3\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress("stage", 1) as advance:
        advance(1, "loss 0.3")
    assert "loss 0.3" in capsys.readouterr().err

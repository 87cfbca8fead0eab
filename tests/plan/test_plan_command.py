"""The command: tables, verdict, JSON."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from matrix_video.plan.machine import Machine
from matrix_video.plan.predict import Prediction
from matrix_video.plan.remedies import Remedy, Way
from matrix_video.plan.show import duration, gigabytes, show, verdict
from matrix_video.recipes.plan import run

from .conftest import LAYERS, question


def test_a_plan_that_fits(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sub/plan.json"
    config = question(folder, device="h100", remedies=False, out=out, mode="generate")
    assert run(config) == 0
    told = capsys.readouterr().out
    assert "48 video and 32 text tokens" in told
    assert "seconds are an estimate: h100, 40% of its peak" in told
    assert "fits: 1.01 of 80.0 GB on h100" in told
    found = json.loads(out.read_text())
    assert found["fits"] is True
    assert sum(found["parts"].values()) == found["total"]
    assert len(found["layers"]) == LAYERS


def test_a_plan_that_does_not_fit(plan: Callable[..., Prediction], here: Machine) -> None:
    found = plan(mode="generate")
    way = Way(("--batch 1",), 500_000_000, 7200.0, fits=True)
    remedy = Remedy("one sample at a time", "--batch 1", 10_000_000_000, 500_000_000, 7200.0)
    console = Console(record=True, width=120)
    show(found, here, 600_000_000, (remedy,), way, console)
    told = console.export_text()
    assert "does not fit: 1.01 GB, but 0.6 GB" in told
    assert "most is needed in: decode" in told
    assert "fits with --batch 1: 0.5 GB, 2.0 hours" in told
    assert "one sample at a time" in told
    neither = Way(("--batch 1",), 700_000_000, 7200.0, fits=False)
    assert "Take a device with more memory" in [*verdict(found, here, 600_000_000, neither)][-1]


def test_numbers_are_for_people() -> None:
    assert [gigabytes(n) for n in (12_340_000_000, 1_234_000_000)] == ["12.3", "1.23"]
    assert [duration(s) for s in (1.5, 180, 9000, 3e5)] == [
        "1.5 s", "3.0 minutes", "2.5 hours", "3.5 days",
    ]  # fmt: skip

"""``matrix analyze --trajectory``: generated videos, their tracks, and the run that made them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import matrix_video.analysis.run as run_module
from matrix_video.analysis.records import read_table
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.data.dataset import Dataset, DatasetWriter
from matrix_video.generation.config import GenerateConfig
from matrix_video.generation.run import generate
from matrix_video.recipes.analyze import AnalyzeCommand, run
from matrix_video.services.errors import MatrixError
from matrix_video.world.captions import vocabulary
from matrix_video.world.write import write_split


def test_maps_are_read_along_the_sampling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_module, "draw_plots", lambda *_: None)  # slow, and of no interest here
    pipe: Any = tiny_pipeline(layers=2, size=64, num_frames=17, vocab=vocabulary())
    pipe.save_pretrained("model")
    write_split(Path("prompts"), 3, 0, "val")
    made = generate(
        GenerateConfig(model="model", prompts=Path("prompts"), out=Path("made"), steps=4, batch=3)
    )
    # As `matrix evaluate --tracked` leaves them: the videos with tracks of their own.
    videos, truth = Dataset(made), Dataset(Path("prompts"))
    with DatasetWriter(Path("tracked")) as writer:
        for i in range(2):
            writer.add_file(videos.sample(i), videos.video_path(i), truth.tracks(i))
    scores = [{"id": f"val-0-00000{i}", "sgi_raw": float(i), "margin": 0.5} for i in range(2)]
    Path("scores.json").write_text(json.dumps({"videos": scores}))

    command = AnalyzeCommand(
        model="model",
        data=Path("tracked"),
        trajectory=Path("made"),
        labels=Path("scores.json"),
        out=Path("run"),
        levels=2,
        overlays=1,
        draws=100,
    )
    assert run(command) == 0
    assert "1 successes and 1 failures" in capsys.readouterr().out
    table = read_table(Path("run") / "attention.parquet")
    assert len(table) == 2 * 2 * 2 * 3 * 2  # samples, layers, levels, phrases, kinds
    levels, times = table.index("level"), table.number("timestep")
    # Steps 2 and 0 of the scheduler's four, from the least noise on.
    assert {(int(p), float(t)) for p, t in zip(levels, times, strict=True)} == {
        (0, 499.0),
        (1, 999.0),
    }
    assert any((Path("run") / "overlays").iterdir())

    other = command.model_copy(update={"data": Path("prompts"), "out": Path("run2")})
    with pytest.raises(MatrixError, match=r"val-0-000000: the video, sampled again, differs"):
        run(other)  # the prompts' own videos, which nobody generated
    other = command.model_copy(update={"model": "tiny", "out": Path("run3")})
    with pytest.raises(MatrixError, match=r"the videos were made by model .* Give --model model"):
        run(other)

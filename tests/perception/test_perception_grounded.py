"""GroundingDINO and SAM 2 behind one door, with random weights: wiring, boxes, errors."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from matrix_video.perception.grounded import GroundedFinder, normalised
from matrix_video.services.errors import MatrixError

FRAME = np.random.default_rng(0).integers(0, 256, size=(60, 90, 3), dtype=np.uint8)


class Drawn(torch.nn.Module):
    """Stands for SAM 2: the mask of a box is the box."""

    config = SimpleNamespace(prompt_encoder_config=SimpleNamespace(image_size=64))
    device = torch.device("cpu")

    def forward(self, pixel_values: Any, input_boxes: Any, *, multimask_output: bool) -> Any:
        assert pixel_values.shape == (1, 3, 64, 64)
        assert not multimask_output
        rows, columns = torch.meshgrid(
            torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij"
        )
        masks = [
            (columns > box[0]) & (columns < box[2]) & (rows > box[1]) & (rows < box[3])
            for box in input_boxes[0]
        ]
        return SimpleNamespace(pred_masks=torch.stack(masks)[None, :, None] * 2.0 - 1.0)


class Told(torch.nn.Module):
    """Stands for GroundingDINO: boxes and logits [Q,L] as it is told; keeps what it was asked."""

    config = SimpleNamespace(max_text_len=256)
    device = torch.device("cpu")

    def __init__(self, boxes: list[list[float]], logits: list[list[float]]) -> None:
        super().__init__()
        self.boxes, self.logits = torch.tensor(boxes), torch.tensor(logits)
        self.asked: list[dict[str, Any]] = []

    def forward(self, **given: Any) -> Any:
        self.asked.append(given)
        padding = torch.full((len(self.boxes), 10), -torch.inf)
        logits = torch.cat([self.logits, padding], dim=1)
        return SimpleNamespace(logits=logits[None], pred_boxes=self.boxes[None])


def test_a_phrase_is_asked_alone_and_stops_do_not_stand_for_it(tokenizer: Any) -> None:
    # Tokens: [CLS] red ball . [SEP]; the second query looks at the full stop alone.
    told = Told(
        [[0.25, 0.3, 0.5, 0.4], [0.75, 0.5, 0.5, 1.0], [0.26, 0.3, 0.5, 0.4]],
        [[9, -9, 2, -9, 9], [9, -9, -9, 9, 9], [-9, 1, -9, -9, -9]],
    )
    finder = GroundedFinder(tokenizer, told, Drawn())
    (found,) = finder.propose(FRAME, ["Red ball."])
    assert len(told.asked) == 1
    assert told.asked[0]["input_ids"].tolist() == [[101, 6, 8, 1012, 102]]
    assert told.asked[0]["pixel_values"].shape == (1, 3, 800, 1200)  # the shorter side is 800
    assert [p.score for p in found] == [pytest.approx(torch.tensor(2.0).sigmoid().item())]
    expected = np.zeros((60, 90), dtype=bool)
    expected[6:30, :45] = True  # the third box is the first again
    assert (found[0].mask_HW != expected).mean() < 0.03
    nothing, again = finder.propose(FRAME, [" . ", "red. ball"])
    assert (nothing, len(again)) == ([], 1)
    assert told.asked.pop()["input_ids"].tolist() == [[101, 6, 8, 1012, 102]]
    assert len(told.asked) == 1  # there is nothing to ask for
    other, same = finder.propose(FRAME, ["blue ball", "red ball"])
    assert len(told.asked) == 3
    assert len(other) == len(same) == 1
    assert GroundedFinder(tokenizer, told, Drawn(), threshold=0.9).propose(FRAME, ["red ball"]) == [
        []
    ]


def test_real_architectures_are_loaded_and_run(
    detector_folder: Path, segmenter_folder: Path
) -> None:
    finder = GroundedFinder.load(
        str(detector_folder), str(segmenter_folder), threshold=0.0, device="cpu"
    )
    first, second = finder.propose(FRAME, ["red ball", "man in a blue shirt"])
    for found in (first, second):
        assert 0 < len(found) <= 20
        assert all(p.mask_HW.shape == (60, 90) and p.mask_HW.dtype == bool for p in found)
        assert [p.score for p in found] == sorted((p.score for p in found), reverse=True)
    assert [p.score for p in first] != [p.score for p in second]


def test_models_that_cannot_be_read_are_named(detector_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MatrixError, match=r"detector: '.*empty' could not be read as a detector"):
        GroundedFinder.load(str(tmp_path / "empty"), str(tmp_path / "empty"))
    with pytest.raises(MatrixError, match=r"segmenter: .*could not be read as a segmenter") as told:
        GroundedFinder.load(str(detector_folder), str(tmp_path / "empty"))
    assert "give a folder in transformers' format with safetensors" in str(told.value)
    # Weights of another model would leave all of the segmenter's own random.
    with pytest.raises(MatrixError, match=r"segmenter: .*is no Sam2Model: \d+ of its weights are"):
        GroundedFinder.load(str(detector_folder), str(detector_folder))
    broken = shutil.copytree(detector_folder, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(MatrixError, match=r"detector: .*could not be read as a detector"):
        GroundedFinder.load(str(broken), str(broken))


def test_sam_2_sees_imagenets_mean_as_0_and_deviation_as_1() -> None:
    grey = np.array([[[124, 116, 104], [182, 174, 161]]], dtype=np.uint8)
    found = normalised(grey)
    assert found.shape == (3, 1, 2)
    assert found[:, 0, 0].abs().max() < 0.02
    assert (found[:, 0, 1] - 1).abs().max() < 0.02

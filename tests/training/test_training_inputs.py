"""Clips that cannot be trained on: all told at once, before the first is encoded, or left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from matrix_video.backbones.loading import backbone_for
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.data.dataset import Dataset, DatasetWriter
from matrix_video.data.sample import Instance
from matrix_video.services.errors import MatrixError
from matrix_video.training.config import TrainConfig
from matrix_video.training.inputs import encoded_set, trainable
from matrix_video.training.run import train

from .conftest import make_clip, make_sample

FAULTS: dict[str, tuple[int, int, str, str]] = {
    "length": (7, 32, "", "a clip of 7 frames"),
    "size": (9, 30, "", "frames of 30 x 30 pixels"),
    "one frame": (1, 32, "", "one frame, in which SPA has nothing to follow"),
    "phrase": (9, 32, "the " * 40, "red ball"),
    "track": (9, 32, "", "id2"),
    "crowd": (9, 32, "", r"it has 6\d instances, an id map has room for 64"),
}


def spoilt(folder: Path, fault: str) -> Path:
    """Clips 1 and 3 of five have the fault."""
    frames, side, words, _ = FAULTS[fault]
    with DatasetWriter(folder) as writer:
        for index in range(5):
            pixels, tracks = make_clip(index)
            if index in (1, 3):
                pixels = pixels[:frames, :side, :side]
                tracks = {
                    n: type(t).from_masks(t.masks()[:frames, :side, :side])
                    for n, t in tracks.items()
                }
            sample = make_sample(index)
            if fault == "crowd" and index in (1, 3):
                more = [Instance(id=f"id{i}", noun="box", phrase="blue box") for i in range(3, 67)]
                sample = sample.model_copy(update={"instances": (*sample.instances, *more)})
                tracks |= {one.id: tracks["id2"] for one in more}
            writer.add(sample, pixels, 8.0, tracks, lossless=True)
    if fault == "track":
        for name in ("0001", "0003"):
            lost = folder / "tracks" / f"{name}.json"
            held = json.loads(lost.read_text())
            held["instances"].pop("id2")
            lost.write_text(json.dumps(held))
    file = folder / "metadata.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        if line.get("id") in ("0001", "0003") and words:
            moved(line, words)
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


def moved(line: dict[str, Any], words: str) -> None:
    """The caption after so many words that its phrases are cut off."""
    line["caption"] = words + line["caption"]
    spans = [s for i in line["instances"] for s in (*i["mentions"], *i["noun_spans"])]
    for span in (*spans, *(act["verb_span"] for act in line["interactions"])):
        span["start"] += len(words)
        span["end"] += len(words)


@pytest.mark.parametrize("fault", FAULTS)
def test_all_are_refused_before_the_first_is_encoded(
    fault: str,
    tmp_path: Path,
    config: Callable[..., TrainConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = spoilt(tmp_path / "data", fault)
    told = FAULTS[fault][3]
    monkeypatch.setattr("matrix_video.training.inputs.encode_clip", None)  # not to be called
    problem = rf"2 of 4 clips cannot be trained on: 0001.*0003.*{told}.*--leave-out"
    with pytest.raises(MatrixError, match=problem):
        train(config(data=folder), tiny_pipeline(0))
    backbone, data = backbone_for(tiny_pipeline(0)), Dataset(folder)
    with pytest.warns(UserWarning, match=rf"left out: 2 of 5 .*{told}"):
        kept = trainable(backbone, data, config(data=folder, leave_out=True))
    assert [sample.id for sample in kept.samples] == ["0000", "0002", "0004"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("call", "index"), [(2, 0), (3, 1)], ids=["first frame", "video"])
def test_latents_that_are_no_numbers_are_told_with_their_sample(
    value: float, call: int, index: int, tmp_path: Path, config: Callable[..., TrainConfig]
) -> None:
    """A clip is encoded in two calls: its video, and its first frame. No cache keeps the clip."""
    pipe: Any = tiny_pipeline(0)
    calls: list[int] = []

    def spoil(*seen: Any) -> Any:
        calls.append(1)
        latents, rest = seen[-1]
        return (latents * value if len(calls) == call else latents), rest

    pipe.vae.encoder.register_forward_hook(spoil)
    cache = tmp_path / "cache"
    told = rf"sample 000{index}: the VAE's latents are NaN or infinite in \d+ of .*float32"
    with pytest.raises(MatrixError, match=told):
        train(config(cache=cache), pipe)
    assert len(list(cache.glob("*"))) == index


def test_tiles_and_whole_frames_have_caches_apart(
    tmp_path: Path, config: Callable[..., TrainConfig]
) -> None:
    pipe: Any = tiny_pipeline(0)
    cache = tmp_path / "cache"
    asked = {"steps": 1, "heldout_samples": 0, "cache": cache}
    train(config(out=tmp_path / "whole", **asked), pipe)
    count = len(list(cache.iterdir()))
    train(config(out=tmp_path / "tiled", tiling=True, **asked), pipe)
    assert len(list(cache.iterdir())) == 2 * count


def test_plain_lora_needs_no_phrase(tmp_path: Path, config: Callable[..., TrainConfig]) -> None:
    """A phrase that is cut is then one that no loss looks for; a cache tells the two apart."""
    backbone, data = backbone_for(tiny_pipeline(0)), Dataset(spoilt(tmp_path / "data", "phrase"))
    plain = config(data=data.path, sga=0, spa=0, cache=tmp_path / "cache")
    assert trainable(backbone, data, plain) is data
    encoded = encoded_set(backbone, data, plain, "encode")
    assert [len(encoded[i].phrase_PL) for i in range(5)] == [3, 0, 3, 0, 3]
    assert len(list((tmp_path / "cache").iterdir())) == 5


def test_an_id_map_on_a_text_to_video_base_is_refused_first(
    config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("matrix_video.training.inputs.encode_clip", None)
    with pytest.raises(MatrixError, match="takes no first frame, so it has no id map"):
        train(config(), tiny_pipeline(0, i2v=False))

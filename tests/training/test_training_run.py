"""Whole runs: folders, layers.json, and everything that is wrong before the first update."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from matrix_video.analysis.layers import DataFacts, Evidence, LayerChoice, ModelFacts, write_choice
from matrix_video.backbones.adapter import load_adapter
from matrix_video.backbones.fingerprint import fingerprint
from matrix_video.backbones.loading import backbone_for
from matrix_video.backbones.ltx import LTXBackbone
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.data.dataset import Dataset, DatasetWriter
from matrix_video.data.sample import Instance, Interaction, Sample, Span
from matrix_video.data.tracks import MaskTrack
from matrix_video.data.transform import ClipTransform
from matrix_video.recipes.train import TrainCommand
from matrix_video.recipes.train import run as run_command
from matrix_video.services.errors import MatrixError
from matrix_video.training.config import TrainConfig
from matrix_video.training.encode import encode_clip
from matrix_video.training.inputs import chosen_layers, encoded_set, read_clips
from matrix_video.training.run import train

Make = Callable[..., TrainConfig]


def test_a_run_leaves_everything_behind_and_is_not_repeated(pipe: Any, config: Make) -> None:
    settings = config(steps=2)
    keys = list(pipe.transformer.state_dict())
    result = train(settings, pipe)
    assert result.adapter == settings.out / "adapter"
    assert list(pipe.transformer.state_dict()) == keys
    assert not pipe.transformer.patch_embed.proj._forward_hooks
    names = {file.name for file in settings.out.iterdir()}
    assert names == {
        "adapter", "checkpoints", "config.yaml", "done", "environment.json", "inputs.json",
        "metrics.jsonl"
    }  # fmt: skip
    info = json.loads((settings.out / "adapter" / "matrix_adapter.json").read_text())
    assert info["facts"]["v2t"] == [0, 1]
    assert info["facts"]["steps"] == 2
    before = (settings.out / "metrics.jsonl").read_bytes()
    again = train(settings)  # without the pipeline: nothing is loaded
    assert (again.adapter, again.steps) == (result.adapter, 2)
    assert (settings.out / "metrics.jsonl").read_bytes() == before
    with pytest.raises(MatrixError, match=r"a run with seed = 0, this one has 1"):
        train(config(steps=2, seed=1), pipe)
    adapter = load_adapter(tiny_pipeline(0), result.adapter)
    assert adapter.condition is not None


def test_the_cache_serves_the_next_run(pipe: Any, config: Make, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = config(steps=2, cache=cache, out=tmp_path / "a")
    plain = config(steps=2, out=tmp_path / "b")
    train(first, pipe)
    files = {file.name: file.stat().st_mtime_ns for file in cache.iterdir()}
    assert len(files) == 5
    for name, age in (("old", 90_000), ("new", 0)):  # of a process that is not, at least not here
        (cache / f".partial-4194305-{name}").mkdir()
        when = time.time() - age
        os.utime(cache / f".partial-4194305-{name}", (when, when))
    files[".partial-4194305-new"] = (cache / ".partial-4194305-new").stat().st_mtime_ns
    train(config(steps=2, cache=cache, out=tmp_path / "c"), pipe)
    assert {file.name: file.stat().st_mtime_ns for file in cache.iterdir()} == files
    (cache / ".partial-4194305-new").rmdir()
    train(plain, pipe)
    one, other = (
        load_file(run.out / "adapter" / "pytorch_lora_weights.safetensors")
        for run in (plain, first)
    )
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    train(config(steps=2, cache=cache, mentions="noun", out=tmp_path / "d"), pipe)
    train(config(steps=2, cache=cache, up=1, out=tmp_path / "e"), tiny_pipeline(0))
    assert len(list(cache.iterdir())) == 15
    changed = tiny_pipeline(0)
    changed.vae.encoder.conv_in.conv.weight.data.mul_(2)
    train(config(steps=2, cache=cache, out=tmp_path / "f"), changed)
    assert len(list(cache.iterdir())) == 20


def test_text_and_image_to_video_share_no_cached_sample(
    config: Make, tmp_path: Path, data_path: Path
) -> None:
    """The two pipelines of LTX are made of the very same parts."""
    settings = config(cache=tmp_path / "cache")
    for variant in LTXBackbone.variants:
        backbone = LTXBackbone(LTXBackbone.tiny(variant))
        found = encoded_set(backbone, Dataset(data_path).subset(["0000"]), settings, "encode")
        assert (found[0].image_FCHW is not None) == backbone.takes_image


def test_a_run_does_not_go_on_with_other_clips_or_another_base(
    pipe: Any, config: Make, tmp_path: Path, data_path: Path
) -> None:
    data = shutil.copytree(data_path, tmp_path / "data")
    settings = config(data=data, steps=2)
    train(settings, pipe)
    shutil.rmtree(settings.out / "done")
    file = data / "metadata.jsonl"
    text = file.read_text()
    file.write_text("".join(text.splitlines(keepends=True)[1:]))
    with pytest.raises(
        MatrixError, match=r"data: metadata\.jsonl has changed since this run began"
    ):
        train(settings, pipe)
    file.write_text(text)
    told = r"step-00000002\.safetensors: the base's weights or the data set's samples have changed"
    with pytest.raises(MatrixError, match=told):
        train(settings, tiny_pipeline(1))
    assert train(settings, pipe).steps == 2


def test_held_out_samples(config: Make, data_path: Path) -> None:
    def ids(**changes: Any) -> tuple[list[str], list[str]]:
        settings = config(**changes)
        data, held = read_clips(settings)
        return [s.id for s in data.samples], [s.id for s in held.samples]

    assert ids(heldout_samples=2) == (["0000", "0001", "0002"], ["0003", "0004"])
    assert ids(heldout_samples=0) == ([f"000{i}" for i in range(5)], [])
    assert ids(limit=3) == (["0000", "0001"], ["0002"])
    assert ids(val_data=data_path, heldout_samples=2)[1] == ["0000", "0001"]
    with pytest.raises(MatrixError, match=r"no sample is left to train on \(9 are kept"):
        ids(heldout_samples=9)


def test_without_held_out_samples(pipe: Any, config: Make) -> None:
    settings = config(heldout_samples=0)
    assert train(settings, pipe).absorbed is None
    lines = (settings.out / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]
    assert "heldout" not in "".join(lines)


def test_no_phrase_for_sga(config: Make, tmp_path: Path, data_path: Path) -> None:
    source = Dataset(data_path)
    with DatasetWriter(tmp_path / "bare") as writer:
        for clip in source:
            bare = clip.sample.model_copy(update={"interactions": ()})
            writer.add(bare, clip.video.frames_THWC, 8.0, clip.tracks, lossless=True)
    settings = config(data=tmp_path / "bare")
    with pytest.raises(MatrixError, match=r"SGA loss covers no token: no caption.*--sga 0"):
        train(settings, tiny_pipeline(0))
    with pytest.raises(
        MatrixError, match=r"SPA loss covers no token: no sample has an instance in its first"
    ):
        train(config(data=tmp_path / "bare", sga=0, out=tmp_path / "x"), tiny_pipeline(0))
    train(config(data=tmp_path / "bare", sga=0, spa=0, out=tmp_path / "y"), tiny_pipeline(0))


def test_a_crowd(pipe: Any, config: Make, tmp_path: Path) -> None:
    """Fourteen instances, eight of them in four interactions: no limit of five."""
    clause = "red ball pushes blue box "
    caption = (clause * 4).strip()

    def span(text: str, clause_index: int) -> Span:
        start = len(clause) * clause_index + clause.index(text)
        return Span(start=start, end=start + len(text))

    instances: list[Instance] = []
    interactions: list[Interaction] = []
    for i in range(4):
        for k, (colour, noun) in enumerate((("red", "ball"), ("blue", "box"))):
            instances.append(
                Instance(
                    id=f"id{2 * i + k + 1}",
                    noun=noun,
                    phrase=f"{colour} {noun}",
                    mentions=(span(f"{colour} {noun}", i),),
                    noun_spans=(span(noun, i),),
                )
            )
        interactions.append(
            Interaction(
                subject=f"id{2 * i + 1}",
                verb="push",
                object=f"id{2 * i + 2}",
                verb_span=span("pushes", i),
            )
        )
    instances += [Instance(id=f"id{i}", noun="box", phrase="blue box") for i in range(9, 15)]
    with DatasetWriter(tmp_path / "crowd") as writer:
        for number in range(2):
            sample = Sample(
                id=f"{number}",
                file_name=f"videos/{number}.mp4",
                caption=caption,
                instances=tuple(instances),
                interactions=tuple(interactions),
            )
            masks = np.zeros((14, 9, 32, 32), bool)
            for i in range(14):
                masks[i, :, 2 * i : 2 * i + 2, 4 * number : 4 * number + 9] = True
            frames = np.random.default_rng(number).integers(0, 255, (9, 32, 32, 3), np.uint8)
            tracks = {f"id{i + 1}": MaskTrack.from_masks(masks[i]) for i in range(14)}
            writer.add(sample, frames, 8.0, tracks, lossless=True)
    settings = config(data=tmp_path / "crowd", heldout_samples=0, caption_dropout=0, steps=2)
    encoded = encode_clip(backbone_for(pipe), Dataset(settings.data)[0], mentions="full", up=2)
    assert len(encoded.phrase_PL) == len(encoded.target_PTHW) == 4 * 3
    assert len(encoded.ids_IHW) == 14
    assert train(settings, pipe).steps == 2


def choice(path: Path, pipe: Any, **changes: Any) -> Path:
    backbone = backbone_for(pipe)
    facts: dict[str, Any] = {
        "name": "somewhere/base",
        "family": backbone.family,
        "num_layers": backbone.num_layers,
        "fingerprint": fingerprint(backbone.transformer),
    }
    write_choice(
        path,
        LayerChoice(
            model=ModelFacts(**(facts | changes)),
            data=DataFacts(path="data", samples=1, hash="0"),
            v2t=(1,),
            v2v=(0, 1),
            evidence=Evidence(basis={}, groups=(), warnings=()),
        ),
    )
    return path


def test_layers_of_an_analysis(pipe: Any, config: Make, tmp_path: Path) -> None:
    backbone = backbone_for(pipe)
    settings = config(v2t=(), v2v=(), layers=choice(tmp_path / "layers.json", pipe))
    found = chosen_layers(settings, backbone)
    assert (found.v2t, found.v2v, found.union) == ((1,), (0, 1), (0, 1))
    here = fingerprint(backbone.transformer)
    other = here.model_copy(update={"architecture": "0" * 16})
    choice(tmp_path / "layers.json", pipe, num_layers=42, fingerprint=other)
    with pytest.raises(MatrixError, match=r"another architecture \(somewhere/base.*42 layers\)"):
        chosen_layers(settings, backbone)
    other = here.model_copy(update={"weights": "0" * 16})
    choice(tmp_path / "layers.json", pipe, fingerprint=other)
    with pytest.warns(UserWarning, match="chosen on other weights"):
        chosen_layers(settings, backbone)


def test_layers_that_cannot_be(pipe: Any, config: Make, tmp_path: Path) -> None:
    backbone = backbone_for(pipe)
    with pytest.raises(MatrixError, match=r"no layer to train is given.*matrix analyze"):
        chosen_layers(config(v2t=(), v2v=()), backbone)
    with pytest.raises(MatrixError, match="given twice"):
        chosen_layers(config(layers=tmp_path / "layers.json"), backbone)
    with pytest.raises(MatrixError, match=r"layers\.json: the file does not exist"):
        chosen_layers(config(v2t=(), v2v=(), layers=tmp_path / "layers.json"), backbone)
    with pytest.raises(MatrixError, match=r"layer 7 does not exist.*0 to 1"):
        chosen_layers(config(v2v=(7,)), backbone)
    with pytest.raises(MatrixError, match=r"SPA has weight 0\.05 but no v2v layer.*--spa 0"):
        chosen_layers(config(v2v=()), backbone)
    assert chosen_layers(config(v2v=(), spa=0), backbone).union == (0, 1)
    with pytest.raises(MatrixError, match=r"layer_weights: a weight is given for '1/v2y'.*1/v2v"):
        chosen_layers(config(layer_weights={"1/v2y": 2.0}), backbone)
    with pytest.raises(MatrixError, match=r"the weight of 1/v2v is 0, not a positive number"):
        chosen_layers(config(layer_weights={"0/v2t": 2.0, "1/v2v": 0.0}), backbone)


def resized(data: Path, out: Path, sizes: dict[str, tuple[int, int, int]]) -> Path:
    """A copy of a data set with some samples at other lengths and sizes."""
    with DatasetWriter(out) as writer:
        for index, sample in enumerate(Dataset(data).samples):
            frames, height, width = sizes.get(sample.id, (9, 32, 32))
            times = [min(t, 8) for t in range(frames)]
            moved = Dataset(data, ClipTransform(size=(height, width)))[index]
            tracks = {name: track.take(times) for name, track in moved.tracks.items()}
            pixels = moved.video.frames_THWC[times]
            writer.add(moved.sample, pixels, 8.0, tracks, lossless=True)
    return out


def test_clips_of_several_shapes_train_in_turns(
    pipe: Any, config: Make, tmp_path: Path, data_path: Path
) -> None:
    sizes = {"0001": (9, 48, 32), "0003": (9, 48, 32), "0004": (17, 32, 32)}
    data = resized(data_path, tmp_path / "mixed", sizes)
    whole = config(data=data, batch=2, cache=tmp_path / "cache", out=tmp_path / "a", steps=6)
    assert train(whole, pipe).steps == 6
    parts = whole.model_copy(update={"micro_batch": 1, "out": tmp_path / "b"})
    train(parts, pipe)
    ours, theirs = (
        load_file(r.out / "adapter/pytorch_lora_weights.safetensors") for r in (whole, parts)
    )
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], atol=2e-4, rtol=0)


def test_a_clip_that_the_model_cannot_take_is_named(
    pipe: Any, config: Make, tmp_path: Path, data_path: Path
) -> None:
    """Among the held-out clips too."""
    data = resized(data_path, tmp_path / "mixed", {"0004": (13, 32, 32)})
    for count in (0, 1):
        settings = config(data=data, heldout_samples=count, batch=1, out=tmp_path / f"{count}")
        with pytest.raises(
            MatrixError, match=r"cannot be trained on: 0004: a clip of 13 frames.*9 or 17"
        ):
            train(settings, pipe)
    assert train(config(data=data, num_frames=9, batch=1), pipe).steps == 4


def test_half_a_size(pipe: Any, config: Make) -> None:
    with pytest.raises(MatrixError, match="width: only one of height and width"):
        train(config(height=32), pipe)


def test_a_size_the_model_cannot_take(pipe: Any, config: Make) -> None:
    with pytest.raises(MatrixError, match="this model takes multiples of"):
        train(config(height=36, width=32), pipe)


def test_command(
    config: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny_pipeline(0).save_pretrained(tmp_path / "model")
    settings = TrainCommand(**config(model=str(tmp_path / "model"), steps=2).model_dump())
    assert run_command(settings) == 0
    assert f"adapter: {settings.out / 'adapter'}" in capsys.readouterr().err.replace("\n", "")

    import os
    import signal

    from matrix_video.training.batches import make_batch

    def terminated(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return make_batch(*arguments)

    monkeypatch.setattr("matrix_video.training.loop.make_batch", terminated)
    again = TrainCommand(**(settings.model_dump() | {"out": tmp_path / "stopped"}))
    assert run_command(again) == 143
    assert "stopped after 1 updates" in capsys.readouterr().err
    monkeypatch.undo()
    assert run_command(again.model_copy(update={"resume": True})) == 0
    (file,) = (again.out / "checkpoints").iterdir()
    with safe_open(file, framework="pt") as opened:
        assert TrainConfig.model_validate_json(opened.metadata()["config"]) == TrainConfig(
            **again.model_dump()
        )
    nothing = again.model_copy(update={"resume": True, "out": tmp_path / "none"})
    with pytest.raises(MatrixError, match=r"none: resume: there is no run to go on with.*--out"):
        run_command(nothing)
    assert not nothing.out.exists()


def test_command_line() -> None:
    import tyro

    flags = ["--sga", "0", "--spa", "0", "--no-id-map", "--v2t", "1", "2", "--v2v", "0"]
    arguments = ["--data", "d", "--out", "o", *flags]
    found = tyro.cli(TrainCommand, args=arguments)
    assert (found.sga, found.spa, found.id_map) == (0, 0, False)
    assert (found.v2t, found.v2v, found.layers) == ((1, 2), (0,), None)
    assert not found.aligned
    for name, field in TrainConfig.model_fields.items():
        assert field.description, name

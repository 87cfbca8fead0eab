"""Runs of generation: what is written, and that stopping changes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import matrix_video.generation.run as run_module
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.condition import Condition
from matrix_video.backbones.fingerprint import fingerprint
from matrix_video.backbones.loading import backbone_for, load_pipeline
from matrix_video.backbones.precision import dtype_of
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.data.dataset import Dataset, DatasetWriter
from matrix_video.data.sample import Sample
from matrix_video.generation.config import GenerateConfig
from matrix_video.generation.replay import replay
from matrix_video.generation.run import generate
from matrix_video.generation.sampler import Prompt, Sampling, sample
from matrix_video.services.errors import MatrixError


def _config(prompts: Path, out: Path, **changes: object) -> GenerateConfig:
    values: dict[str, object] = {"prompts": prompts, "out": out, "steps": 2, "batch": 3}
    return GenerateConfig.model_validate({**values, **changes})


def _frames(folder: Path) -> list[NDArray[np.uint8]]:
    data = Dataset(folder)
    return [data.video(i).frames_THWC for i in range(len(data))]


def test_a_data_set_of_clips_is_written(prompts: Path, tmp_path: Path, backbone: Backbone) -> None:
    out = tmp_path / "run"
    folder = generate(_config(prompts, out), backbone)
    assert folder == out / "dataset"
    made, given = Dataset(folder), Dataset(prompts)
    assert [s.id for s in made.samples] == [s.id for s in given.samples]
    for new, old in zip(made.samples, given.samples, strict=True):
        assert new.source == f"matrix generate: {out}"
        assert new.model_copy(update={"source": None}) == old
    assert made.video(0).fps == pytest.approx(8.0)
    assert made.tracks(0) == {}  # nobody has tracked the generated video
    facts = json.loads((out / "generation.json").read_text())
    assert facts["prompts"] == str(prompts)
    assert facts["model"]["fingerprint"] == fingerprint(backbone.transformer).model_dump()
    assert (facts["adapter"], facts["id_map"], facts["seed"], facts["steps"]) == (None, False, 0, 2)
    # Lossless: pixels are those of the sampler.
    first = given[0]
    prompt = Prompt("p0", first.sample.caption, first.video.frames_THWC[0])
    (direct,) = sample(backbone, [prompt], 9, Sampling(steps=2))
    assert np.abs(direct.astype(int) - _frames(folder)[0].astype(int)).max() <= 1


def test_a_pipeline_held_in_bfloat16(
    prompts: Path, tmp_path: Path, backbone: Backbone, adapter: Path
) -> None:
    """With adapter and id map; what the card of the training holds, it holds for this too."""
    model = tmp_path / "model"
    backbone.pipe.save_pretrained(model)
    asked = {"model": str(model), "adapter": adapter, "limit": 2}
    whole = generate(_config(prompts, tmp_path / "float32", **asked))
    half = generate(_config(prompts, tmp_path / "bf16", weights="bf16", **asked))
    gaps = [
        np.abs(a.astype(int) - b.astype(int)).mean()
        for a, b in zip(_frames(whole), _frames(half), strict=True)
    ]
    assert 0 < max(gaps) < 4  # of 255
    loaded = Dataset(prompts).samples[:2]
    told = r"weights: .* in bfloat16, here they are in float32.*--weights and --quantize"
    with (
        pytest.raises(MatrixError, match=told),
        replay(tmp_path / "bf16", backbone_for(load_pipeline(str(model))), loaded),
    ):
        pass
    pipe = load_pipeline(str(model), dtype=dtype_of("bf16"))
    with replay(tmp_path / "bf16", backbone_for(pipe), loaded) as again:
        assert again.condition is not None


def test_a_stopped_run_goes_on_to_the_same_bytes(
    prompts: Path, tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = generate(_config(prompts, tmp_path / "whole"), backbone)
    out = tmp_path / "stopped"
    written = run_module._write  # pyright: ignore[reportPrivateUsage]
    count = 0

    def dying(*arguments: object) -> None:
        nonlocal count
        count += 1
        if count == 3:  # in the middle of the first batch
            raise KeyboardInterrupt
        written(*arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(run_module, "_write", dying)
    with pytest.raises(KeyboardInterrupt):
        generate(_config(prompts, out), backbone)
    assert not (out / "dataset" / "metadata.jsonl").exists()
    kept = (out / "dataset" / "videos" / "p0.mp4").stat().st_mtime_ns
    monkeypatch.setattr(run_module, "_write", written)
    batches: list[list[str]] = []

    def counting(
        backbone: Backbone,
        prompts: Sequence[Prompt],
        num_frames: int,
        sampling: Sampling,
        condition: Condition | None = None,
    ) -> NDArray[np.uint8]:
        batches.append([p.id for p in prompts])
        return sample(backbone, prompts, num_frames, sampling, condition)

    monkeypatch.setattr(run_module, "sample", counting)
    folder = generate(_config(prompts, out), backbone)
    assert batches == [["p0", "p1", "p2"], ["p3"]]
    for name in ("p0", "p1", "p2", "p3"):
        file = f"videos/{name}.mp4"
        assert (folder / file).read_bytes() == (whole / file).read_bytes()
    assert (folder / "videos" / "p0.mp4").stat().st_mtime_ns == kept  # finished videos are kept
    batches.clear()
    assert generate(_config(prompts, out), backbone) == folder
    assert batches == []


def test_adapter_scale_and_id_map(
    prompts: Path, tmp_path: Path, backbone: Backbone, adapter: Path
) -> None:
    def made(name: str, **changes: object) -> NDArray[np.uint8]:
        config = _config(prompts, tmp_path / name, limit=2, **changes)
        return np.stack(_frames(generate(config, backbone)))

    base = made("base")
    whole = made("whole", adapter=adapter)
    plain = made("plain", adapter=adapter, id_map=False)
    none = made("none", adapter=adapter, id_map=False, lora_scale=0.0)
    half = made("half", adapter=adapter, id_map=False, lora_scale=0.5)
    assert np.array_equal(none, base)
    for one, other in ((whole, plain), (plain, base), (half, plain), (half, base)):
        assert not np.array_equal(one, other)
    facts = json.loads((tmp_path / "whole" / "generation.json").read_text())
    assert facts["id_map"] is True
    mark = fingerprint(backbone.transformer)  # the base's, LoRA or not
    assert facts["model"]["fingerprint"] == mark.model_dump()
    assert len(facts["adapter_sha256"]) == 64
    assert json.loads((tmp_path / "plain" / "generation.json").read_text())["id_map"] is False
    assert np.array_equal(base, made("again"))  # the adapter was taken off


@pytest.mark.parametrize("file", ["pytorch_lora_weights.safetensors", "matrix_cond.safetensors"])
def test_a_stopped_run_does_not_go_on_with_another_adapter(
    prompts: Path,
    tmp_path: Path,
    backbone: Backbone,
    adapter: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
) -> None:
    own = shutil.copytree(adapter, tmp_path / "adapter")
    config = _config(prompts, tmp_path / "run", adapter=own, batch=1)
    written = run_module._write  # pyright: ignore[reportPrivateUsage]

    def dying(*arguments: Any) -> None:
        if arguments[0].has("p0"):
            raise KeyboardInterrupt
        written(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "_write", dying)
        with pytest.raises(KeyboardInterrupt):
            generate(config, backbone)
    content = bytearray((own / file).read_bytes())
    content[-1] ^= 1
    (own / file).write_bytes(content)
    told = rf"adapter: adapter: {file} has changed since this run began.*or give another"
    with pytest.raises(MatrixError, match=told):
        generate(config, backbone)
    content[-1] ^= 1
    (own / file).write_bytes(content)
    assert len(_frames(generate(config, backbone))) == 4


def test_another_size_and_length(prompts: Path, tmp_path: Path, backbone: Backbone) -> None:
    config = _config(
        prompts, tmp_path / "run", limit=1, num_frames=17, height=16, width=32, fps=4.0
    )
    with pytest.warns(UserWarning, match=r"squeezed 2\.00 times in aspect to 16x32"):
        folder = generate(config, backbone)
    video = Dataset(folder).video(0)
    assert video.frames_THWC.shape == (17, 16, 32, 3)
    assert video.fps == pytest.approx(4.0)


def test_bad_input_is_named(prompts: Path, tmp_path: Path, backbone: Backbone) -> None:
    with pytest.raises(MatrixError, match=r"lora_scale: a LoRA scale of 0\.5 is given"):
        _config(prompts, tmp_path / "a", lora_scale=0.5)
    with pytest.raises(MatrixError, match="height: only one of height and width is given"):
        _config(prompts, tmp_path / "a", width=32)
    with pytest.raises(MatrixError, match="a clip of 10 frames"):
        generate(_config(prompts, tmp_path / "b", num_frames=10), backbone)
    assert not (tmp_path / "b" / "dataset" / "metadata.jsonl").exists()
    with pytest.raises(MatrixError, match="the file is missing"):
        generate(_config(prompts, tmp_path / "c", adapter=tmp_path / "nowhere"), backbone)
    with pytest.raises(MatrixError, match="nowhere"):
        generate(_config(tmp_path / "nowhere", tmp_path / "d"), backbone)
    generate(_config(prompts, tmp_path / "e", limit=1), backbone)
    with pytest.raises(MatrixError, match="seed: the folder holds a run with seed = 0"):
        generate(_config(prompts, tmp_path / "e", limit=1, seed=1), backbone)


def test_prompts_of_two_sizes_are_refused_together(
    prompts: Path, tmp_path: Path, backbone: Backbone
) -> None:
    with DatasetWriter(prompts) as writer:
        write_prompt(writer, "p9", 17, 32)
    match = r"prompts p3 and p9 differ .*9 frames of 32x32 and 17 frames of 32x32"
    with pytest.raises(MatrixError, match=match):
        generate(_config(prompts, tmp_path / "a"), backbone)
    folder = generate(_config(prompts, tmp_path / "b", batch=1), backbone)
    assert [len(frames) for frames in _frames(folder)] == [9, 9, 9, 9, 17]


def test_pictures_say_no_length(prompts: Path, tmp_path: Path, backbone: Backbone) -> None:
    """All of them at once, before the model is loaded; --num-frames 1 is still to be had."""
    folder = tmp_path / "pictures"
    with DatasetWriter(folder) as writer:
        for known, video in ((clip.sample, clip.video) for clip in Dataset(prompts)):
            writer.add(known, video.frames_THWC[:1], 8.0, {}, lossless=True)
    told = r"num_frames: 4 of 4 clips .*: p0, p1, p2, p3: a picture does not .*\. Give --num-frames"
    with pytest.raises(MatrixError, match=told):
        generate(_config(folder, tmp_path / "a"))
    given = _config(folder, tmp_path / "b", num_frames=9, limit=1)
    assert len(Dataset(generate(given, backbone)).video(0)) == 9


def write_prompt(writer: DatasetWriter, name: str, frames: int, side: int) -> None:
    odd = Sample(id=name, file_name=f"videos/{name}.mp4", caption="the box")
    writer.add(odd, np.zeros((frames, side, side, 3), np.uint8), 8.0, {}, lossless=True)


@pytest.mark.parametrize(
    ("fault", "frames", "side", "told"),
    [
        ("length", 7, 32, "a clip of 7 frames"),
        ("size", 9, 30, "frames of 30 x 30 pixels"),
        ("picture", 1, 32, "a picture does not say"),
        ("id map", 9, 32, "there is no such id map"),
    ],
)
def test_prompts_that_do_not_fit_are_told_before_the_first_is_sampled(
    fault: str, frames: int, side: int, told: str, prompts: Path, adapter: Path, tmp_path: Path,
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with DatasetWriter(prompts) as writer:
        for name in ("p8", "p9"):
            write_prompt(writer, name, frames, side)
    asked: dict[str, object] = {}
    if fault == "id map":
        asked = {"adapter": adapter, "id_maps": tmp_path / "maps"}
        (tmp_path / "maps").mkdir()
        for name in ("p0", "p1", "p2", "p3"):
            Image.new("RGB", (32, 32)).save(tmp_path / f"maps/{name}.png")
    sampled: list[str] = []

    def black(_: object, given: Sequence[Prompt], *_more: object) -> NDArray[np.uint8]:
        sampled.extend(prompt.id for prompt in given)
        return np.zeros((len(given), 9, 32, 32, 3), np.uint8)

    monkeypatch.setattr(run_module, "sample", black)
    problem = rf"2 of 6 clips cannot be used as prompts: .*p8.*p9.*{told}.*--leave-out"
    with pytest.raises(MatrixError, match=problem):
        generate(_config(prompts, tmp_path / "a", **asked), backbone)
    assert not sampled
    with pytest.warns(UserWarning, match=f"left out: 2 of 6 .*{told}"):
        generate(_config(prompts, tmp_path / "b", leave_out=True, **asked), backbone)
    assert sampled == ["p0", "p1", "p2", "p3"]


def test_tiling_is_a_setting_of_the_run(prompts: Path, tmp_path: Path) -> None:
    own = backbone_for(tiny_pipeline(layers=2))
    whole = _frames(generate(_config(prompts, tmp_path / "whole", limit=1), own))
    tiled = _frames(generate(_config(prompts, tmp_path / "tiled", limit=1, tiling=True), own))
    assert own.tiled
    assert tiled[0].shape == whole[0].shape
    assert not np.array_equal(tiled, whole)
    assert json.loads((tmp_path / "tiled" / "generation.json").read_text())["tiling"] is True
    loaded = Dataset(prompts).samples[:1]
    with replay(tmp_path / "tiled", own, loaded):
        pass
    told = r"tiling: the videos were made without --tiling\. Leave out --tiling"
    with pytest.raises(MatrixError, match=told), replay(tmp_path / "whole", own, loaded):
        pass


def test_what_the_model_does_not_read_of_a_prompt_is_told(
    prompts: Path, tmp_path: Path, backbone: Backbone
) -> None:
    words = ["the"] * (backbone.num_text_tokens + 3)
    lines = [json.loads(line) for line in (prompts / "metadata.jsonl").read_text().splitlines()]
    lines[1] |= {"caption": " ".join(words), "instances": []}
    (prompts / "metadata.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    told = r"1 of 4 prompts are longer than the \d+ tokens .*lost are p1: 'the the the the'"
    with pytest.warns(UserWarning, match=told):
        generate(_config(prompts, tmp_path / "run"), backbone)

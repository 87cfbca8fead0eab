"""Every family's training, sampling and analysis on a GPU that is pretended (`pretend`): no tensor
stays behind on the CPU, and the videos are the CPU's.

No test asks which family it runs on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from matrix_video.analysis.collect import measure_clip
from matrix_video.analysis.probe import Probe
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.loading import backbone_for, families
from matrix_video.data.clip import Clip
from matrix_video.data.dataset import Dataset, DatasetWriter
from matrix_video.data.tracks import MaskTrack
from matrix_video.generation.config import GenerateConfig
from matrix_video.generation.replay import replay
from matrix_video.generation.run import generate
from matrix_video.plan.clips import stand_in
from matrix_video.recipes.watch import StudentVideos
from matrix_video.services.errors import MatrixError
from matrix_video.training import run
from matrix_video.training.config import TrainConfig

from ..conftest import image_variant
from .pretend import GPU, GpuTensor, pretended_gpu


def cases() -> Iterator[Any]:
    """All variants; by default one of each family, with an image where it takes one."""
    for name, point in families().items():
        variants: Sequence[str] = point.load().variants
        often = image_variant(variants)
        for one in variants:
            yield pytest.param(name, one, marks=[] if one == often else [pytest.mark.slow])


def write_clips(folder: Path, size: tuple[int, int, int]) -> None:
    with DatasetWriter(folder) as writer:
        for index in range(3):
            clip = stand_in(size, 2, 0.2)
            pixels = np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)
            name = {"id": f"{index}", "file_name": f"videos/{index}.mp4"}
            sample = clip.sample.model_copy(update=name)
            writer.add(sample, pixels, clip.video.fps, clip.tracks, lossless=True)


def on_gpu(pipe: Any) -> None:
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            part.to(GPU)
            assert all(isinstance(p, GpuTensor) for p in part.parameters())


@pytest.fixture
def gpu_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """accelerate, as it would choose where there is a GPU."""
    make = run.make_accelerator

    def made(config: TrainConfig) -> Any:
        accelerator = make(config)
        monkeypatch.setattr(accelerator.state, "device", GPU)
        return accelerator

    monkeypatch.setattr(run, "make_accelerator", made)


@pytest.mark.usefixtures("gpu_accelerator")
@pytest.mark.parametrize(("family", "variant"), cases())
def test_train_generate_and_analyze(family: str, variant: str, tmp_path: Path) -> None:
    pipe: Any = families()[family].load().tiny(variant)
    backbone = backbone_for(pipe)
    on_cpu = backbone_for(families()[family].load().tiny(variant))
    size, data = backbone.tiny_clip, tmp_path / "data"
    write_clips(data, size)
    training = TrainConfig(
        data=data,
        out=tmp_path / "train",
        v2t=(0,),
        v2v=(1,),
        steps=1,
        batch=2,
        sga=0.1,
        spa=0.1,
        id_map=backbone.takes_image,
        lora_rank=2,
        lora_alpha=2,
        heldout_samples=1,
        heldout_levels=1,
        heldout_every=1,
        ema=0.9,
        object_weight=0.5,
        align_noise=(0, 1, 2, 3, 4),
        gradient_checkpointing=True,
        sample_every=1,
        sample_steps=2,
    )

    def sampled(where: str, backbone: Backbone) -> np.ndarray[Any, Any]:
        out = tmp_path / where
        adapter = training.out / "adapter"
        told = {"adapter": adapter, "steps": 2, "batch": 2, "num_frames": size[0], "limit": 2}
        generate(GenerateConfig(prompts=data, out=out, **told), backbone)
        return Dataset(out / "dataset").video(0).frames_THWC

    def measured(backbone: Backbone) -> list[float]:
        found = measure_clip(backbone, Dataset(data)[0], Probe(levels=2, batch=2))
        return [row.aas for row in found.rows]

    with pretended_gpu():
        on_gpu(pipe)
        run.train(training, pipe, StudentVideos(training))
        found = sampled("gpu", backbone), measured(backbone)
        made, clip = Dataset(tmp_path / "gpu" / "dataset"), Dataset(data)[0]
        video = made.video(0)
        # Some families' stock calls return fewer frames than they are asked for.
        tracks = {
            name: MaskTrack.from_masks(track.masks()[: len(video)])
            for name, track in clip.tracks.items()
        }
        # Tracks of a video that lacks frames do not fit the maps of its sampling.
        short = pytest.raises(MatrixError, match=r"leaves the first .* frames out.*--trajectory")
        with (
            replay(tmp_path / "gpu", backbone, made.samples) as again,
            short if backbone.dropped_frames else nullcontext(),
        ):
            one = Clip(made.sample(0), video, tracks)
            assert measure_clip(backbone, one, Probe(levels=1, replay=again)).rows
    rows = [json.loads(row) for row in (training.out / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "sga", "spa"} <= rows[-1].keys()
    wanted = sampled("cpu", on_cpu), measured(on_cpu)
    assert len(found[0]) == size[0] - backbone.dropped_frames
    for here, there, apart in zip(found, wanted, (1, 1e-5), strict=True):  # rounding
        np.testing.assert_allclose(np.array(here, float), np.array(there, float), atol=apart)


def test_what_a_gpu_refuses() -> None:
    """Without this the test above could not fail."""
    with pretended_gpu():
        there = torch.ones(3, device="cuda")
        assert there.device == torch.ones(3).to("cuda").device == torch.zeros_like(there).device
        assert (there + torch.ones(())).tolist() == [2.0] * 3
        assert there.cpu().numpy().sum() == 3
        with pytest.raises(RuntimeError, match=r"on cuda:0, and of shape .* on the cpu"):
            there + torch.ones(3)
        with pytest.raises(RuntimeError, match="on cuda:0, and of shape"):
            torch.ones(3)[torch.zeros(1, dtype=torch.long, device="cuda")]
        with pytest.raises(RuntimeError, match="on cuda:0, and of shape"):
            torch.nn.functional.linear(there, torch.nn.Linear(3, 2).weight)
        with pytest.raises(RuntimeError, match="on cuda:0, and of shape"):
            torch.zeros(()).add_(there.sum())
        with pytest.raises(RuntimeError, match="on cuda:0, and of shape"):
            torch.stack([there.sum(), torch.zeros(())])
        with pytest.raises(RuntimeError, match="'cuda' device type for generator"):
            torch.randn(3, device="cuda", generator=torch.Generator())
        with pytest.raises(TypeError, match="to numpy"):
            there.numpy()
        weight = torch.nn.Linear(3, 2).to("cuda").weight
        (weight @ there).sum().cpu().backward()
        assert isinstance(weight.grad, GpuTensor)
        assert weight.grad.tolist() == [[1.0] * 3] * 2

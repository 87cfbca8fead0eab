"""Maps along a sampling: which forward of which step is read, and that it is the stored video's.

Shapes: P levels, R phrases, A heads, N video tokens, F token frames, h w token rows and columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from matrix_video.analysis.collect import level_maps
from matrix_video.analysis.probe import OnStep, Probe
from matrix_video.analysis.targets import clip_targets
from matrix_video.analysis.trajectory import check_repeated, chosen_steps
from matrix_video.attention.site import Call
from matrix_video.attention.tap import Captures, tap
from matrix_video.backbones.base import Backbone
from matrix_video.data.clip import Clip
from matrix_video.data.dataset import Dataset
from matrix_video.data.video import Video
from matrix_video.generation.sampler import Prompt, Sampling, sample
from matrix_video.services.errors import MatrixError

STEPS = 4


@dataclass
class Sampled:
    """The stock sampling of one prompt."""

    backbone: Backbone
    prompt: Prompt
    guidance: float
    steps: int = STEPS
    key: str = "sampled"
    names: list[str] = field(default_factory=list[str])

    def sample(self, name: str, on_step: OnStep) -> NDArray[np.uint8]:
        self.names.append(name)
        sampling = Sampling(3, self.steps, self.guidance)
        return sample(self.backbone, [self.prompt], 9, sampling, None, on_step)[0]


def generated(clip: Clip, replay: Sampled) -> Clip:
    """The clip with the video that the replay makes; its tracks stand in for the judge's."""
    frames = replay.sample("", lambda *_: None)
    replay.names.clear()
    return Clip(clip.sample, Video(frames, clip.video.times, clip.video.fps), clip.tracks)


@pytest.fixture
def clip(data: Path) -> Clip:
    return Dataset(data)[0]


@pytest.fixture
def replay(clip: Clip, backbone: Backbone) -> Sampled:
    prompt = Prompt(clip.sample.id, clip.sample.caption, clip.video.frames_THWC[0])
    return Sampled(backbone, prompt, guidance=6.0)


def dense(call: Call, part: int) -> Tensor:
    """P of one element of the batch, mean over heads, float64."""
    q, k = call.q[part].double(), call.k[part].double()
    return (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1).mean(0)


@pytest.mark.parametrize("guidance", [6.0, 1.0])
def test_maps_are_those_of_the_conditional_branch(
    clip: Clip, backbone: Backbone, replay: Sampled, guidance: float
) -> None:
    replay.guidance = guidance
    made = generated(clip, replay)
    grid = backbone.clip_grid(made)
    targets = clip_targets(backbone, made, grid)
    site = backbone.site(1, "v2t", grid, backbone.num_text_tokens)
    seen: list[Tensor] = []

    def after(captures: Captures) -> None:
        call = captures["all"]
        assert isinstance(call, Call)
        assert len(call.q) == (2 if guidance > 1 else 1)
        seen.append(dense(call, -1))  # [unconditional, conditional]

    times: dict[int, float] = {}
    with tap(backbone.transformer, {"all": site}, after=after):
        replay.sample("", times.__setitem__)
    replay.names.clear()
    probe = Probe(levels=2, replay=replay)
    found = list(level_maps(backbone, made, targets, probe, [1]))
    assert replay.names == [clip.sample.id]  # one sampling for all levels
    steps = [2, 0]  # level 0 has the least noise
    assert [part.levels for part in found] == [(0,), (1,)]
    assert [part.timesteps for part in found] == [(times[step],) for step in steps]
    assert times[0] > times[2]
    for part, step in zip(found, steps, strict=True):
        for r, target in enumerate(targets):
            assert target.region_N is not None
            v2t_N = seen[step][site.video][:, list(target.tokens)].mean(-1)
            v2v_N = target.region_N.double() @ seen[step][site.video, site.video]
            for map_Fhw, expected in (
                (part.maps[1, "v2t"][0, r], v2t_N),
                (part.maps[1, "v2v"][0, r], v2v_N),
            ):
                torch.testing.assert_close(
                    map_Fhw.double(), expected.unflatten(0, grid.shape), rtol=1e-4, atol=1e-8
                )


def test_layers_at_once_sample_once_each_and_change_nothing(
    clip: Clip, backbone: Backbone, replay: Sampled
) -> None:
    made = generated(clip, replay)
    targets = clip_targets(backbone, made, backbone.clip_grid(made))
    probe = Probe(levels=2, replay=replay)
    whole = list(level_maps(backbone, made, targets, probe, range(3)))
    replay.names.clear()
    parted = list(level_maps(backbone, made, targets, replace(probe, layers_at_once=2), range(3)))
    assert len(replay.names) == 2
    assert [part.levels for part in parted] == [(0,), (1,), (0,), (1,)]
    for part in parted:
        (level,) = part.levels
        for key, maps in part.maps.items():
            assert torch.equal(maps, whole[level].maps[key])


@dataclass
class Separate:
    """A sampling with separate guidance: the conditional forward, then the other."""

    backbone: Backbone
    clip: Clip
    forwards: Callable[[Separate, int], None]
    steps: int = STEPS
    key: str = "separate"

    def predict(self, caption: str, step: int) -> None:
        backbone, frames = self.backbone, torch.from_numpy(self.clip.video.frames_THWC)
        latents = backbone.encode_video(frames[None])
        backbone.predict(
            latents + step,
            torch.tensor([100 * step]),
            backbone.encode_text([caption]),
            backbone.encode_image(frames[:1], len(frames)),
        )

    def sample(self, name: str, on_step: OnStep) -> NDArray[np.uint8]:
        with torch.no_grad():
            for step in range(self.steps):
                self.forwards(self, step)
                on_step(step, 100.0 * step)
        return self.clip.video.frames_THWC


def test_of_two_forwards_a_step_the_first_is_read(clip: Clip, backbone: Backbone) -> None:
    def both(replay: Separate, step: int) -> None:
        replay.predict(clip.sample.caption, step)
        replay.predict("", step)

    def first(replay: Separate, step: int) -> None:
        replay.predict(clip.sample.caption, step)

    targets = clip_targets(backbone, clip, backbone.clip_grid(clip))
    two, one = (
        list(level_maps(backbone, clip, targets, Probe(2, replay=replay), [0, 2]))
        for replay in (Separate(backbone, clip, both), Separate(backbone, clip, first))
    )
    for left, right in zip(two, one, strict=True):
        assert left.timesteps == right.timesteps
        for key, maps in left.maps.items():
            assert torch.equal(maps, right.maps[key])


def test_a_step_of_another_transformer_is_named(clip: Clip, backbone: Backbone) -> None:
    def late(replay: Separate, step: int) -> None:
        if step > 1:
            replay.predict(clip.sample.caption, step)

    targets = clip_targets(backbone, clip, backbone.clip_grid(clip))
    probe = Probe(2, replay=Separate(backbone, clip, late))
    with pytest.raises(MatrixError, match=r"levels: sample clip0: step 0 .* made no forward"):
        list(level_maps(backbone, clip, targets, probe, [0]))


def test_numbers_that_are_none_name_layer_and_step(clip: Clip, backbone: Backbone) -> None:
    def broken(replay: Separate, step: int) -> None:
        replay.predict(clip.sample.caption, step if step < 2 else math.inf)  # type: ignore[arg-type]

    targets = clip_targets(backbone, clip, backbone.clip_grid(clip))
    probe = Probe(STEPS, replay=Separate(backbone, clip, broken))
    match = (
        r"layer 1: sample clip0: queries or keys of layer 1 \(transformer_blocks\.1\.attn1\) are "
        r"NaN or infinite at step 2 of the sampling\. Measure with --precision no"
    )
    with pytest.raises(MatrixError, match=match):
        list(level_maps(backbone, clip, targets, probe, [1, 2]))


def test_another_video_than_the_stored_one_is_refused(
    clip: Clip, backbone: Backbone, replay: Sampled
) -> None:
    made = generated(clip, replay)
    targets = clip_targets(backbone, made, backbone.clip_grid(made))
    match = r"trajectory: sample clip0: the video, sampled again, differs from the stored one by \d"
    replay.guidance = 1.0  # other settings
    with pytest.raises(MatrixError, match=match):
        list(level_maps(backbone, made, targets, Probe(1, replay=replay), [0]))
    match = r"sampled again, is 5 frames of 32x32, the stored one 9 frames of 32x32"
    with pytest.raises(MatrixError, match=match):
        check_repeated(made, made.video.frames_THWC[:5])


def test_steps_are_the_middles_of_equal_parts() -> None:
    assert chosen_steps(50, 5) == {44: 0, 34: 1, 24: 2, 14: 3, 4: 4}
    assert chosen_steps(4, 4) == {3: 0, 2: 1, 1: 2, 0: 3}
    for steps in range(1, 30):
        for levels in range(1, steps + 1):
            chosen = chosen_steps(steps, levels)
            assert sorted(chosen.values()) == list(range(levels))
            assert set(chosen) <= set(range(steps))
    with pytest.raises(MatrixError, match=r"levels: 5 levels of a sampling with 4 steps\. Choose"):
        chosen_steps(4, 5)

"""One call from a seed to a finished clip: pixels, masks, caption, timeline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matrix_video.data.sample import Sample
from matrix_video.data.tracks import MaskTrack
from matrix_video.world.captions import full_caption, vague_caption
from matrix_video.world.draw import draw_interaction, draw_lone
from matrix_video.world.render import render
from matrix_video.world.scene import Scene
from matrix_video.world.splits import Split, clip_generator, wanted_bin

LONE_SHARE = 0.25
"""Share of base clips in which nobody interacts."""
FULL_SHARE = 0.2
"""Share of the base's interaction clips with a full caption; most are vague (our choice: the base
shall know motion and bind who-does-what-to-whom poorly, as web-trained models do)."""


@dataclass(frozen=True)
class WorldClip:
    """Frames uint8 [T,H,W,3], visible masks bool [R,T,H,W] in the order of ``sample.instances``."""

    sample: Sample
    frames_THWC: NDArray[np.uint8]
    masks_RTHW: NDArray[np.bool_]
    scene: Scene

    def tracks(self) -> dict[str, MaskTrack]:
        return {
            instance.id: MaskTrack.from_masks(masks_THW)
            for instance, masks_THW in zip(self.sample.instances, self.masks_RTHW, strict=True)
        }


def clip_id(seed: int, split: Split, index: int) -> str:
    """The id of a clip, known before it is rendered."""
    return f"{split}-{seed}-{index:06d}"


def make_clip(seed: int, split: Split, index: int) -> WorldClip:
    """Clip ``index`` of a split; the same arguments give the same clip everywhere."""
    rng = clip_generator(seed, split, index)
    if split == "base" and rng.random() < LONE_SHARE:
        scene = draw_lone(rng)
    else:
        scene = draw_interaction(rng, wanted_bin(split))
    full = bool(scene.events) and (split != "base" or rng.random() < FULL_SHARE)
    caption = full_caption(scene, rng) if full else vague_caption(scene, rng)
    frames_THWC, masks_RTHW = render(scene)
    name = clip_id(seed, split, index)
    sample = Sample(
        id=name,
        file_name=f"videos/{name}.mp4",
        caption=caption.text,
        instances=caption.instances,
        interactions=caption.interactions,
        source="tiny-world",
        scene=scene.key(),
    )
    return WorldClip(sample, frames_THWC, masks_RTHW, scene)

"""Training on every family: gradients against a dense reference, and losses that stay as they are.

No test asks which family it runs on; everything is read from what the backbone declares.

Shapes: B batch, P phrases of a sample (padded), L text tokens, F token frames, h w token rows and
columns, N = F·h·w, A attention heads, T H W frames, rows and columns that are compared.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from matrix_video.alignment.decoder import MapDecoder
from matrix_video.alignment.objectives import Term
from matrix_video.attention.site import Call, Captured
from matrix_video.attention.tap import Captures, tap
from matrix_video.backbones.loading import backbone_for, families
from matrix_video.data.clip import Clip
from matrix_video.data.dataset import DatasetWriter
from matrix_video.data.tracks import MaskTrack
from matrix_video.data.video import Video
from matrix_video.plan.clips import stand_in
from matrix_video.recipes.settings import debug
from matrix_video.training.batches import Batch, Draw, make_batch
from matrix_video.training.config import TrainConfig
from matrix_video.training.encode import encode_clip
from matrix_video.training.run import train
from matrix_video.training.step import compute_losses
from matrix_video.training.student import Layers, Student, View, make_student

from ..conftest import image_variant

WEIGHTS: dict[Term, float] = {"sga": 1.0, "spa": 1.0}
TERMS: tuple[Term, ...] = ("sga", "spa")
GOLDEN = Path(__file__).with_name("golden_families.json")


def cases() -> Iterator[Any]:
    """All variants; by default one of each family without an image, and one with."""
    for name, point in families().items():
        variants: Sequence[str] = point.load().variants
        often = (variants[0], image_variant(variants))
        for one in variants:
            yield pytest.param(name, one, marks=[] if one in often else [pytest.mark.slow])


def moving_clip(index: int, size: tuple[int, int, int]) -> Clip:
    """Noise in which two to four instances move, each its own way.

    In every second clip the last one appears late, and the first is not annotated for a while.
    """
    plain = stand_in(size, 2 + index % 3, 0.15)
    tracks: dict[str, MaskTrack] = {}
    for i, (name, track) in enumerate(plain.tracks.items()):
        masks_THW = track.masks()
        for t in range(len(masks_THW)):
            masks_THW[t] = np.roll(masks_THW[t], (t * (i + 1), t * (index % 2 + 1)), (0, 1))
        late = index % 2 == 1
        if late and i == len(plain.tracks) - 1:
            masks_THW[:2] = False
        tracks[name] = MaskTrack.from_masks(masks_THW, unknown=(3, 4) if late and i == 0 else ())
    known = {"id": f"{index:04d}", "file_name": f"videos/{index:04d}.mp4"}
    pixels = np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)
    video = Video(pixels, plain.video.times, plain.video.fps)
    return Clip(plain.sample.model_copy(update=known), video, tracks)


# -- gradients ---------------------------------------------------------------------------------


@dataclass
class Compared:
    """A map, its mask, the frames that are annotated, and how many token frames are left out."""

    map_N: Tensor
    mask_THW: Tensor
    known_T: Tensor
    skip: int


@dataclass
class Whole:
    """A tiny model in float64 with everything trainable moved away from its start, and a batch."""

    student: Student
    view: View
    batch: Batch

    @classmethod
    def of(cls, family: str, variant: str) -> Whole:
        pipe: Any = families()[family].load().tiny(variant)
        backbone = backbone_for(pipe)
        size = backbone.tiny_clip
        clips = [moving_clip(index, size) for index in range(2)]
        encoded = [encode_clip(backbone, clip, mentions="full", up=2) for clip in clips]
        empty = backbone.encode_text([""])
        backbone.transformer.double()
        ends = (0, backbone.num_layers - 1)
        nowhere = Path("nowhere")
        config = TrainConfig(
            data=nowhere, out=nowhere, v2t=ends, v2v=ends, lora_rank=2, lora_alpha=4,
            decoder_channels=4, id_map=backbone.takes_image,
        )  # fmt: skip
        student = make_student(backbone, config, Layers(ends, ends), size)
        generator = torch.Generator().manual_seed(1)
        for parameter in student.parameters.values():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.2, generator=generator)
        draw = Draw(0, config.id_map, id_drop=0.0, caption_dropout=0.0)
        batch = make_batch(backbone, encoded, [0, 0], empty, draw)
        return cls(student, student.view(size), batch)

    def ours(self, decoder: MapDecoder | None) -> dict[Term, Tensor]:
        view = replace(self.view, aligner=replace(self.view.aligner, decoder=decoder))
        with tap(self.student.backbone.transformer, view.sites, require_grad=True) as calls:
            losses = compute_losses(self.student, view, self.batch, WEIGHTS, calls)
        return {term: losses.terms[term].total() for term in TERMS}

    def captures(self) -> Captures:
        """Of a forward whose attention is PyTorch's own alone."""
        backbone, batch = self.student.backbone, self.batch
        noisy = backbone.add_noise(batch.latents_BFCHW, batch.noise_BFCHW, batch.timesteps_B)
        with tap(backbone.transformer, self.view.sites, engine="portable") as calls:
            self.student.predict(batch, noisy, batch.timesteps_B)
        return calls

    def compared(self, term: Term, calls: Captures, dense: Any) -> list[list[Compared]]:
        """What counts, by sample and layer: each map with its mask and annotated frames."""
        view, batch, propagates = self.view, self.batch, term == "spa"
        chosen_BPX = batch.region_BPN if propagates else batch.phrase_BPL
        targets = batch.region_targets if propagates else batch.phrase_targets
        skip = 1 + view.grid.frames.index((0,)) if propagates else 0
        found: list[list[Compared]] = []
        for name, site in (view.v2v_sites if propagates else view.v2t_sites).items():
            for b, p_ANM in enumerate(every_p(dense, calls[name])):
                maps: list[Compared] = []
                for i, chosen_X in enumerate(chosen_BPX[b]):
                    tokens = chosen_X.nonzero()[:, 0]
                    known_T = targets.known_BRT[b, i].clone()
                    if propagates:
                        known_T[: 1 + view.aligner.ratio * (skip - 1)] = False
                    if not targets.present_BR[b, i] or not len(tokens) or not known_T.any():
                        continue
                    rows_ANM = p_ANM[:, site.video]
                    if propagates:
                        map_N = rows_ANM[:, tokens][:, :, site.video].mean(dim=(0, 1))
                    else:
                        map_N = rows_ANM[:, :, site.text][:, :, tokens].mean(dim=(0, 2))
                    mask_THW = targets.mask_BRTHW[b, i].double()
                    maps.append(Compared(map_N, mask_THW, known_T, skip))
                assert maps, "every sample has a map"
                found.append(maps)
        return found

    def reference(self, found: list[list[Compared]], decoder: MapDecoder | None) -> Tensor:
        """Mean over a sample's maps, then over layers and samples."""
        means: list[Tensor] = []
        for maps in found:
            losses = [
                bce_and_dice(self._logits(m, decoder)[m.known_T], m.mask_THW[m.known_T])
                for m in maps
            ]
            means.append(torch.stack(losses).mean())
        return torch.stack(means).mean()

    def _logits(self, compared: Compared, decoder: MapDecoder | None) -> Tensor:
        frames, rows, columns = self.view.grid.shape
        left_out = compared.skip * rows * columns
        kept_N = compared.map_N[left_out:]
        lift_N = (kept_N * len(kept_N) / kept_N.sum()).log().clamp(-6, 6)
        chance_N = torch.zeros(left_out, dtype=torch.float64)
        lift_Fhw = torch.cat([chance_N, lift_N]).reshape(frames, rows, columns)
        if decoder is not None:
            return decoder(lift_Fhw[None, None])[0, 0]
        ratio, up = self.student.ratio, self.student.options.up
        frame_T = [-(-t // ratio) for t in range(1 + ratio * (frames - 1))]
        tall_Hh, wide_Ww = finer(rows, up), finer(columns, up)
        return torch.einsum("Hh,Thw,Ww->THW", tall_Hh, lift_Fhw[frame_T], wide_Ww)


def every_p(dense: Any, captured: Captured) -> list[Tensor]:
    """P [A,Nq,Nk] of each sample, in full."""
    calls = (captured,) if isinstance(captured, Call) else captured
    return [p_ANM for call in calls for p_ANM in dense.p(call)]


def finer(count: int, up: int) -> Tensor:
    """Linear interpolation between the middles of cells, constant outside: [count·up, count]."""
    weights = torch.zeros(count * up, count, dtype=torch.float64)
    for i in range(count * up):
        at = min(max((i + 0.5) / up - 0.5, 0.0), count - 1.0)
        low = min(int(at), count - 2)
        weights[i, low], weights[i, low + 1] = low + 1 - at, at - low
    return weights


def bce_and_dice(logits_THW: Tensor, mask_THW: Tensor) -> Tensor:
    """Of one map on its annotated frames."""
    share_THW = logits_THW.sigmoid()
    positive = mask_THW.sum()
    weight = torch.clamp((mask_THW.numel() - positive) / positive.clamp(min=1), max=10)
    inside = weight * mask_THW * share_THW.log()
    outside = (1 - mask_THW) * (1 - share_THW).log()
    bce = -(inside + outside).mean()
    dice = [
        1 - (2 * (share * mask).sum() + 1) / (share.sum() + mask.sum() + 1)
        for share, mask in zip(share_THW, mask_THW, strict=True)
        if mask.any()
    ]
    return bce + torch.stack(dice).mean() if dice else bce


@pytest.mark.parametrize(("family", "variant"), cases())
def test_gradients_are_those_of_a_dense_reference(family: str, variant: str, dense: Any) -> None:
    """Of every trained tensor: LoRA through the whole model, id map's projection, decoder."""
    whole = Whole.of(family, variant)
    parameters = whole.student.parameters
    assert all(p.dtype == torch.float64 for p in parameters.values())
    assert whole.student.decoder is not None
    calls = whole.captures()
    compared = {term: whole.compared(term, calls, dense) for term in TERMS}
    for decoder, untouched in ((whole.student.decoder, ""), (None, "decoder.")):
        ours = whole.ours(decoder)
        for term in TERMS:
            reference = whole.reference(compared[term], decoder)
            assert ours[term].item() == pytest.approx(reference.item(), rel=1e-12)
            found, expected = (
                torch.autograd.grad(
                    loss, list(parameters.values()), retain_graph=True, allow_unused=True
                )
                for loss in (ours[term], reference)
            )
            moved: set[str] = set()
            for name, mine, theirs in zip(parameters, found, expected, strict=True):
                assert (mine is None) == (theirs is None), (term, name)
                if mine is not None and theirs is not None:
                    assert dense.error(mine, theirs) < 1e-8, (term, name)
                    if theirs.any():
                        moved.add(name)
            sites = whole.view.v2t_sites if term == "sga" else whole.view.v2v_sites
            for site in sites.values():
                assert any(name.startswith(f"{site.module}.") for name in moved), (term, site)
            new = {n for n in whole.student.new if not untouched or not n.startswith(untouched)}
            assert new <= moved


# -- losses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", families())
def test_golden_losses_of_every_family(family: str, tmp_path: Path) -> None:
    """Ten updates of recipe `debug`, with an id map where a variant of the family takes one.

    Stored by `MATRIX_GOLDEN=1 pytest` on one thread; the tolerance is for other processors'
    rounding.
    """
    cls: Any = families()[family].load()
    pipe: Any = cls.tiny(image_variant(cls.variants))
    with DatasetWriter(tmp_path / "data") as writer:
        for index in range(4):
            clip = moving_clip(index, cls.tiny_clip)
            pixels = clip.video.frames_THWC
            writer.add(clip.sample, pixels, clip.video.fps, clip.tracks, lossless=True)
    id_map = backbone_for(pipe).takes_image
    config = debug(data=tmp_path / "data", out=tmp_path / "run")
    train(config.model_copy(update={"id_map": id_map}), pipe)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    found = [{k: v for k, v in json.loads(one).items() if "seconds" not in k} for one in lines]
    stored: dict[str, Any] = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("MATRIX_GOLDEN"):
        stored[family] = found
        GOLDEN.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
    expected = stored[family]
    assert len(found) == 11  # the first score, and ten updates
    assert [set(line) for line in found] == [set(line) for line in expected]
    for line, wanted in zip(found, expected, strict=True):
        for name, value in wanted.items():
            assert line[name] == pytest.approx(value, rel=2e-3, abs=1e-6), (wanted["step"], name)

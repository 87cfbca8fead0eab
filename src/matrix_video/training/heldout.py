"""The held-out score: does the attention itself look where it should, without the decoder?

Shapes: B batch, P phrases, F token frames, h w token rows and columns.

A decoder could learn to draw masks from attention that never improves. So the supervised layers'
AAS on held-out samples is always taken from the maps alone; if the alignment loss falls and the
score does not rise, the run is marked ``decoder absorbed`` (our choice).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from matrix_video.attention.readout import v2t_maps, v2v_maps
from matrix_video.attention.scores import aas
from matrix_video.attention.site import Captured
from matrix_video.training.batches import Batch, Draw, EncodedSet, make_batch
from matrix_video.training.step import Autocast
from matrix_video.training.student import Student, View

KEY = "heldout_aas/"
Maps = Mapping[str, Tensor]
"""Maps [B,P,N] by capture name."""


def batch_aas(view: View, batch: Batch, v2t: Maps, v2v: Maps) -> dict[str, Tensor]:
    """AAS [B,P] by capture name, NaN where there is nothing to score: the phrase is not in the
    caption, its target not visible, or (V2V) not in the first frame, or scored with an earlier
    phrase of the same instances."""
    grid = view.grid
    later_F = torch.arange(grid.num_frames, device=batch.visible_BPF.device) > grid.first
    seen_BP = batch.region_targets.present_BR & (batch.region_BPN.sum(dim=-1) > 0)
    said_BPF = batch.visible_BPF & batch.phrase_targets.present_BR[..., None]
    spread_BPF = batch.visible_BPF & seen_BP[..., None] & later_F
    found: dict[str, Tensor] = {}
    for maps, visible_BPF in ((v2t, said_BPF), (v2v, spread_BPF)):
        for name, maps_BPN in maps.items():
            maps_BPFhw = maps_BPN.unflatten(-1, grid.shape)
            found[name] = aas(maps_BPFhw, batch.tokens_BPFhw, visible_BPF)
    return found


def heldout_aas(
    student: Student,
    samples: EncodedSet,
    calls: Callable[[View], Mapping[str, Captured]],
    *,
    seed: int,
    levels: int,
    autocast: Autocast = nullcontext,
    forward: Callable[[Callable[[], Tensor]], Tensor] = lambda run: run(),
) -> dict[str, float]:
    """AAS in [0, 1] by ``heldout_aas/<layer>/<kind>``: mean over samples, phrases and noise levels.

    ``calls(view)`` are the captures of a tap open on the view's sites; ``forward`` runs a forward
    pass of the student.

    Always on probabilities, with id map and caption, at ``levels`` evenly spaced noise levels, with
    noise and colours that are the same in every call. A layer in which nothing can be scored (no
    phrase, or no region in the first frame) is left out.
    """
    backbone = student.backbone
    found: dict[str, list[float]] = defaultdict(list)
    draw = Draw(seed, student.condition is not None, id_drop=0.0, caption_dropout=0.0)
    for index in range(len(samples)):
        sample = samples[index]
        view = student.view(sample.clip)
        captured = calls(view)
        batch = make_batch(backbone, [sample], [-1], sample.text, draw)
        for level in backbone.noise_levels(levels):
            t = level.reshape(1).to(batch.latents_BFCHW.device)
            noisy = backbone.add_noise(batch.latents_BFCHW, batch.noise_BFCHW, t)
            with torch.no_grad():
                with autocast():
                    forward(partial(student.predict, batch, noisy, t))
                v2t = {
                    name: v2t_maps(captured[name], site, batch.phrase_BPL)
                    for name, site in view.v2t_sites.items()
                }
                v2v = {
                    name: v2v_maps(captured[name], site, batch.region_BPN)
                    for name, site in view.v2v_sites.items()
                }
            for name, scores in batch_aas(view, batch, v2t, v2v).items():
                found[f"{KEY}{name}"] += scores.flatten().tolist()
    means: dict[str, float] = {}
    for key, values in found.items():
        counted = [value for value in values if not math.isnan(value)]
        if counted:
            means[key] = sum(counted) / len(counted)
    return means


def decoder_absorbed(rows: Iterable[Mapping[str, Any]]) -> bool | None:
    """Whether the alignment loss fell while the held-out score did not rise.

    ``rows`` are the lines of ``metrics.jsonl``. The loss has fallen when its mean over the last
    tenth of the updates is 5 % below that over the first. None where either was not measured
    twice.
    """
    losses: list[float] = []
    scores: list[float] = []
    for row in rows:
        terms = [row[term] for term in ("sga", "spa") if term in row]
        if terms:
            losses.append(sum(terms))
        values = [value for key, value in row.items() if key.startswith(KEY)]
        if values:
            scores.append(sum(values) / len(values))
    if len(losses) < 2 or len(scores) < 2:
        return None
    window = max(1, len(losses) // 10)
    before, after = sum(losses[:window]) / window, sum(losses[-window:]) / window
    return after < 0.95 * before and scores[-1] <= scores[0]

"""The held-out score: does the attention itself look where it should, without the decoder?

Shapes: B batch, P phrases, F token frames, h w token rows and columns.

A decoder could learn to draw masks from attention that never improves. So the supervised layers'
AAS on held-out samples is always taken from the maps alone; if the alignment loss falls and the
score does not rise, the run is marked ``decoder absorbed`` (our choice).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import torch

from matrix_video.attention.readout import v2t_maps, v2v_maps
from matrix_video.attention.scores import aas
from matrix_video.attention.site import Captured
from matrix_video.training.batches import Draw, EncodedSet, make_batch
from matrix_video.training.step import Autocast
from matrix_video.training.student import Student

KEY = "heldout_aas/"


def heldout_aas(
    student: Student,
    samples: EncodedSet,
    calls: Mapping[str, Captured],
    *,
    seed: int,
    levels: int,
    autocast: Autocast = nullcontext,
) -> dict[str, float]:
    """AAS in [0, 1] by ``heldout_aas/<layer>/<kind>``: mean over samples, phrases and noise levels.

    ``calls`` are the captures of a tap open on ``student.sites``.

    Always on probabilities, with id map and caption, at ``levels`` evenly spaced noise levels, with
    noise and colours that are the same in every call. A layer in which nothing can be scored (no
    phrase, or no region in the first frame) is left out.
    """
    backbone, grid = student.backbone, student.grid
    found: dict[str, list[float]] = defaultdict(list)
    draw = Draw(seed, student.condition is not None, id_drop=0.0, caption_dropout=0.0)
    for index in range(len(samples)):
        sample = samples[index]
        batch = make_batch(backbone, [sample], [-1], sample.text, draw)
        device = batch.latents_BFCHW.device
        mask = sample.tokens_PFhw.to(device)
        visible = sample.visible_PF.to(device)
        later = visible.clone()
        later[:, : grid.first + 1] = False
        seen = (sample.region_PN.sum(dim=1) > 0) & ~sample.repeated_P
        later &= seen.to(device)[:, None]
        for level in backbone.noise_levels(levels):
            t = level.reshape(1).to(device)
            noisy = backbone.add_noise(batch.latents_BFCHW, batch.noise_BFCHW, t)
            with torch.no_grad():
                with autocast():
                    student.predict(batch, noisy, t)
                for name, site in student.v2t_sites.items():
                    maps = v2t_maps(calls[name], site, batch.phrase_BPL)[0, : len(mask)]
                    scores = aas(maps.reshape(-1, *grid.shape), mask, visible)
                    found[f"{KEY}{name}"] += scores.tolist()
                for name, site in student.v2v_sites.items():
                    maps = v2v_maps(calls[name], site, batch.region_BPN)[0, : len(mask)]
                    scores = aas(maps.reshape(-1, *grid.shape), mask, later)
                    found[f"{KEY}{name}"] += scores.tolist()
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

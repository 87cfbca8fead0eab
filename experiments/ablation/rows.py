"""The rows: what each changes in the one that all are compared with, and the order of the work.

Every row has the base, data, updates, batches, noise, timesteps and sampling seeds in common.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ablation.settings import Settings, Split
from matrix_video.services.files import sha256_text
from matrix_video.training.config import TrainConfig

BASE: Final = "base"
REFERENCE: Final = "selected"
TITLES: Final[dict[str, str]] = {
    BASE: "base",
    "all-rank": "LoRA, all layers, equal rank",
    "all-size": "LoRA, all layers, equal parameters",
    "selected-no-id": "LoRA, selected layers, no id map",
    REFERENCE: "LoRA, selected layers, id map",
    "spa": "+ SPA",
    "sga": "+ SGA",
    "matrix": "+ SPA + SGA (MATRIX)",
    "shuffled": "both, shuffled masks",
    "other-layers": "both, layers not selected",
    "no-decoder": "both, no decoder",
}
"""By name, in the order of the table. Without id map are the first four."""
ORDER: Final = (
    *(REFERENCE, "matrix", "shuffled", BASE, "sga", "spa"),
    *("other-layers", "no-decoder", "selected-no-id", "all-size", "all-rank"),
)
"""Order of the work within a training seed: what says most comes first."""
HEADLINES: Final = (("matrix", REFERENCE), ("matrix", "shuffled"))
CONTRASTS: Final = (
    *HEADLINES,
    *((name, REFERENCE) for name in TITLES if name not in (REFERENCE, "matrix")),
    # At equal conditioning: neither has an id map.
    *(("all-rank", "selected-no-id"), ("all-size", "selected-no-id")),
    *(("matrix", "other-layers"), ("matrix", "no-decoder")),
)
"""Pairs of rows whose difference is shown."""
PROBES: Final[dict[str, str]] = {
    "long-selected": "LoRA, selected layers, id map, 3× updates",
    "long": "both, 3× updates",
    "strong": "both, 5× weights",
    "noisy": "both, at high noise alone",
    "dominant-lora": "LoRA, layer 2, id map",
    "dominant": "both, on layer 2 alone, which is dominant",
    "all-id": "LoRA, all layers, id map",
    "free": "both, LoRA on all layers",
    "qk-lora": "LoRA on q and k, selected layers, id map",
    "qk": "both, LoRA on q and k",
}
"""Rows that test an explanation of what the table shows: on `val`, with one training seed, and only
where they are asked for by name."""
PROBE_CONTRASTS: Final = (
    *(("long", "long-selected"), ("strong", REFERENCE), ("noisy", REFERENCE)),
    *(("dominant", "dominant-lora"), ("free", "all-id"), ("qk", "qk-lora")),
)


@dataclass(frozen=True, order=True)
class Pair:
    """A row with one training seed."""

    seed: int
    row: str

    @property
    def name(self) -> str:
        return f"{self.row}-{self.seed}"


def pairs(settings: Settings, split: Split = "test") -> tuple[Pair, ...]:
    """All of them, in the order of the work; the base has no training, and so one seed.

    On val, where settings and explanations are tried, every row has one.
    """
    found = [
        Pair(seed, row)
        for seed in range(1 if split == "val" else settings.seeds)
        for row in ORDER
        if seed == 0 or row != BASE
    ]
    if split == "val":
        found += [Pair(0, row) for row in PROBES]
    return tuple(found)


def changes(settings: Settings, row: str) -> Mapping[str, Any]:
    """Options of `TrainConfig` in which a trained row differs from `REFERENCE`."""
    both = {"sga": settings.sga, "spa": settings.spa}
    # All layers are alike: as many parameters at a rank that is smaller by the share of layers.
    rank = settings.training["lora_rank"] * settings.selected.count // settings.num_layers
    everywhere = {"lora_layers": "all", "id_map": False}
    longer = {"steps": 3 * settings.training["steps"]}
    found: dict[str, Mapping[str, Any]] = {
        "all-rank": everywhere,
        # LoRA is scaled by alpha / rank: alpha follows, so that ranks alone differ.
        "all-size": {**everywhere, "lora_rank": rank, "lora_alpha": float(rank)},
        "selected-no-id": {"id_map": False},
        REFERENCE: {},
        "spa": {"spa": settings.spa},
        "sga": {"sga": settings.sga},
        "matrix": both,
        "shuffled": {**both, "shuffle_masks": True},
        "other-layers": {**both, "v2t": settings.others.v2t, "v2v": settings.others.v2v},
        "no-decoder": {**both, "decoder": False},
        "long-selected": longer,
        "long": {**both, **longer},
        "strong": {"sga": 5 * settings.sga, "spa": 5 * settings.spa},
        "noisy": {**both, "align_noise": (3, 4)},
        "dominant-lora": {"v2t": (2,), "v2v": (2,)},
        "dominant": {**both, "v2t": (2,), "v2v": (2,)},
        "all-id": {"lora_layers": "all"},
        "free": {**both, "lora_layers": "all"},
        "qk-lora": {"lora_projections": "qk"},
        "qk": {**both, "lora_projections": "qk"},
    }
    return found[row]


def training(settings: Settings, row: str) -> dict[str, Any]:
    """All options that the settings decide; the seed and paths are not among them."""
    selected = {"v2t": settings.selected.v2t, "v2v": settings.selected.v2v}
    common = {"model": settings.model, "limit": settings.clips, "sga": 0.0, "spa": 0.0}
    return {**common, **selected, **settings.training, **changes(settings, row)}


def train_config(
    settings: Settings, pair: Pair, *, data: Path, out: Path, cache: Path
) -> TrainConfig:
    """The run of `matrix train` of a pair."""
    options = training(settings, pair.row)
    return TrainConfig(**options, seed=pair.seed, data=data, out=out, cache=cache)


def settings_hash(settings: Settings, row: str) -> str:
    """Changes with everything that decides a row's result but seed, prompts and code."""
    own = {} if row == BASE else training(settings, row)
    return sha256_text(settings.canonical(), json.dumps(own, sort_keys=True))[:16]

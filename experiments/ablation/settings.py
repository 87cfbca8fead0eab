"""What the ablation is made of: ``settings.json``, and its smaller versions for pilots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from matrix_video.services.errors import MatrixError
from matrix_video.services.records import read_record

FILE: Final = Path(__file__).with_name("settings.json")
Split = Literal["val", "test"]
GROUPS: Final[dict[Split, tuple[Literal["val", "test-iid", "test-composition"], ...]]] = {
    "val": ("val",),
    "test": ("test-iid", "test-composition"),
}
"""Splits of tiny world that the prompts come from, in equal parts."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Layers(_Part):
    """Layers with aligned maps."""

    v2t: tuple[int, ...]
    v2v: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many layers carry LoRA."""
        return len({*self.v2t, *self.v2v})


class Sampling(_Part):
    """How videos are made, in every row."""

    steps: int
    guidance: float
    seed: int
    batch: int


class Prior(_Part):
    """What is known before the run of paired differences of IF, from docs/log.md."""

    deviations: tuple[float, ...]
    """Over prompts, of one training seed."""
    seed_deviation: float
    """Assumed, over training seeds, of the mean over prompts."""


class Settings(_Part):
    """Contents of ``settings.json``."""

    format: Literal[1]
    model: str
    weights: str
    """Fingerprint of the base's transformer."""
    num_layers: int
    selected: Layers
    """As the analysis chose them."""
    others: Layers
    """As many that it did not choose, for the control."""
    sga: float
    spa: float
    training: dict[str, Any]
    """Options of `TrainConfig` that are alike in all rows."""
    seeds: int = Field(ge=1)
    """Training seeds 0, 1, …"""
    clips: int = Field(ge=2)
    """Clips to train on, held-out ones included."""
    prompts: int = Field(ge=2)
    """In all."""
    data_seed: int
    sampling: Sampling
    prior: Prior

    def scaled(self, fraction: float) -> Self:
        """For a pilot: fewer updates, clips, prompts and training seeds, the rest as it is."""
        if not 0 < fraction <= 1:
            raise MatrixError(
                f"a fraction of {fraction:g} of the ablation",
                remedy="Give more than 0, and 1 at most",
                field="fraction",
            )
        if fraction == 1:
            return self
        steps = max(2, round(self.training["steps"] * fraction))
        clips = max(4, round(self.clips * fraction))
        training = self.training | {
            "steps": steps,
            "warmup": min(self.training["warmup"], steps // 4),
            "heldout_every": steps,
            "heldout_samples": min(self.training["heldout_samples"], clips // 4),
        }
        changed = {
            "training": training,
            "clips": clips,
            "seeds": max(1, round(self.seeds * fraction)),
            "prompts": max(2, 2 * round(self.prompts * fraction / 2)),
        }
        return self.model_copy(update=changed)

    def canonical(self) -> str:
        """The same text for the same settings."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)


def read_settings(file: Path = FILE) -> Settings:
    """`MatrixError` names the field that is wrong."""
    remedy = "Restore the file that the results were made with"
    return read_record(file, Settings, what="settings of the ablation", remedy=remedy)

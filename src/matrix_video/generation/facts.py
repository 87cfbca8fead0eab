"""``generation.json``: what a run's videos were made with."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from matrix_video.backbones.fingerprint import Fingerprint
from matrix_video.services.files import write_json
from matrix_video.services.records import read_record

FACTS: Final = "generation.json"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelFacts(_Record):
    """The pipeline."""

    name: str
    family: str
    fingerprint: Fingerprint
    """Of the transformer, without its adapter."""


class GenerationFacts(_Record):
    """Contents of the file."""

    format: Literal[1] = 1
    model: ModelFacts
    adapter: str | None
    adapter_sha256: str | None
    """Of the LoRA's weights."""
    condition_sha256: str | None = None
    """Of the id map's projection, if there is one; older records do not have it."""
    lora_scale: float
    id_map: bool
    """Whether the videos were made with id maps."""
    masks: Literal["tracks", "pictures", "appearance", "grounded"] = "tracks"
    """Where the id maps' masks are from."""
    prompts: str
    videos: int
    seed: int
    steps: int
    guidance: float
    precision: Literal["no", "bf16"]
    """What "auto" came to."""
    weights: str = "float32"
    """How the transformer was held: "float32", "bfloat16", "int8"."""
    tiling: bool = False
    """Whether the VAE worked in tiles."""


def write_facts(folder: Path, facts: GenerationFacts) -> None:
    """Write atomically into a run folder."""
    write_json(folder / FACTS, facts.model_dump())


def read_facts(folder: Path) -> GenerationFacts:
    """Read from a run folder; `MatrixError` names the field that is wrong."""
    return read_record(
        folder / FACTS,
        GenerationFacts,
        what="a record of generated videos",
        remedy="Give the run folder of matrix generate",
    )

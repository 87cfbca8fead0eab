"""The file that carries the choice of layers to training.

``layers.json`` holds the two lists of layers and everything that they rest on (`analysis.choose`
makes it). What format 1 did not have at first has a default, so that older files stay readable.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from matrix_video.analysis.dominance import Contrast
from matrix_video.analysis.heads import HeadEvidence
from matrix_video.analysis.records import Words
from matrix_video.analysis.sinks import Tokens
from matrix_video.analysis.stability import Stability
from matrix_video.attention.site import Kind
from matrix_video.backbones.fingerprint import Fingerprint
from matrix_video.services.files import write_json
from matrix_video.services.records import read_record

CHOICE: Final = "layers.json"
Basis = Literal["dominance", "influence", "binding", "none"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelFacts(_Record):
    """Which pipeline was measured."""

    name: str
    family: str
    num_layers: int
    fingerprint: Fingerprint
    """Of the transformer."""


class DataFacts(_Record):
    """Which clips were measured."""

    path: str
    samples: int
    hash: str
    """Of the measured samples' descriptions, videos and tracks."""


class LayerEvidence(_Record):
    """One layer in one group; None where it could not be measured."""

    layer: int
    frequency: float
    """Share of samples in which the layer is among the top k."""
    aas: float
    log_lift: float
    binding: float | None
    log_lift_error: float | None = None
    """Standard error of its mean over samples; None with a single one."""


class GroupEvidence(_Record):
    """What one ranking rests on."""

    kind: Kind
    words: Words
    samples: int
    k: int
    order: tuple[int, ...]
    """All layers, most influential first."""
    influential: tuple[int, ...]
    layers: tuple[LayerEvidence, ...]
    dominance: Literal["measured", "not measured"]
    reason: str | None
    """Why dominance was not measured."""
    successes: int
    failures: int
    contrasts: tuple[Contrast, ...]
    dominant: tuple[int, ...]
    stability: Stability | None = None
    """Agreement of random halves of the samples about ``order``; None where it was not measured."""

    def rank(self, layer: int) -> str:
        """The layer's place in this group, in words."""
        if layer in self.dominant:
            return "dominant"
        return "influential" if layer in self.influential else ""


class LayerSinks(_Record):
    """Where one layer's attention goes, mean over samples and noise levels."""

    layer: int
    shares: dict[Tokens, float]
    """Part of the video tokens' attention, in [0, 1], by kind of token; see `analysis.sinks`."""

    @property
    def wordless(self) -> float:
        """Part of the attention to text that goes to tokens that are no words."""
        text = sum(share for name, share in self.shares.items() if name not in ("video", "other"))
        return 1 - self.shares["word"] / text if text > 0 else 0.0


class Evidence(_Record):
    """Everything behind the two lists."""

    basis: dict[Kind, Basis]
    groups: tuple[GroupEvidence, ...]
    warnings: tuple[str, ...]
    sinks: tuple[LayerSinks, ...] = ()
    """All layers, by index."""
    heads: tuple[HeadEvidence, ...] = ()
    """The best heads of the chosen layers, where heads were measured."""


class LayerChoice(_Record):
    """Contents of ``layers.json``."""

    format: Literal[1] = 1
    model: ModelFacts
    data: DataFacts
    v2t: tuple[int, ...]
    v2v: tuple[int, ...]
    evidence: Evidence

    def layers(self, kind: Kind) -> tuple[int, ...]:
        """Those chosen of one kind."""
        return self.v2t if kind == "v2t" else self.v2v


def write_choice(path: Path, choice: LayerChoice) -> None:
    """Write ``layers.json`` atomically."""
    write_json(path, choice.model_dump(mode="json"))


def read_choice(path: Path) -> LayerChoice:
    """Read ``layers.json``; `MatrixError` names the field that is wrong."""
    return read_record(
        path,
        LayerChoice,
        what="a choice of layers",
        remedy="Give the layers.json of a finished matrix analyze run",
    )

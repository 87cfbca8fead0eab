"""What an evaluation run is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class EvaluateConfig(BaseModel):
    """One run of ``matrix evaluate``; stored in the run folder as ``config.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    videos: Path
    """Generation run, or data set of generated videos."""
    prompts: Path
    """Prompt set that the videos were generated from: samples, first-frame masks and, where it has
    them, questions; its own clips make null rows and ceiling."""
    out: Path
    """Run folder. A run that was stopped goes on with the video it was at; run again, it judges the
    videos that were replaced or added."""
    judge: Literal["oracle"] = "oracle"
    """Who answers the questions."""
    limit: int | None = Field(default=None, ge=1)
    """Ask for the videos of the first so many prompts; None: of those that the generation run had,
    or of all."""
    nulls: bool = True
    """Also score the null rows."""
    model: str | None = None
    """Pipeline whose VAE gives the ceiling (ground truth after a round trip); None: no ceiling."""
    tracked: bool = False
    """Also write OUT/tracked: the videos with the tracks that the judge followed, as a data set
    for `matrix analyze`."""
    seed: int = 0
    """Seed of the null rows."""

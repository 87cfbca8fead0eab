"""``matrix generate``: videos from a prompt set, with or without an adapter."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console


@dataclass(frozen=True)
class GenerateCommand:
    """Generate a video for every sample of a prompt set.

    A prompt set is a data set: its captions, the first frames of its videos and, for adapters that
    were trained with an id map, the first-frame masks of its tracks. Each video's noise follows
    from the seed and the prompt's id alone, so runs with and without an adapter can be compared
    video by video. Writes a data set of lossless videos and generation.json.
    """

    prompts: Path
    """Data set whose captions, first frames and first-frame masks are the prompts."""
    out: Path
    """Run folder; a run that was stopped goes on with the next batch."""
    model: str = "tiny"
    """Pipeline: tiny, a folder in diffusers format, or a hub id."""
    adapter: Path | None = None
    """Adapter folder of a training run; None: the base."""
    lora_scale: float = 1.0
    """Factor on the LoRA's effect; 0 is the base, 1 as trained."""
    id_map: bool = True
    """Give the adapter its id map, if it was trained with one."""
    seed: int = 0
    """Seed of noise and id colours."""
    steps: int = 50
    """Denoising steps."""
    guidance: float = 6.0
    """Classifier-free guidance; 1: none."""
    batch: int = 8
    """Videos in one call of the pipeline; memory and speed alone depend on it."""
    precision: Literal["no", "bf16"] = "no"
    """Autocast of the transformer: no (float32) or bf16."""
    fps: float | None = None
    """Frame rate of the videos; None: that of the prompt's own."""
    num_frames: int | None = None
    """Frames to generate; None: as many as the prompt's own video has."""
    height: int | None = None
    """Rows; the prompt's first frame and masks are resized. None: as stored."""
    width: int | None = None
    """Columns; None: as stored."""
    limit: int | None = None
    """Generate the first so many prompts alone."""


def run(config: GenerateCommand) -> int:
    from matrix_video.generation.config import GenerateConfig
    from matrix_video.generation.run import generate

    folder = generate(GenerateConfig(**asdict(config)))
    Console().print(f"videos in {folder}", markup=False, highlight=False, soft_wrap=True)
    return 0

"""A finished run's videos, made once more exactly as they were.

For whoever wants to see the inside of the model while it makes them: noise, colours and the draw of
the first frame follow from (seed, prompt id), so that a video can be sampled again alone.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from matrix_video.backbones.adapter import CONDITION_NAME, LORA_FILE, load_adapter
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.condition import Condition
from matrix_video.backbones.fingerprint import fingerprint
from matrix_video.backbones.loading import held_as
from matrix_video.data.dataset import Dataset
from matrix_video.data.sample import Sample
from matrix_video.data.transform import ClipTransform
from matrix_video.generation.config import GenerateConfig
from matrix_video.generation.facts import FACTS, GenerationFacts, read_facts
from matrix_video.generation.find import ID_MAPS, found_in
from matrix_video.generation.run import STAGE, load_prompt
from matrix_video.generation.sampler import OnStep, Sampling, sample
from matrix_video.services.config import CONFIG, read_config
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import sha256_file, sha256_text
from matrix_video.services.records import invalid_record
from matrix_video.services.run import RunFolder

_REMEDY: Final = "Give the run folder of matrix generate, once it has ended"


@dataclass(frozen=True)
class Replay:
    """The run's sampling, its adapter in place."""

    backbone: Backbone
    prompts: Dataset
    num_frames: int | None
    """As the run was told; None: each prompt's own."""
    sampling: Sampling
    condition: Condition | None
    id_maps: Path | None
    """Folder of pictures that the run was told; None: masks from tracks."""
    key: str
    """Changes with everything that the sampling follows from, but the prompts."""

    @property
    def steps(self) -> int:
        return self.sampling.steps

    def sample(self, name: str, on_step: OnStep) -> NDArray[np.uint8]:
        """The video uint8 [T,H,W,3] of the prompt ``name``; ``on_step`` after each step."""
        (one,) = (i for i, known in enumerate(self.prompts.samples) if known.id == name)
        loaded = load_prompt(self.prompts, one, self.condition is not None, self.id_maps)
        frames = self.num_frames or loaded.num_frames
        (video_THWC,) = sample(
            self.backbone, [loaded.prompt], frames, self.sampling, self.condition, on_step
        )
        return video_THWC


@contextmanager
def replay(folder: Path, backbone: Backbone, samples: Sequence[Sample]) -> Generator[Replay]:
    """The sampling of the run in ``folder``, for ``samples`` of its videos.

    ``backbone`` is of the run's model, without an adapter; the run's is attached within. Raises
    `MatrixError` for a folder that is no finished run, another model or adapter than the run's, and
    for a sample that is none of its videos.
    """
    config, facts = _read(folder)
    _check_model(folder, facts, backbone)
    prompts = Dataset(config.prompts, ClipTransform(size=config.size))
    _check_samples(folder, prompts, samples)
    for given in samples if config.finds else ():
        found_in(folder / ID_MAPS, given.id)
    prompts = prompts.subset(known.id for known in samples)
    adapter = None
    if config.adapter is not None:
        adapter = load_adapter(backbone.pipe, config.adapter, facts.lora_scale)
    try:
        _check_adapter(config.adapter, facts)
        yield Replay(
            backbone,
            prompts,
            config.num_frames,
            Sampling(facts.seed, facts.steps, facts.guidance, facts.precision),
            adapter.condition if adapter is not None and facts.id_map else None,
            folder / ID_MAPS if config.finds else config.id_maps,
            sha256_text(facts.model_dump_json(), config.model_dump_json()),
        )
    finally:
        if adapter is not None:
            adapter.detach()


def _read(folder: Path) -> tuple[GenerateConfig, GenerationFacts]:
    stored = read_config(folder)
    if stored.pop("command", None) != "generate" or not RunFolder(folder).done(STAGE):
        raise MatrixError("this is no finished run of matrix generate", remedy=_REMEDY, file=folder)
    try:
        config = GenerateConfig.model_validate(stored)
    except ValidationError as error:
        what = "the settings of a run of matrix generate"
        raise invalid_record(folder / CONFIG, error, what=what, remedy=_REMEDY) from error
    return config, read_facts(folder)


def _check_model(folder: Path, facts: GenerationFacts, backbone: Backbone) -> None:
    made_by, here = facts.model.fingerprint, fingerprint(backbone.transformer)
    if made_by != here:
        what = "weights" if made_by.architecture == here.architecture else "architecture"
        raise MatrixError(
            f"the videos were made by {facts.model.name} ({made_by.name}, {what} "
            f"{getattr(made_by, what)}), but this model's {what} is {getattr(here, what)}",
            remedy=f"Give --model {facts.model.name}, as it was when the videos were made",
            file=folder / FACTS,
            field="model.fingerprint",
        )
    if facts.weights != held_as(backbone):
        raise MatrixError(
            f"the videos were made with weights in {facts.weights}, here they are in "
            f"{held_as(backbone)}",
            remedy="Give the --weights and --quantize of that run",
            file=folder / FACTS,
            field="weights",
        )
    if facts.tiling != backbone.tiled:
        raise MatrixError(
            f"the videos were made with{'' if facts.tiling else 'out'} --tiling",
            remedy=f"{'Give' if facts.tiling else 'Leave out'} --tiling here too",
            file=folder / FACTS,
            field="tiling",
        )


def _check_adapter(folder: Path | None, facts: GenerationFacts) -> None:
    if folder is None:
        return
    made_with = {LORA_FILE: facts.adapter_sha256}
    if facts.condition_sha256 is not None:
        made_with[f"{CONDITION_NAME}.safetensors"] = facts.condition_sha256
    for name, known in made_with.items():
        if sha256_file(folder / name) != known:
            raise MatrixError(
                "this adapter is not the one that the videos were made with: it has changed since",
                remedy="Restore it, or generate the videos again",
                file=folder / name,
            )


def _check_samples(folder: Path, prompts: Dataset, samples: Sequence[Sample]) -> None:
    captions = {known.id: known.caption for known in prompts.samples}
    for given in samples:
        if given.id not in captions:
            problem = f"sample {given.id} is none of its videos"
        elif given.caption != captions[given.id]:
            problem = f"sample {given.id} has another caption than the prompt of this name"
        else:
            continue
        raise MatrixError(
            problem,
            remedy="Analyse the videos of this very run, as matrix evaluate --tracked leaves them",
            file=folder,
            field="prompts",
        )

"""First-frame masks of a prompt set, found by the instances' phrases.

Written before the pipeline is loaded, so that detector and video model are never in memory
together: ``id_maps/<prompt>.png``, one flat colour an instance as `read_id_map` reads it, and
``id_maps/<prompt>.json``, what was found and what was not. A picture can be mended by hand and
given to another run with ``--id-maps``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict

from matrix_video.backbones.condition import ID_COLOURS
from matrix_video.data.dataset import Dataset
from matrix_video.generation.config import GenerateConfig
from matrix_video.perception.appearance import AppearanceFinder
from matrix_video.perception.grounded import GroundedFinder
from matrix_video.perception.locate import Finder, Found, locate
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import atomic_path, write_json
from matrix_video.services.progress import progress
from matrix_video.services.records import read_record

ID_MAPS: Final = "id_maps"


class FoundInstance(BaseModel):
    """An instance of a prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    phrase: str
    colour: tuple[int, int, int] | None
    """In the picture; None: not found."""
    score: float | None
    """The finder's confidence in [0,1]."""
    area: float
    """Share of the frame, before smaller instances are painted over it."""
    reason: str | None
    """Why nothing was found; None where something was."""


class FoundMasks(BaseModel):
    """Contents of ``<prompt>.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    finder: Literal["appearance", "grounded"]
    instances: tuple[FoundInstance, ...]


def finder_for(config: GenerateConfig) -> Finder:
    """The one that ``config.masks`` names. `MatrixError` for models that cannot be read."""
    if config.masks == "grounded":
        return GroundedFinder.load(
            config.detector, config.segmenter, threshold=config.box_threshold
        )
    return AppearanceFinder()


def find_masks(
    config: GenerateConfig,
    prompts: Dataset,
    folder: Path,
    make: Callable[[GenerateConfig], Finder] = finder_for,
) -> tuple[int, int]:
    """Write the pictures that are missing in ``folder``; how many instances of all were found.

    Raises `MatrixError` for a prompt that names no instance, or more than an id map has colours.
    """
    if config.masks == "tracks":
        raise ValueError("masks come from the prompts' own tracks")
    finder: Finder | None = None
    found = total = 0
    with progress("find", len(prompts)) as advance:
        for index, sample in enumerate(prompts.samples):
            record = folder / f"{sample.id}.json"
            if not record.exists():
                _check(config, prompts, index)
                finder = make(config) if finder is None else finder
                frame_HW3 = prompts.video(index).frames_THWC[0]
                phrases = {one.id: one.phrase for one in sample.instances}
                given = locate(finder, frame_HW3, phrases)
                picture = Image.fromarray(_painted(given, frame_HW3.shape[:2]))
                with atomic_path(folder / f"{sample.id}.png") as temporary:
                    picture.save(temporary, format="PNG")
                # Last: where it is, the picture is whole.
                masks = FoundMasks(finder=config.masks, instances=_instances(given))
                write_json(record, masks.model_dump(mode="json"))
            known = read_found(record).instances
            total += len(known)
            found += sum(one.colour is not None for one in known)
            advance(1)
    return found, total


def read_found(file: Path) -> FoundMasks:
    """`MatrixError` names the field that is wrong."""
    remedy = "Delete the file to have the prompt's masks found again"
    return read_record(file, FoundMasks, what="a record of found masks", remedy=remedy)


def _check(config: GenerateConfig, prompts: Dataset, index: int) -> None:
    sample = prompts.samples[index]
    if not sample.instances:
        raise MatrixError(
            f"prompt {sample.id} names no instance, so there is no phrase to look for",
            remedy="list its instances with their phrases in metadata.jsonl, give --id-maps, or "
            "--no-id-map",
            file=config.prompts,
            field="instances",
        )
    if len(sample.instances) > len(ID_COLOURS):
        raise MatrixError(
            f"prompt {sample.id} has {len(sample.instances)} instances, an id map has room for "
            f"{len(ID_COLOURS)}",
            remedy="keep the instances that take part in an interaction",
            file=config.prompts,
            field="instances",
        )


def _instances(given: dict[str, Found]) -> tuple[FoundInstance, ...]:
    return tuple(
        FoundInstance(
            id=key,
            phrase=one.phrase,
            colour=None if one.proposal is None else ID_COLOURS[index],
            score=None if one.proposal is None else round(one.proposal.score, 4),
            area=0.0 if one.proposal is None else round(float(one.proposal.mask_HW.mean()), 5),
            reason=one.reason,
        )
        for index, (key, one) in enumerate(given.items())
    )


def _painted(given: dict[str, Found], size: tuple[int, ...]) -> np.ndarray:
    """Picture uint8 [H,W,3]; where masks overlap the smaller instance is on top, as in training."""
    picture_HW3 = np.zeros((*size, 3), dtype=np.uint8)
    masks = {
        index: one.proposal.mask_HW
        for index, one in enumerate(given.values())
        if one.proposal is not None
    }
    for index in sorted(masks, key=lambda one: -int(masks[one].sum())):
        picture_HW3[masks[index]] = ID_COLOURS[index]
    return picture_HW3

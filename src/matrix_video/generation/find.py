"""First-frame masks of a prompt set, found by the instances' phrases.

Written before the command loads the pipeline, so that detector and video model are not in memory
together: ``id_maps/<prompt>.png``, one flat colour an instance as `read_id_map` reads it, and
``id_maps/<prompt>.json``, what was found and what was not. A copy can be mended by hand and given
to another run with ``--id-maps``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict

from matrix_video.backbones.condition import check_ids, id_colours, paint
from matrix_video.data.dataset import Dataset
from matrix_video.data.sample import Sample
from matrix_video.generation.config import GenerateConfig
from matrix_video.perception.appearance import AppearanceFinder
from matrix_video.perception.grounded import GroundedFinder
from matrix_video.perception.locate import Finder, Found, locate
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import atomic_path, sha256_file, write_json
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
    """Share of the picture."""
    reason: str | None
    """Why nothing was found; None where something was."""


class FoundMasks(BaseModel):
    """Contents of ``<prompt>.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    finder: Literal["appearance", "grounded"]
    picture_sha256: str
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

    The prompts are such as `check_findable` takes.
    """
    if config.masks == "tracks":
        raise ValueError("masks come from the prompts' own tracks")
    finder: Finder | None = None
    found = total = 0
    with progress("find", len(prompts)) as advance:
        for index, sample in enumerate(prompts.samples):
            record, picture = folder / f"{sample.id}.json", folder / f"{sample.id}.png"
            if not (record.exists() and picture.exists()):
                finder = make(config) if finder is None else finder
                frame_HW3 = prompts.first_frame(index)
                phrases = {one.id: one.phrase for one in sample.instances}
                given = locate(finder, frame_HW3, phrases)
                painted_HW3 = _painted(given, frame_HW3.shape[:2])
                with atomic_path(picture) as temporary:
                    Image.fromarray(painted_HW3).save(temporary, format="PNG")
                masks = FoundMasks(
                    finder=config.masks,
                    picture_sha256=sha256_file(picture),
                    instances=_instances(given, painted_HW3),
                )
                write_json(record, masks.model_dump(mode="json"))
            known = found_in(folder, sample.id).instances
            total += len(known)
            found += sum(one.colour is not None for one in known)
            advance(1)
    return found, total


def read_found(file: Path) -> FoundMasks:
    """`MatrixError` names the field that is wrong."""
    remedy = "Delete the run folder and generate again"
    return read_record(file, FoundMasks, what="a record of found masks", remedy=remedy)


def check_findable(sample: Sample) -> None:
    """`MatrixError` for a prompt that names no instance, or more than an id map has room for."""
    if not sample.instances:
        raise MatrixError(
            "it names no instance, so there is no phrase to look for",
            remedy="list its instances with their phrases in metadata.jsonl, give --id-maps, or "
            "--no-id-map",
            field="instances",
        )
    check_ids(len(sample.instances), "it")


def _instances(
    given: dict[str, Found], painted_HW3: NDArray[np.uint8]
) -> tuple[FoundInstance, ...]:
    instances: list[FoundInstance] = []
    colours = id_colours(len(given))
    for colour, (key, one) in zip(colours, given.items(), strict=False):
        share = float((painted_HW3 == colour).all(axis=2).mean())
        hidden = one.proposal is not None and share == 0
        instances.append(
            FoundInstance(
                id=key,
                phrase=one.phrase,
                colour=colour if share else None,
                score=None if one.proposal is None else round(one.proposal.score, 4),
                area=round(share, 5),
                reason="smaller instances cover it" if hidden else one.reason,
            )
        )
    return tuple(instances)


def found_in(folder: Path, name: str) -> FoundMasks:
    """What was found for a prompt. `MatrixError` for a picture that has changed since: a video that
    was made with it could not be made again."""
    picture, record = folder / f"{name}.png", read_found(folder / f"{name}.json")
    if not picture.exists() or sha256_file(picture) != record.picture_sha256:
        raise MatrixError(
            "this picture is not as it was found: it has changed since",
            remedy="Restore it; a mended copy is for another run, with --id-maps",
            file=picture,
        )
    return record


def _painted(given: dict[str, Found], size: tuple[int, ...]) -> NDArray[np.uint8]:
    """Picture uint8 [H,W,3], the k-th instance in the k-th colour."""
    nothing_HW = np.zeros(size, dtype=bool)
    masks = [nothing_HW if f.proposal is None else f.proposal.mask_HW for f in given.values()]
    return paint(np.stack(masks), id_colours(len(masks)))

"""How far a video's instances stray from where they should be: finer than questions of yes and no.

    python -m ablation.courses --contrasts matrix,selected …

A prompt is a clip of tiny world, and its own video shows what should happen. The judge's tracker
follows the first-frame masks through both videos; a prompt's error in a role is the mean distance
in pixels of the tracked centres over all frames after the first, and its loss the share of frames
in which an instance is gone or melted (our choice; a position that cannot be seen is where the
tracker expects it, so losses are to be read beside errors). A true future is one of several that a
caption allows: errors compare rows, and do not measure quality by themselves.

Shapes: P prompts, T frames, S training seeds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import tyro
from numpy.typing import NDArray

from ablation.intervals import interval
from ablation.results import FOLDER
from ablation.settings import GROUPS, Split
from matrix_video.data.dataset import Dataset
from matrix_video.data.tracks import first_masks
from matrix_video.evaluation.oracle.tracker import track
from matrix_video.evaluation.oracle.tracks import Presence, Track
from matrix_video.generation.run import DATASET
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import read_json, write_json
from matrix_video.services.progress import progress

ROLES: Final = ("subject", "object", "other")
_LOST: Final = (Presence.GONE, Presence.MELTED, Presence.SWOLLEN)
Measures = Mapping[str, NDArray[np.float64]]
"""By "error <role>" and "lost <role>": values [P], NaN where a prompt has no such instance."""


def strayed(made: Track, true: Track) -> float:
    """Mean distance in pixels after the first frame, over the frames that both have."""
    frames = min(len(made.centre_T2), len(true.centre_T2))
    off_T2 = made.centre_T2[1:frames] - true.centre_T2[1:frames]
    return float(np.linalg.norm(off_T2, axis=1).mean())


def lost(made: Track) -> float:
    """Share of frames after the first in which the instance is gone or melted."""
    return float(np.mean([presence in _LOST for presence in made.presence_T[1:]]))


def measure(folder: Path, prompts: Dataset, count: int) -> Measures:
    """Of the first ``count`` prompts, whose videos are the data set ``folder``. `MatrixError` for
    one that has none."""
    videos = Dataset(folder)
    found: dict[str, list[float]] = {f"{what} {r}": [] for what in ("error", "lost") for r in ROLES}
    index = {videos.sample(i).id: i for i in range(len(videos))}
    with progress("follow", count) as advance:
        for i in range(count):
            sample = prompts.sample(i)
            if sample.id not in index:
                raise MatrixError(
                    f"prompt {sample.id} has no video",
                    remedy="Let the row be made to its end",
                    file=folder,
                )
            masks = first_masks(prompts.tracks(i))
            true = track(prompts.video(i).frames_THWC, [*masks.values()]).tracks
            made = track(videos.video(index[sample.id]).frames_THWC, [*masks.values()]).tracks
            roles = {one.subject: "subject" for one in sample.interactions}
            roles = {one.object: "object" for one in sample.interactions} | roles
            values: dict[str, list[float]] = {name: [] for name in found}
            for name, mine, its in zip(masks, made, true, strict=True):
                role = roles.get(name, "other")
                values[f"error {role}"].append(strayed(mine, its))
                values[f"lost {role}"].append(lost(mine))
            for name, each in values.items():
                found[name].append(float(np.mean(each)) if each else np.nan)
            advance(1)
    return {name: np.array(values) for name, values in found.items()}


def differences(left: Sequence[Measures], right: Sequence[Measures]) -> dict[str, Any]:
    """Paired, left − right, with intervals over training seeds and prompts; one S a sequence."""
    found: dict[str, Any] = {}
    for name in left[0]:
        gap_SP = np.stack([a[name] - b[name] for a, b in zip(left, right, strict=True)])
        whole_SP = gap_SP[:, ~np.isnan(gap_SP).any(axis=0)]
        found[name] = asdict(interval(whole_SP)) if whole_SP.size else None
    return found


@dataclass(frozen=True)
class Options:
    """What is measured."""

    contrasts: tuple[str, ...]
    """Each "<row>,<row>": the former less the latter."""
    split: Split = "val"
    """Whose videos."""
    seeds: tuple[int, ...] = (0,)
    """Training seeds that all rows have."""
    out: Path = Path("out/ablation")
    """The ablation's folder of data, adapters and videos."""
    prompts: int = 400
    """In all."""
    results: Path = FOLDER
    """Folder of the small files; ``courses.json`` of the split keeps earlier contrasts."""


def main(options: Options) -> None:
    groups = GROUPS[options.split]
    pairs = [tuple(one.split(",")) for one in options.contrasts]
    for one, rows in zip(options.contrasts, pairs, strict=True):
        if len(rows) != 2:
            raise MatrixError(
                f"{one!r} is no contrast", remedy="Give <row>,<row>", field="contrasts"
            )
    file = options.results / options.split / "courses.json"
    made = read_json(file) if file.exists() else {"format": 1, "means": {}, "differences": {}}
    known: dict[str, Measures] = {}
    for name in dict.fromkeys(
        f"{row}-{s}" for pair in pairs for row in pair for s in options.seeds
    ):
        parts = [
            measure(
                options.out / options.split / name / f"videos-{group}" / DATASET,
                Dataset(options.out / "data" / group),
                options.prompts // len(groups),
            )
            for group in groups
        ]
        known[name] = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    for name, one in known.items():
        seen = {key: values[~np.isnan(values)] for key, values in one.items()}
        made["means"][name] = {k: round(float(v.mean()), 4) for k, v in seen.items() if v.size}
    for left, right in pairs:
        lefts, rights = ([known[f"{row}-{s}"] for s in options.seeds] for row in (left, right))
        made["differences"][f"{left} − {right}"] = differences(lefts, rights)
    write_json(file, made)
    print(json.dumps(made, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except MatrixError as error:
        raise SystemExit(f"courses: {error}") from None

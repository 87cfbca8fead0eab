"""Checkpoints: one safetensors file with everything that an update changes.

A resumed run continues to bit-identical weights (on one kind of machine): parameters and AdamW's
moments are stored exactly; the learning rate, the order of the samples and all that is random about
them follow from the step and the config, so no scheduler, sampler or generator has a state to keep.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from matrix_video.backbones.tensors import save_tensors
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import atomic_path
from matrix_video.training.parallel import placed_as, whole

FOLDER: Final = "checkpoints"
_NAME: Final = re.compile(r"step-(\d{8})\.safetensors")
FORMAT: Final = "1"
NO_FACTS: Final[Mapping[str, str]] = {}
_AVERAGE: Final = "average"
_MOMENTS: Final = ("step", "exp_avg", "exp_avg_sq")


def save_checkpoint(
    run: Path | None,
    step: int,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.AdamW,
    average: Mapping[str, Tensor] | None = None,
    facts: Mapping[str, str] = NO_FACTS,
) -> Path | None:
    """Write the state after ``step`` updates; older checkpoints go once it is complete.

    All processes of a run must call it, since parameters may be split over them; it is written
    where ``run`` is given. ``average`` is the moving average, if there is one; ``facts`` say
    what the run is made of: "config" as JSON, for whoever finds the file alone, and "origin".
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        tensors[f"parameter/{name}"] = whole(parameter.detach())
        state = cast("dict[str, Tensor]", optimizer.state[parameter])
        for moment in _MOMENTS:
            if moment in state:  # none before the first update
                tensors[f"{moment}/{name}"] = whole(state[moment])
        if average is not None:
            tensors[f"{_AVERAGE}/{name}"] = whole(average[name])
    if run is None:
        return None
    folder = run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"step-{step:08d}.safetensors"
    with atomic_path(file) as temporary:
        save_tensors(tensors, temporary, {**facts, "format": FORMAT, "step": str(step)})
    for older in _checkpoints(run):
        if older != file:
            older.unlink()
    return file


def latest_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint of a run folder."""
    return max(_checkpoints(run), default=None)


def load_checkpoint(
    file: Path,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.AdamW,
    average: dict[str, Tensor] | None = None,
    origin: str = "",
) -> int:
    """Restore `save_checkpoint`'s state in place; the number of updates made. ``origin`` is
    compared with the stored one, where both are known.

    Raises `MatrixError` for a broken file, one of another version of this package, and one of
    another model or other settings.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            facts = opened.metadata()
            step, stored_format = int(facts["step"]), facts["format"]
            tensors = {name: opened.get_tensor(name) for name in sorted(opened.keys())}
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _unfit(file, f"not a readable checkpoint ({error})") from error
    if stored_format != FORMAT:
        raise _unfit(file, f"a checkpoint of format {stored_format}, this version reads {FORMAT}")
    if origin and facts.get("origin", origin) != origin:
        raise _unfit(
            file,
            "the base's weights or the data set's samples have changed since this run began",
            "restore them, or give another --out",
        )
    stored = {name.removeprefix("parameter/") for name in tensors if name.startswith("parameter/")}
    if stored != set(parameters):
        other = sorted(stored ^ set(parameters))[0]
        raise _unfit(file, f"the checkpoint is of other trainable weights ({other})")
    if average is not None and f"{_AVERAGE}/{next(iter(parameters))}" not in tensors:
        raise _unfit(file, "the checkpoint has no moving average")
    for name, parameter in parameters.items():
        value = tensors[f"parameter/{name}"]
        if value.shape != parameter.shape:
            raise _unfit(file, f"{name} is {tuple(value.shape)}, not {tuple(parameter.shape)}")
        with torch.no_grad():
            parameter.copy_(placed_as(value, parameter))
        if average is not None:
            average[name] = placed_as(tensors[f"{_AVERAGE}/{name}"], parameter)
        # AdamW counts steps on the CPU, its moments live beside the parameter.
        moments = {m: tensors[f"{m}/{name}"] for m in _MOMENTS if f"{m}/{name}" in tensors}
        optimizer.state[parameter] = {
            moment: tensor if moment == "step" else placed_as(tensor, parameter)
            for moment, tensor in moments.items()
        }
    return step


def _checkpoints(run: Path) -> list[Path]:
    folder = run / FOLDER
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if _NAME.fullmatch(file.name))


def _unfit(
    file: Path, problem: str, remedy: str = "delete the run folder, or give another --out"
) -> MatrixError:
    return MatrixError(problem, remedy=remedy, file=file)

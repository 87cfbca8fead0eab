"""What to change when a run does not fit, cheapest first, each with the bytes that it saves.

Each is tried by planning again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from matrix_video.plan.config import PlanConfig
from matrix_video.plan.costs import batch_of
from matrix_video.plan.predict import Prediction

Predict = Callable[[PlanConfig], Prediction]


@dataclass(frozen=True)
class Change:
    """A remedy: what it is called, how it is asked for, and the plan with it."""

    title: str
    how: str
    update: dict[str, Any]


@dataclass(frozen=True)
class Remedy:
    """A change and what it gives. Bytes of the whole run's peak."""

    title: str
    how: str
    saved: int
    total: int
    seconds: float
    """Of the whole run."""


@dataclass(frozen=True)
class Way:
    """Changes that together make a run fit; ``fits`` False: all there are, and it does not."""

    how: tuple[str, ...]
    total: int
    seconds: float
    fits: bool


def changes(base: Prediction, valid: Callable[[PlanConfig], bool]) -> Iterator[Change]:
    """Options that may save memory, in the order of what they cost."""
    config = base.config
    train = config.mode == "train"
    if config.precision == "no":
        yield Change("bfloat16 activations", "--precision bf16", {"precision": "bf16"})
    if config.weights == "float32":
        yield Change("bfloat16 weights", "--weights bf16", {"weights": "bf16"})
    if batch_of(config) > 1:
        how = "--micro-batch 1" if train else "--batch 1"
        yield Change("one sample at a time", how, {"batch": 1})
    if train and not config.gradient_checkpointing:
        how = "--gradient-checkpointing"
        yield Change("recompute blocks", how, {"gradient_checkpointing": True})
    if config.quantize == "none":
        yield Change("8-bit base", "--quantize int8", {"quantize": "int8"})
    if not config.tiling and base.where.startswith(("encode", "decode")):
        yield Change("VAE in tiles", "--tiling", {"tiling": True})
    read = [cost.layer for cost in base.layers if cost.read]
    if config.mode == "analyze" and len(read) > 1:
        half = -(-len(read) // 2)
        how = f"--layers-at-once {half}"
        yield Change("read fewer layers at a time", how, {"layers_at_once": half})
    if train and config.aligned and len(read) > 1:
        how = f"--v2t {read[-1]} --v2v {read[-1]}"
        fewer = {"v2t": (read[-1],), "v2v": (read[-1],)}
        yield Change("align one layer", how, fewer)
    frames, height, width = base.clip
    for count in range(frames * 2 // 3, 0, -1):
        update = {"num_frames": count, "height": height, "width": width}
        if valid(config.model_copy(update=update)):
            yield Change("fewer frames", f"--num-frames {count}", update)
            break
    for eighths in (6, 5, 4):
        size = {
            "height": height * eighths // 8 // 16 * 16,
            "width": width * eighths // 8 // 16 * 16,
        }
        update = {"num_frames": frames, **size}
        if min(size.values()) > 0 and valid(config.model_copy(update=update)):
            how = f"--height {size['height']} --width {size['width']}"
            yield Change("smaller frames", how, update)
            break


def remedies(
    base: Prediction,
    budget: int,
    predict: Predict,
    takes: Callable[[PlanConfig], bool],
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[tuple[Remedy, ...], Way | None]:
    """All remedies that save something, and, where ``base`` is above ``budget`` bytes, a way to
    fit: the cheapest of them one after another until it does.

    ``predict`` and ``takes`` are those of a `Planner`; ``advance`` is told of each plan made.
    """
    found: list[Remedy] = []
    tried: list[tuple[Change, Prediction]] = []
    for change in changes(base, takes):
        changed = predict(base.config.model_copy(update=change.update))
        advance(1)
        tried.append((change, changed))
        if changed.total < base.total:
            saved = base.total - changed.total
            found.append(Remedy(change.title, change.how, saved, changed.total, changed.seconds))
    if base.config.mode == "train" and base.config.aligned:
        plain = predict(base.config.model_copy(update={"aligned": False}))
        advance(1)
        if plain.total < base.total:  # shown, but no way to fit: it is not what was asked for
            saved = base.total - plain.total
            how = "--sga 0 --spa 0"
            found.append(Remedy("no attention maps", how, saved, plain.total, plain.seconds))
    way = None
    if base.total > budget:
        way = _way(base, budget, predict, tried, advance)
    return tuple(found), way


def _way(
    base: Prediction,
    budget: int,
    predict: Predict,
    tried: list[tuple[Change, Prediction]],
    advance: Callable[[int], None],
) -> Way:
    taken: list[str] = []
    at = base
    for change, alone in tried:
        # What saves nothing alone may after another change: an 8-bit base keeps copies in full for
        # the backward pass, unless blocks are recomputed.
        if taken:
            further = predict(at.config.model_copy(update=change.update))
            advance(1)
        else:
            further = alone
        if further.total >= at.total:
            continue
        taken.append(change.how)
        at = further
        if at.total <= budget:
            break
    return Way(tuple(taken), at.total, at.seconds, at.total <= budget)

"""``matrix plan``: memory and time of a run before it starts."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pydantic import Field

from matrix_video.plan.config import PlanConfig
from matrix_video.recipes.settings import RECIPES, RecipeName
from matrix_video.services.console import make_console


class PlanCommand(PlanConfig):
    """Predict memory and time of a run from the model's configuration: no weight is loaded.

    The code of the command is run on tensors that have shapes and no memory, and what it would
    allocate and compute is counted: by part, by phase and by layer. Where it does not fit, changes
    are tried, cheapest first. Bytes are counted; seconds are an estimate, whose assumption is
    printed.
    """

    recipe: RecipeName | None = Field(default=None, exclude=True)
    """Plan `matrix train` with this recipe: its settings become the defaults of all other
    options."""


def start(recipe: RecipeName, given: Collection[str]) -> PlanCommand:
    """The options' defaults under ``recipe``."""
    del given
    planned = PlanConfig.of_training(RECIPES[recipe](data=Path(), out=Path()))
    return PlanCommand(**dict(planned), recipe=recipe)


def run(config: PlanConfig) -> int:
    from matrix_video.plan.machine import GB, machine
    from matrix_video.plan.predict import Planner
    from matrix_video.plan.remedies import remedies
    from matrix_video.plan.show import report, show
    from matrix_video.services.files import make_folder, write_json
    from matrix_video.services.progress import progress

    if config.out is not None:  # before the work, not after it
        make_folder(config.out.parent)
    place = machine(config.device, utilisation=config.utilisation, tflops=config.tflops)
    budget = place.memory if config.memory_gb is None else int(config.memory_gb * GB)
    planner = Planner(place)
    plan = planner.predict(config)
    found, way = (), None
    if config.remedies:
        with progress("try remedies", 8) as advance:
            found, way = remedies(plan, budget, planner.predict, planner.takes, advance)
    show(plan, place, budget, found, way, make_console())
    if config.out is not None:
        write_json(config.out, report(plan, place, budget, found, way))
    return 0

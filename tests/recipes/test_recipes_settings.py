"""Recipes: complete, sourced, taken by `train` and `plan`, changed by options."""

from pathlib import Path
from typing import get_args

import pytest

from matrix_video.backbones.blueprint import blueprint
from matrix_video.cli import parse
from matrix_video.plan.config import PlanConfig
from matrix_video.recipes.settings import RECIPES, RecipeName, tiny
from matrix_video.recipes.train import TrainCommand
from matrix_video.services.config import read_config
from matrix_video.services.run import RunFolder
from matrix_video.training.config import TrainConfig

HERE = {"data": Path("d"), "out": Path("o")}
NAMES = list(RECIPES)
LARGE = {"cogvideox-5b-i2v": (7, 11, 12), "wan2.1-14b-i2v": (6, 8, 20, 24)}


def _train(*options: str) -> TrainCommand:
    _, config = parse(["train", "--data", "d", "--out", "o", *options])
    return config


@pytest.mark.parametrize("name", NAMES)
def test_the_command_trains_with_the_recipes_values(name: RecipeName) -> None:
    assert set(get_args(RecipeName)) == set(RECIPES)
    found = dict(_train("--recipe", name))
    assert (found.pop("recipe"), found.pop("resume")) == (name, False)
    assert found == dict(RECIPES[name](**HERE))


@pytest.mark.parametrize("name", NAMES)
def test_options_change_a_recipe(name: RecipeName) -> None:
    changed = _train(f"--recipe={name}", "--lr", "0.5", "--v2t", "3", "1", "--no-id-map")
    updates = {"lr": 0.5, "v2t": (3, 1), "id_map": False, "recipe": name, "resume": False}
    assert dict(changed) == dict(RECIPES[name](**HERE)) | updates


def test_layers_of_an_analysis_take_the_place_of_a_recipes() -> None:
    found = _train("--recipe", "wan2.1-14b-i2v", "--layers", "l.json")
    assert (found.layers, found.v2t, found.v2v) == (Path("l.json"), (), ())


def test_a_run_folder_stores_what_a_recipe_came_to(tmp_path: Path) -> None:
    config = _train("--recipe", "cogvideox-5b-i2v", "--lr", "0.5", "--resume")
    assert config.resume
    with RunFolder.open(tmp_path / "run", config, command="train"):
        stored = read_config(tmp_path / "run")
    # A run goes on whichever way its settings were given.
    assert not {"recipe", "resume"} & {*stored}
    assert (stored["lr"], stored["lora_rank"], stored["v2t"]) == (0.5, 128, [7, 11])


@pytest.mark.parametrize("name", NAMES)
def test_plan_asks_what_the_training_would(name: RecipeName) -> None:
    _, planned = parse(["plan", "--recipe", name, "--device", "h100"])
    train = RECIPES[name](**HERE)
    assert planned.device == "h100"
    assert planned.mode == "train"
    shared = set(PlanConfig.model_fields) & set(TrainConfig.model_fields)
    other = shared - {"batch", "out"}  # of a forward pass there, of an update here
    assert {key: getattr(planned, key) for key in other} == {
        key: getattr(train, key) for key in other
    }
    assert planned.batch == (train.micro_batch or train.batch)
    assert planned.update_batch == train.batch


@pytest.mark.parametrize(("name", "layers"), LARGE.items())
def test_large_recipes_fit_the_models_that_they_name(
    name: RecipeName, layers: tuple[int, ...]
) -> None:
    train = RECIPES[name](**HERE)
    known = blueprint(train.model)
    assert known.clip == (train.num_frames, train.height, train.width)
    assert known.place is None  # a preset: planned without a network
    assert sorted({*train.v2t, *train.v2v}) == list(layers)
    assert max(layers) < known.read("transformer/config.json")["num_layers"]


def test_rows_of_a_comparison_differ_in_what_they_compare_alone() -> None:
    full, plain = tiny(**HERE).model_dump(), tiny(**HERE, aligned=False).model_dump()
    assert {key for key in full if full[key] != plain[key]} == {"sga", "spa"}
    assert (plain["sga"], plain["spa"]) == (0, 0)


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (3, 1), (120, 30), (800, 200), (2000, 200)])
def test_a_short_run_is_scored_and_saved_on_its_way_too(steps: int, every: int) -> None:
    config = tiny(**HERE, steps=steps)
    assert config.heldout_every == config.checkpoint_every == every

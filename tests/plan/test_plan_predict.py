"""Predictions against what the same run allocates, and against a run of every layer."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from matrix_video.backbones.loading import backbone_for
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.plan.machine import Machine
from matrix_video.plan.measure import measured
from matrix_video.plan.predict import RUNTIME, Planner, Prediction
from matrix_video.plan.work import FINISH, ONCE, STEP
from matrix_video.services.errors import MatrixError

from .conftest import LAYERS, SIZE, question

Plan = Callable[..., Prediction]
NEAR = 0.15


def _step(plan: Prediction) -> int:
    """Peak of a training whose clip is encoded before."""
    return max(phase.peak for phase in plan.phases if phase.name in (ONCE, STEP)) - RUNTIME


@pytest.mark.parametrize("recompute", [False, True])
def test_updates_take_what_was_predicted(folder: Path, plan: Plan, recompute: bool) -> None:
    changes = {"batch": 8, "gradient_checkpointing": recompute}
    backbone = backbone_for(tiny_pipeline(0, layers=LAYERS))
    found = measured(question(folder, **changes), backbone, SIZE, encoded=True)
    assert _step(plan(**changes)) == pytest.approx(found, rel=NEAR)


def test_tiles_save_the_memory_of_the_vae(plan: Plan) -> None:
    whole, tiled = (
        plan(mode="generate", batch=1, tiling=tiling).phases[-1] for tiling in (False, True)
    )
    assert whole.name == tiled.name == FINISH
    assert tiled.peak < whole.peak


@pytest.mark.parametrize("mode", ["train", "analyze", "generate"])
def test_whole_runs_take_what_was_predicted(folder: Path, plan: Plan, mode: str) -> None:
    backbone = backbone_for(tiny_pipeline(0, layers=LAYERS))
    found = measured(question(folder, mode=mode), backbone, SIZE)
    assert plan(mode=mode).total - RUNTIME == pytest.approx(found, rel=NEAR)


@pytest.mark.parametrize(
    "changes",
    [{"batch": 8, "gradient_checkpointing": True}, {"mode": "analyze"}],
    ids=["train", "analyze"],
)
def test_shortened_and_whole_models_give_one_plan(
    here: Machine, folder: Path, plan: Plan, changes: dict[str, Any]
) -> None:
    whole = Planner(here, shorten=False).predict(question(folder, **changes))
    short = plan(**changes)
    assert short.where == whole.where
    peaks = [phase.peak - RUNTIME for phase in whole.phases]
    assert [phase.peak - RUNTIME for phase in short.phases] == pytest.approx(peaks, rel=1e-3)
    flops = [phase.flops for phase in whole.phases]
    assert [phase.flops for phase in short.phases] == pytest.approx(flops)
    kept = [layer.kept for layer in whole.layers]
    assert [layer.kept for layer in short.layers] == kept


def test_parts_sum_up_and_maps_cost_something(plan: Plan) -> None:
    aligned, plain = plan(batch=8), plan(batch=8, aligned=False)
    assert sum(aligned.parts.values()) == aligned.total
    assert _step(aligned) > _step(plain)
    assert [layer.read for layer in aligned.layers] == ["v2t v2v", "", "", "", ""]
    assert aligned.layers[0].flops > plain.layers[0].flops
    assert aligned.tokens == (48, 32)


def test_encoders_are_held_until_all_is_encoded(plan: Plan) -> None:
    updates, encoding = plan(batch=32), plan(batch=8)
    text, trained = "weights: text encoder", "LoRA, id map, decoder"
    assert updates.total == updates.phases[-1].peak
    assert text not in updates.parts
    assert trained in updates.parts
    assert encoding.total == encoding.phases[0].peak
    assert text in encoding.parts
    assert trained not in encoding.parts
    assert sum(encoding.parts.values()) == encoding.total


def test_updates_are_free_of_what_encoders_took(planner: Planner, tmp_path: Path) -> None:
    pipe: Any = tiny_pipeline(0, text_dim=512)
    pipe.save_pretrained(tmp_path)
    encoder = sum(x.nbytes for x in pipe.text_encoder.parameters())
    *_, once, step = planner.predict(question(tmp_path, batch=1)).phases
    assert once.peak - RUNTIME > encoder
    assert step.peak - RUNTIME < encoder


def test_autocast_of_a_gpu_does_norms_in_float32(folder: Path, here: Machine) -> None:
    config = question(folder, precision="bf16", mode="generate")
    gpu = Planner(replace(here, gpu=True)).predict(config)
    cpu = Planner(here).predict(config)
    assert gpu.layers[4].working > cpu.layers[4].working


def test_engines_keep_and_compute_otherwise(plan: Plan) -> None:
    fast, portable = plan(batch=8), plan(batch=8, engine="portable")
    assert fast.layers[1] == portable.layers[1]
    assert fast.layers[0].flops != portable.layers[0].flops


def test_time_is_work_times_how_often(plan: Plan) -> None:
    found = plan(batch=8, gradient_checkpointing=True)
    encode, once, update = found.phases
    assert (encode.times, once.times, update.times) == (100, 1, 2000)
    total = 100 * encode.seconds + once.seconds + 2000 * update.seconds
    assert found.seconds == pytest.approx(total)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model": "no/such-model"}, "model: the model 'no/such-model' was not found"),
        ({"num_frames": None}, "num_frames: the size of the clips is not known: .* --num-frames"),
        ({"height": 30}, "size: frames of 30 x 32 pixels.*multiples of 8"),
        ({"num_frames": 8}, "num_frames: a clip of 8 frames.* use 1 or 9 frames"),
        ({"v2t": (7,)}, "layers: layer 7 does not exist.* 0 to 4"),
    ],
    ids=str,
)
def test_mistakes_are_named(plan: Plan, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(MatrixError, match=problem):
        plan(**changes)

"""Predictions for every family, and for the shipped model, against what is allocated."""

from pathlib import Path
from typing import Any

import pytest

from matrix_video.backbones.blueprint import presets
from matrix_video.backbones.loading import backbone_for, families, load_pipeline
from matrix_video.plan.config import PlanConfig
from matrix_video.plan.measure import measured
from matrix_video.plan.predict import RUNTIME, Planner

NEAR = 0.15
PACKAGED = [
    pytest.param(
        name,
        mode,
        marks=[] if (name, mode) == ("cogvideox-5b-i2v", "generate") else pytest.mark.slow,
    )
    for name in presets()
    for mode in ("train", "analyze", "generate")
]
"""All but one take minutes at full size; the default one is whose VAE refused a batch."""
VARIANTS = [(name, one) for name, point in families().items() for one in point.load().variants]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["train", "analyze", "generate"])
@pytest.mark.parametrize(("family", "variant"), VARIANTS)
def test_every_family_takes_what_was_predicted(
    family: str, variant: str, mode: Any, planner: Planner, tmp_path: Path
) -> None:
    cls: Any = families()[family].load()
    pipe = cls.tiny(variant)
    pipe.save_pretrained(tmp_path)
    frames, height, width = cls.tiny_clip
    config = PlanConfig(
        model=str(tmp_path), mode=mode, batch=1, num_frames=frames, height=height, width=width
    )
    found = measured(config, backbone_for(pipe), cls.tiny_clip)
    assert planner.predict(config).total - RUNTIME == pytest.approx(found, rel=NEAR)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["train", "analyze", "generate"])
def test_the_shipped_model_takes_what_was_predicted(mode: Any, planner: Planner) -> None:
    config = PlanConfig(mode=mode, batch=4)
    plan = planner.predict(config)
    found = measured(config, backbone_for(load_pipeline("tiny")), plan.clip)
    assert plan.total - RUNTIME == pytest.approx(found, rel=NEAR)


@pytest.mark.parametrize(("model", "mode"), PACKAGED)
def test_every_packaged_configuration_can_be_planned(
    model: str, mode: Any, planner: Planner
) -> None:
    """With the command's defaults, at the size that the model is made for: eight videos at once
    were more than CogVideoX's VAE decodes."""
    plan = planner.predict(PlanConfig(model=model, mode=mode))
    weights = sum(size for name, size in plan.parts.items() if name.startswith("weights"))
    assert plan.total > weights > 10_000_000_000
    assert plan.seconds > 0

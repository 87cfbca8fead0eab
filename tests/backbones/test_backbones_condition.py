"""The id map's projection: nothing at the start, then the same as widened input channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from matrix_video.backbones.condition import (
    ID_COLOURS,
    MOST_IDS,
    Condition,
    id_colours,
    paint_ids,
)
from matrix_video.backbones.loading import backbone_for
from matrix_video.backbones.text import Text
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.services.errors import MatrixError

FIFTEEN: dict[str, Any] = {"patch_size_t": 2, "ofs_dim": 8, "invert_scale": True}


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def setting(options: dict[str, Any]) -> tuple[Any, Condition, dict[str, Tensor]]:
    backbone = backbone_for(tiny_pipeline(0, **options))
    shape = backbone.latent_shape(9, 32, 32)
    grid = backbone.grid(9, 32, 32)
    patch = (shape[0] // grid.num_frames, shape[2] // grid.height, shape[3] // grid.width)
    condition = Condition(backbone.transformer, backbone.condition_site(), shape[1], patch)
    inputs = {
        "noisy_BFCHW": noise(1, 2, *shape),
        "timesteps_B": torch.tensor([10, 900]),
        "text": Text(noise(2, 2, 32, 32)),
        "image_BFCHW": noise(3, 2, *shape),
    }
    return backbone, condition, inputs


@pytest.mark.parametrize("options", [{}, FIFTEEN], ids=["convolution", "linear"])
def test_step_0_is_the_base_bit_for_bit(options: dict[str, Any]) -> None:
    backbone, condition, inputs = setting(options)
    keys = list(backbone.transformer.state_dict())
    with torch.no_grad():
        without = backbone.predict(**inputs)
        with condition.given(noise(4, *inputs["noisy_BFCHW"].shape)):
            start = backbone.predict(**inputs)
        nn.init.normal_(condition.projection.conv.weight)
        with condition.given(torch.zeros_like(inputs["noisy_BFCHW"])):
            dropped = backbone.predict(**inputs)
        with condition.given(None):
            absent = backbone.predict(**inputs)
    assert torch.equal(start, without)
    assert torch.equal(dropped, without)
    assert torch.equal(absent, without)
    assert list(backbone.transformer.state_dict()) == keys


@pytest.mark.parametrize("options", [{}, FIFTEEN], ids=["convolution", "linear"])
def test_equals_widened_input_channels(options: dict[str, Any]) -> None:
    """The paper widens the patch layer's input; the side projection is the same function."""
    backbone, condition, inputs = setting(options)
    id_map = noise(5, *inputs["noisy_BFCHW"].shape)
    nn.init.normal_(
        condition.projection.conv.weight, std=0.1, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad(), condition.given(id_map):
        found = backbone.predict(**inputs)

    condition.detach()
    transformer = backbone.transformer
    channels = transformer.config.in_channels + condition.projection.channels
    wide = type(transformer).from_config({**transformer.config, "in_channels": channels}).eval()
    state = transformer.state_dict()
    own = state["patch_embed.proj.weight"]
    side = condition.projection.conv.weight.detach()
    if own.ndim == 4:
        state["patch_embed.proj.weight"] = torch.cat([own, side[:, :, 0]], dim=1)
    else:
        state["patch_embed.proj.weight"] = torch.cat([own, side.flatten(1)], dim=1)
    wide.load_state_dict(state)
    backbone.transformer = backbone.pipe.transformer = wide
    with torch.no_grad():
        image = torch.cat([inputs["image_BFCHW"], id_map], dim=2)
        expected = backbone.predict(**(inputs | {"image_BFCHW": image}))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_guidance_halves_see_the_same_id_map() -> None:
    backbone, condition, inputs = setting({})
    nn.init.normal_(condition.projection.conv.weight)
    id_map = noise(6, *inputs["noisy_BFCHW"].shape)
    twice = {name: (Text if name == "text" else torch).cat([x, x]) for name, x in inputs.items()}
    with torch.no_grad():
        with condition.given(id_map):
            once = backbone.predict(**inputs)
            both = backbone.predict(**twice)
        with condition.given(torch.cat([id_map, id_map])):
            full = backbone.predict(**twice)
    assert torch.equal(both, full)
    torch.testing.assert_close(both[2:], once)
    assert not torch.allclose(once[0], once[1])
    with pytest.raises(ValueError, match="beside a patch output"), condition.given(full[:3]):
        backbone.predict(**inputs)


def test_detached_it_is_gone() -> None:
    backbone, condition, inputs = setting({})
    nn.init.normal_(condition.projection.conv.weight)
    layer = backbone.transformer.get_submodule(backbone.condition_site())
    with torch.no_grad():
        before = backbone.predict(**inputs)
        condition.detach()
        with condition.given(noise(7, *inputs["noisy_BFCHW"].shape)):
            after = backbone.predict(**inputs)
    assert torch.equal(before, after)
    assert not layer._forward_hooks


def test_gradient_reaches_the_projection_from_the_start() -> None:
    backbone, condition, inputs = setting({})
    with condition.given(noise(8, *inputs["noisy_BFCHW"].shape)):
        backbone.predict(**inputs).square().mean().backward()
    gradient = condition.projection.conv.weight.grad
    assert gradient is not None
    assert gradient.abs().max() > 0


def test_three_dimensional_patch_layers() -> None:
    """Families whose patch layer is a 3-D convolution, on [B,C,F,H,W]."""
    layer = nn.Conv3d(4, 6, (1, 2, 2), stride=(1, 2, 2))
    model = nn.Module()
    model.patch = layer
    condition = Condition(model, "patch", 3, (1, 2, 2))
    nn.init.normal_(condition.projection.conv.weight)
    x, id_map = noise(9, 2, 4, 3, 4, 4), noise(10, 2, 3, 3, 4, 4)
    expected = layer(x) + nn.functional.conv3d(
        id_map.transpose(1, 2), condition.projection.conv.weight, stride=(1, 2, 2)
    )
    with condition.given(id_map):
        torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Conv2d(4, 6, 2, stride=2), r"patches \(1, 2, 2\), not \(1, 4, 4\)"),
        (nn.LayerNorm(4), "LayerNorm is no patch layer"),
    ],
)
def test_another_layer_is_refused(layer: nn.Module, message: str) -> None:
    model = nn.Module()
    model.patch = layer
    with pytest.raises(ValueError, match=message):
        Condition(model, "patch", 3, (1, 4, 4))


def test_colours_are_drawn_for_each_sample() -> None:
    masks = np.zeros((3, 4, 6), bool)
    masks[0, :, :2], masks[1, :, 2:4], masks[2, 0, 5] = True, True, True
    seen: set[tuple[tuple[int, ...], ...]] = set()
    for seed in range(40):
        image = paint_ids(masks, torch.Generator().manual_seed(seed), "a")
        again = paint_ids(masks, torch.Generator().manual_seed(seed), "a")
        assert np.array_equal(image, again)
        colours = tuple(tuple(int(c) for c in image[np.nonzero(m)][0]) for m in masks)
        assert set(colours) <= set(ID_COLOURS)
        assert len(set(colours)) == 3
        for mask, colour in zip(masks, colours, strict=True):
            assert (image[mask] == colour).all()
        assert not image[~masks.any(axis=0)].any()
        seen.add(colours)
    assert len(seen) > 30
    assert len({colours[0] for colours in seen}) > 6  # no instance keeps a colour


def test_the_smaller_instance_lies_on_top() -> None:
    masks = np.zeros((2, 4, 4), bool)
    masks[0], masks[1, 1:3, 1:3] = True, True
    for order in ([0, 1], [1, 0]):
        image = paint_ids(masks[order], torch.Generator().manual_seed(0), "a")
        assert (image[1:3, 1:3] == image[1, 1]).all()
        assert not (image[0, 0] == image[1, 1]).all()


def test_a_crowd_has_colours_far_apart() -> None:
    colours = id_colours(MOST_IDS)
    assert colours[:12] == ID_COLOURS == id_colours(12)
    taken = np.array([(0, 0, 0), *colours])
    gaps = np.abs(taken[:, None] - taken).max(axis=-1)[~np.eye(len(taken), dtype=bool)]
    assert gaps.min() >= 51
    masks = np.eye(13, dtype=bool).reshape(13, 1, 13)
    image = paint_ids(masks, torch.Generator().manual_seed(0), "a")
    assert len({tuple(pixel) for pixel in image[0].tolist()}) == 13


def test_more_instances_than_colours() -> None:
    masks = np.zeros((MOST_IDS + 1, 2, 2), bool)
    with pytest.raises(
        MatrixError, match=r"sample crowd has 65 instances.*room for 64.*--no-id-map"
    ):
        paint_ids(masks, torch.Generator(), "crowd")
    assert paint_ids(masks[:0], torch.Generator(), "a").max() == 0

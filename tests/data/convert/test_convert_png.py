"""Forms of mask images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_video.data.convert.png import (
    DEFAULT_FORM,
    Form,
    decode_png,
    encode_png,
    fit_forms,
    look,
    render,
)

EMPTY = np.zeros((4, 6), dtype=bool)
PLACE = Path("mask.png")


def form(mode: str, back: tuple[int, ...], fore: tuple[int, ...]) -> Form:
    return Form(mode=mode, palette=None, background=back, foreground=fore)


@given(
    mode=st.sampled_from([("1", 1, 2), ("L", 1, 256), ("RGB", 3, 256)]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 999),
)
def test_pixels_survive(mode: tuple[str, int, int], size: tuple[int, int], seed: int) -> None:
    name, channels, values = mode
    pixels = np.random.default_rng(seed).integers(0, values, (*size, channels))
    png = decode_png(encode_png(name, None, pixels), PLACE)
    assert png.mode == name
    assert png.plain
    assert np.array_equal(png.pixels_HWC, pixels)


@pytest.mark.parametrize("shape", [form("L", (0,), (1,)), form("RGB", (0, 0, 0), (0, 0, 7))])
def test_a_form_is_read_from_its_images(shape: Form) -> None:
    masks = [~EMPTY, EMPTY, np.indices((4, 6)).sum(axis=0) % 3 == 0]
    looks = [look(decode_png(render(shape, mask), PLACE), mask) for mask in masks]
    forms, chosen = fit_forms(looks)
    assert forms == (shape,)
    assert chosen == [0, 0, 0]


def test_an_empty_image_alone_has_the_default_form() -> None:
    looks = [look(decode_png(render(DEFAULT_FORM, EMPTY), PLACE), EMPTY), None]
    assert fit_forms(looks) == ((DEFAULT_FORM,), [0, None])


def test_two_values_inside_have_no_form() -> None:
    pixels = np.arange(24).reshape(4, 6, 1)
    png = decode_png(encode_png("L", None, pixels), PLACE)
    assert look(png, png.mask()) is None


def test_mixed_forms_of_one_folder() -> None:
    box = np.zeros((4, 6), dtype=bool)
    box[1:3, 2:4] = True
    shapes = [form("L", (0,), (1,)), form("L", (0,), (255,)), form("1", (0,), (1,))]
    looks = [look(decode_png(render(shape, box), PLACE), box) for shape in [*shapes, shapes[1]]]
    assert fit_forms(looks) == (tuple(shapes), [0, 1, 2, 1])

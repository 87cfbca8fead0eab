import numpy as np
import pytest

from matrix_video.evaluation.oracle.appearance import (
    BACKGROUND,
    FADED,
    MIXED,
    STRANGE,
    label_frames,
    learn,
)
from matrix_video.world.palette import COLOURS

_RED, _BLUE = COLOURS["red"], COLOURS["blue"]


def _painted(*boxes, background=(230, 230, 230)):
    """A frame with rectangles (top, left, height, width, colour), and their masks."""
    frame_HW3 = np.full((64, 64, 3), background, dtype=np.uint8)
    masks = []
    for top, left, height, width, colour in boxes:
        mask_HW = np.zeros((64, 64), dtype=bool)
        mask_HW[top : top + height, left : left + width] = True
        frame_HW3[mask_HW] = colour
        masks.append(mask_HW)
    return frame_HW3, masks


def _labels(frame_HW3, appearance):
    return label_frames(frame_HW3[None], appearance).labels_THW[0]


def test_colours_are_learned_from_the_masked_pixels_not_from_a_list():
    strange = (120, 60, 10)  # no colour of the palette
    alike = (132, 50, 10)
    frame_HW3, masks = _painted(
        (10, 10, 16, 16, strange), (40, 40, 12, 12, _BLUE), (5, 40, 16, 16, alike)
    )
    appearance = learn(frame_HW3, masks)
    assert appearance.group_R == (0, 1, 0)
    assert appearance.num_own == 2
    np.testing.assert_allclose(appearance.colours_K3[0], np.add(strange, alike) / 2)
    labels_HW = _labels(frame_HW3, appearance)
    for mask_HW, group in zip(masks, appearance.group_R, strict=True):
        assert (labels_HW[mask_HW] == group).all()
    assert (labels_HW[~np.logical_or.reduce(masks)] == BACKGROUND).all()


@pytest.mark.parametrize(
    ("colour", "label"),
    [
        (tuple((np.array(_RED, int) + COLOURS["cyan"]) // 2), MIXED),
        ((0, 0, 0), STRANGE),
        ((255, 140, 0), STRANGE),
        ((110, 70, 30), STRANGE),
        (tuple(int(0.3 * c + 0.7 * 230) for c in _RED), FADED),
        (tuple(int(0.1 * c + 0.9 * 230) for c in _RED), BACKGROUND),
        (tuple(int(0.7 * c + 0.3 * 230) for c in _RED), 0),
    ],
)
def test_a_pixel_is_explained_by_one_colour_by_two_or_not_at_all(colour, label):
    frame_HW3, masks = _painted((5, 5, 16, 16, _RED), (40, 5, 16, 16, COLOURS["cyan"]))
    later_HW3, (there_HW,) = _painted((20, 20, 14, 14, colour))
    labels_HW = _labels(later_HW3, learn(frame_HW3, masks))
    assert (labels_HW[there_HW] == label).all()
    assert (labels_HW[~there_HW] == BACKGROUND).all()


def test_tint_noise_and_absence_of_the_background_are_told():
    frame_HW3, masks = _painted((10, 10, 16, 16, _RED))
    tinted_HW3, _ = _painted((10, 10, 16, 16, _RED), background=(208, 214, 226))
    rng = np.random.default_rng(0)
    noisy_HW3 = np.clip(frame_HW3 + rng.normal(0, 20, frame_HW3.shape), 0, 255).astype(np.uint8)
    film_THW3 = np.stack([frame_HW3, tinted_HW3, noisy_HW3, np.zeros_like(frame_HW3)])
    found = label_frames(film_THW3, learn(frame_HW3, masks))
    assert (found.labels_THW[1][~masks[0]] == BACKGROUND).all()  # a tint is followed
    assert (found.labels_THW[1] == 0).sum() == masks[0].sum()
    np.testing.assert_allclose(found.shift_T[:2], [0, 22], atol=0.5)
    assert found.rough_T[0] < 1 < 20 < found.rough_T[2] < 40
    assert np.isinf([found.rough_T[3], found.shift_T[3]]).all()


def test_a_mask_that_is_empty_or_of_another_size_is_refused():
    frame_HW3, masks = _painted((10, 10, 16, 16, _RED))
    with pytest.raises(ValueError, match="is empty or no frame"):
        learn(frame_HW3, [np.zeros((64, 64), dtype=bool)])
    with pytest.raises(ValueError, match="is empty or no frame"):
        learn(frame_HW3, [masks[0][:32]])

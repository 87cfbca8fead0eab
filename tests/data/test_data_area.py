from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from matrix_video.data.area import coverage, cut, overlap

sides = st.integers(1, 9)


def covered_by_hand(mask_HW: np.ndarray, size: tuple[int, int]) -> list[list[Fraction]]:
    """Covered share of each cell by exact rational geometry, a pixel at a time."""
    height, width = mask_HW.shape

    def shared(cell: int, cells: int, pixel: int, pixels: int) -> Fraction:
        low = max(Fraction(cell * pixels, cells), Fraction(pixel))
        high = min(Fraction((cell + 1) * pixels, cells), Fraction(pixel + 1))
        return max(Fraction(0), high - low)

    full = Fraction(height * width, size[0] * size[1])
    return [
        [
            sum(
                (
                    shared(y, size[0], i, height) * shared(x, size[1], j, width)
                    for i in range(height)
                    for j in range(width)
                    if mask_HW[i, j]
                ),
                Fraction(0),
            )
            / full
            for x in range(size[1])
        ]
        for y in range(size[0])
    ]


@given(st.data(), sides, sides, sides, sides)
def test_coverage_and_cut_are_exact(
    data: st.DataObject, height: int, width: int, rows: int, cols: int
) -> None:
    mask_HW = data.draw(arrays(np.bool_, (height, width)))
    keep = data.draw(st.booleans())
    shares = covered_by_hand(mask_HW, (rows, cols))
    covered = coverage(mask_HW[None], (rows, cols))
    assert [[Fraction(int(c), height * width) for c in row] for row in covered[0]] == shares
    wanted = np.array([[share >= Fraction(1, 2) for share in row] for row in shares])
    best = max(max(row) for row in shares)
    if keep and not wanted.any() and best > 0:
        y, x = next((y, x) for y in range(rows) for x in range(cols) if shares[y][x] == best)
        wanted[y, x] = True
    found = cut(covered, height * width, keep_best=np.array([keep]))
    assert np.array_equal(found[0], wanted)


def test_large_masks_stay_exact() -> None:
    # More pixels than float32 can count: a full mask short of one pixel must not round up.
    mask_THW = np.ones((1, 4099, 4101), dtype=bool)
    mask_THW[0, 0, 0] = False
    assert coverage(mask_THW, (1, 1)).item() == 4099 * 4101 - 1


def test_cached_weights_cannot_be_changed() -> None:
    assert not overlap(5, 3).flags.writeable

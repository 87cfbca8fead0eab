from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from matrix_video.data.grid import (
    GridMask,
    TokenGrid,
    causal_frames,
    masks_on_grid,
    masks_per_frame,
    union,
)
from matrix_video.data.tracks import State, resize_masks

V, A, U = State.VISIBLE, State.ABSENT, State.UNKNOWN


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((3, 4), ((0,), (1, 2, 3, 4), (5, 6, 7, 8))),
        ((2, 8), ((0,), tuple(range(1, 9)))),
        ((4, 1, 2), ((0, 1), (2, 3))),
        ((4, 2, 2), ((0, 1, 2), (3, 4, 5, 6))),
        ((3, 4, 2, 1), ((0,), tuple(range(1, 9)))),
        ((3, 4, 1, 2), ((), (), (0,), (1, 2, 3, 4), (5, 6, 7, 8))),
        ((4, 4, 3, 2), ((0,), tuple(range(1, 13)))),
    ],
)
def test_causal_frames(arguments: tuple[int, ...], wanted: tuple[tuple[int, ...], ...]) -> None:
    assert causal_frames(*arguments) == wanted


@given(st.integers(1, 9), st.integers(1, 8), st.integers(1, 3), st.integers(0, 3))
def test_causal_frames_share_out_every_frame_once(
    latents: int, ratio: int, patch_t: int, prepend: int
) -> None:
    if (latents + prepend) % patch_t:
        with pytest.raises(ValueError, match="do not divide into groups"):
            causal_frames(latents, ratio, patch_t, prepend)
        return
    groups = causal_frames(latents, ratio, patch_t, prepend)
    assert len(groups) == (latents + prepend) // patch_t
    padded = prepend // patch_t  # groups of the model's own latents alone
    assert [group == () for group in groups] == [i < padded for i in range(len(groups))]
    frames = [frame for group in groups for frame in group]
    assert frames == list(range(1 + ratio * (latents - 1)))


def slow_on_grid(
    masks_THW: np.ndarray, states: list[State], frames: list[tuple[int, ...]], size: tuple[int, int]
) -> tuple[np.ndarray, list[State]]:
    """Group by group: the union of its visible frames, then the cut by area."""
    union_FHW = np.zeros((len(frames), *masks_THW.shape[1:]), dtype=bool)
    found: list[State] = []
    for k, group in enumerate(frames):
        members = [states[t] for t in group]
        known = members and U not in members
        found.append((V if V in members else A) if known else U)
        for t in group:
            if known and states[t] is V:
                union_FHW[k] |= masks_THW[t]
    return resize_masks(union_FHW, size), found


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, list[State]]:
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 8), st.integers(1, 8)))
    masks_THW = draw(arrays(np.bool_, shape))
    if draw(st.booleans()):  # sparse: instances smaller than half a token
        masks_THW &= draw(arrays(np.bool_, shape)) & draw(arrays(np.bool_, shape))
    states = draw(st.lists(st.sampled_from([V, V, V, A, U]), min_size=shape[0], max_size=shape[0]))
    return masks_THW, states


sizes = st.tuples(st.integers(1, 5), st.integers(1, 5))


@given(cases(), sizes, st.data())
def test_masks_on_grid_against_the_slow_reference(
    case: tuple[np.ndarray, list[State]], size: tuple[int, int], data: st.DataObject
) -> None:
    masks_THW, states = case
    group = st.lists(st.integers(0, len(states) - 1), max_size=4, unique=True).map(tuple)
    frames = data.draw(st.lists(group, min_size=1, max_size=4))
    result = masks_on_grid(masks_THW, states, TokenGrid(tuple(frames), *size))
    wanted, wanted_states = slow_on_grid(masks_THW, states, frames, size)
    assert list(result.states) == wanted_states
    assert result.known_F.tolist() == [state is not U for state in wanted_states]
    assert np.array_equal(result.mask_Fhw, wanted)
    each = masks_per_frame(masks_THW, states, size)
    assert list(each.states) == states
    one, _ = slow_on_grid(masks_THW, states, [(0,)], size)
    assert np.array_equal(each.mask_Fhw[:1], one)


def test_union_of_participants() -> None:
    def grid_mask(columns: list[int], states: list[State]) -> GridMask:
        mask_Fhw = np.zeros((4, 1, 3), dtype=bool)
        for k, state in enumerate(states):
            mask_Fhw[k, 0, columns] = state is V
        return GridMask(mask_Fhw, tuple(states))

    both = union([grid_mask([0], [V, V, V, A]), grid_mask([2], [V, A, U, A])])
    assert both.states == (V, V, U, A)
    assert both.mask_Fhw[:, 0].astype(int).tolist() == [[1, 0, 1], [1, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_grid_counts() -> None:
    grid = TokenGrid(causal_frames(5, 4), 8, 6)
    assert grid.shape == (5, 8, 6)
    assert grid.num_frames == 5
    assert grid.num_tokens == 240
    assert grid.first == 0
    assert TokenGrid(causal_frames(5, 4, patch_t=2, prepend=3), 8, 6).first == 1
    with pytest.raises(ValueError, match=r"no token frame of .* holds a pixel frame"):
        TokenGrid(((),), 8, 6).first  # noqa: B018


def test_refusals() -> None:
    grid = TokenGrid(((0,), (1, 2)), 2, 2)
    with pytest.raises(ValueError, match="reaches past 2 frames"):
        masks_on_grid(np.ones((2, 4, 4), dtype=bool), [V, V], grid)
    with pytest.raises(ValueError, match=r"expected bool \[3,H,W\], got bool \(2, 4, 4\)"):
        masks_on_grid(np.ones((2, 4, 4), dtype=bool), [V, V, V], grid)
    with pytest.raises(ValueError, match=r"got uint8"):
        masks_per_frame(np.ones((1, 4, 4), dtype=np.uint8), [V], (2, 2))
    with pytest.raises(ValueError, match="empty token grid"):
        TokenGrid((), 2, 2)
    with pytest.raises(ValueError, match="cannot unite"):
        union([])
    with pytest.raises(ValueError, match="cannot unite"):
        union([GridMask(np.ones((1, 1, n), dtype=bool), (V,)) for n in (1, 2)])
    with pytest.raises(ValueError, match="2 states for a mask"):
        GridMask(np.ones((1, 1, 1), dtype=bool), (V, V))
    with pytest.raises(ValueError, match="num_latent=0"):
        causal_frames(0, 4)

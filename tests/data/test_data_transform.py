from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from matrix_video.data.options import ClipOptions
from matrix_video.data.tracks import MaskTrack, State, resize_masks
from matrix_video.data.transform import ClipTransform
from matrix_video.data.video import probe_video, write_video
from matrix_video.services.errors import MatrixError


def times_of(count: int, fps: float) -> np.ndarray:
    return np.arange(count) / fps


@pytest.mark.parametrize(
    ("transform", "times", "wanted"),
    [
        (ClipTransform(), times_of(4, 8), [0, 1, 2, 3]),
        (ClipTransform(num_frames=3), times_of(4, 8), [0, 1, 2]),
        (ClipTransform(start=0.25), times_of(4, 8), [2, 3]),
        (ClipTransform(start=0.2, num_frames=1), times_of(4, 8), [2]),
        (ClipTransform(fps=8, num_frames=2), times_of(9, 24), [0, 3]),
        (ClipTransform(fps=16), times_of(3, 8), [0, 0, 1, 1, 2]),  # ties go to the earlier
        # Neighbouring rates: half a frame past the last time stamp is still that frame.
        (ClipTransform(fps=24000 / 1001), times_of(25, 24), list(range(25))),
        # Time stamps rounded to milliseconds, as Matroska does.
        (ClipTransform(fps=10), np.round(times_of(31, 30), 3), list(range(0, 31, 3))),
        # A stream that starts late: start counts from its first frame.
        (ClipTransform(fps=8, start=0.125), times_of(4, 8) + 1.4, [1, 2, 3]),
        (ClipTransform(fps=8), [0.7], [0]),
        (ClipTransform(fps=8, num_frames=1), [0.7], [0]),
    ],
)
def test_frame_indices(transform: ClipTransform, times: np.ndarray, wanted: list[int]) -> None:
    assert transform.frame_indices(times) == wanted


@given(
    st.lists(st.integers(1, 200), min_size=0, max_size=20),
    st.integers(1, 60),
    st.integers(0, 1500),
)
def test_every_frame_taken_is_the_nearest(gaps: list[int], fps: int, start: int) -> None:
    # Milliseconds as exact fractions: the reference does not round.
    stamps = [Fraction(sum(gaps[:k]), 1000) for k in range(len(gaps) + 1)]
    transform = ClipTransform(fps=fps, start=start / 1000)
    steps = sorted(b - a for a, b in pairwise(stamps))
    middle = len(steps) // 2
    half = (
        (steps[middle] + steps[-1 - middle]) / 4
        if steps
        else Fraction(0)  # one frame: shown at its own time alone
    )
    wanted: list[int] = []
    k = 0
    while (at := Fraction(start, 1000) + Fraction(k, fps)) < stamps[-1] + half or (
        not steps and at == 0
    ):
        distances = [abs(stamp - at) for stamp in stamps]
        wanted.append(distances.index(min(distances)))
        k += 1
    if wanted:
        assert transform.frame_indices([float(stamp) for stamp in stamps]) == wanted
    else:
        with pytest.raises(MatrixError, match="the clip gives 0 frames"):
            transform.frame_indices([float(stamp) for stamp in stamps])


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (ClipTransform(num_frames=9), "gives 8 frames from 0 s on, but 9 are wanted"),
        (ClipTransform(fps=4, num_frames=5), "gives 4 frames at 4 fps from 0 s on, but 5"),
        (ClipTransform(start=0.5, num_frames=5), "gives 4 frames from 0.5 s on, but 5"),
        (ClipTransform(start=7.0), "gives 0 frames from 7 s on, but 1 are wanted"),
    ],
)
def test_clip_too_short(transform: ClipTransform, message: str) -> None:
    with pytest.raises(MatrixError, match=message):
        transform.frame_indices(times_of(8, 8))


@pytest.mark.parametrize("size", [(20, 16), (45, 61), (90, 100)])
def test_frames_and_masks_keep_their_place_together(tmp_path: Path, size: tuple[int, int]) -> None:
    masks_THW = np.zeros((1, 60, 80), dtype=bool)
    masks_THW[0, 12:33, 41:70] = True
    file = tmp_path / "a.mp4"
    write_video(
        file, (255 * masks_THW[..., None]).astype(np.uint8).repeat(3, 3), 8.0, lossless=True
    )
    transform = ClipTransform(crop=(3, 5, 50, 70), size=size)
    seen = transform.load(file, probe_video(file)).frames_THWC[0, ..., 0]
    mask = transform.track(MaskTrack.from_masks(masks_THW), times_of(1, 8)).mask(0)
    assert (seen[mask] >= 100).all()
    assert (seen[~mask] <= 155).all()


@st.composite
def drawn(draw: st.DrawFn) -> MaskTrack:
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 8), st.integers(1, 8)))
    masks_THW = draw(arrays(np.bool_, shape)) & draw(arrays(np.bool_, shape))
    unknown = draw(st.sets(st.integers(0, shape[0] - 1)))
    return MaskTrack.from_masks(masks_THW, sorted(unknown))


@given(drawn(), st.tuples(st.integers(1, 9), st.integers(1, 9)), st.data())
def test_cropped_and_resized_tracks(
    track: MaskTrack, size: tuple[int, int], data: st.DataObject
) -> None:
    high, wide = track.size
    top, left = data.draw(st.integers(0, high - 1)), data.draw(st.integers(0, wide - 1))
    height = data.draw(st.integers(1, high - top))
    width = data.draw(st.integers(1, wide - left))
    transform = ClipTransform(crop=(top, left, height, width), size=size)
    result = transform.track(track, times_of(len(track), 8))
    masks_THW = track.masks()[:, top : top + height, left : left + width]
    assert np.array_equal(result.masks(), resize_masks(masks_THW, size))
    for before, after, mask_HW in zip(track.states, result.states, masks_THW, strict=True):
        gone = before is State.VISIBLE and not mask_HW.any()  # out of frame
        assert after is (State.ABSENT if gone else before)


def test_options_of_a_command_become_a_transform() -> None:
    assert ClipOptions().transform() == ClipTransform()
    chosen = ClipOptions(fps=4, num_frames=3, height=8, width=6)
    assert chosen.transform() == ClipTransform(fps=4, num_frames=3, size=(8, 6))
    with pytest.raises(MatrixError, match=r"width: only one of height and width.*Give both"):
        ClipOptions(height=8)


def test_nothing_to_do_gives_the_same_track(tracks: dict[str, MaskTrack]) -> None:
    for transform in (
        ClipTransform(),
        ClipTransform(fps=8, num_frames=5, crop=(0, 0, 8, 10), size=(8, 10)),
    ):
        assert transform.track(tracks["id1"], times_of(5, 8)) is tracks["id1"]


def test_crop_outside_the_frame(dataset_path: Path) -> None:
    transform, file = ClipTransform(crop=(5, 0, 4, 4)), dataset_path / "videos/0001.mp4"
    message = r"crop: the crop \(top 5, left 0, 4x4\) leaves the frame of 8x10 .* Choose a crop"
    with pytest.raises(MatrixError, match=message):
        transform.load(file, probe_video(file))
    with pytest.raises(MatrixError, match=message):
        transform.track(MaskTrack.from_masks(np.ones((4, 8, 10), dtype=bool)), times_of(4, 8))


@pytest.mark.parametrize(
    "transform",
    [
        ClipTransform(),
        ClipTransform(fps=3, num_frames=2),
        ClipTransform(fps=20),
        ClipTransform(start=0.3, crop=(2, 1, 4, 6), size=(8, 4)),
    ],
)
def test_a_file_gives_its_frames_cut_and_resized(
    dataset_path: Path, frames_THWC: np.ndarray, transform: ClipTransform
) -> None:
    file = dataset_path / "videos/0001.mp4"
    info = probe_video(file)
    found, indices = transform.load(file, info), transform.frame_indices(info.times)
    top, left, height, width = transform.crop or (0, 0, 8, 10)
    for frame_HWC, index in zip(found.frames_THWC, indices, strict=True):
        wanted = Image.fromarray(frames_THWC[index, top : top + height, left : left + width])
        if transform.size is not None:
            wanted = wanted.resize(transform.size[::-1], Image.Resampling.BILINEAR)
        assert np.array_equal(frame_HWC, np.asarray(wanted))
    assert found.times.tolist() == info.times[indices].tolist()
    assert np.array_equal(transform.first_frame(file, info), found.frames_THWC[0])
    shape = transform.shape(info)
    assert (shape.num_frames, (shape.height, shape.width)) == (len(found), found.size)
    assert shape.fps == found.fps == (transform.fps or 8.0)


@pytest.mark.parametrize(
    ("transform", "squeeze"),
    [
        (ClipTransform(), 1.0),
        (ClipTransform(size=(16, 20)), 1.0),
        (ClipTransform(size=(8, 16)), 1.6),
        (ClipTransform(size=(16, 8)), 2.5),
        (ClipTransform(crop=(0, 0, 8, 8), size=(16, 16)), 1.0),
    ],
)
def test_a_clip_squeezed_beyond_one_and_a_half_is_told(
    dataset_path: Path, transform: ClipTransform, squeeze: float
) -> None:
    shape = transform.shape(probe_video(dataset_path / "videos/0001.mp4"))
    assert shape.squeeze == pytest.approx(squeeze)
    told = f"squeezed {squeeze:.2f} times in aspect to {shape.height}x{shape.width}"
    assert (shape.squeezed or "").startswith(told) == (squeeze > 1.5)


def test_key_tells_transforms_apart() -> None:
    different = [
        ClipTransform(),
        ClipTransform(fps=8),
        ClipTransform(start=8.0),
        ClipTransform(num_frames=8),
        ClipTransform(size=(8, 9)),
        ClipTransform(size=(9, 8)),
        ClipTransform(crop=(0, 0, 8, 9)),
    ]
    assert len({transform.key() for transform in different}) == len(different)
    assert ClipTransform(fps=8, start=0).key() == ClipTransform(fps=8.0, start=-0.0).key()
    assert ClipTransform(fps=8, size=(4, 5)).key() == (
        'clip-transform-1:{"crop":null,"fps":8.0,"num_frames":null,"size":[4,5],"start":0.0}'
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fps": 0.0}, "clip transform fps: 0.0 is not possible. Give a number above 0"),
        ({"fps": float("inf")}, "clip transform fps: inf"),
        ({"start": -1.0}, "clip transform start: -1.0"),
        ({"num_frames": 0}, "clip transform num_frames: 0"),
        ({"crop": (-1, 0, 2, 2)}, "clip transform crop"),
        ({"crop": (0, 0, 0, 2)}, "clip transform crop"),
        ({"size": (0, 2)}, "clip transform size"),
    ],
)
def test_impossible_values(values: dict[str, float], message: str) -> None:
    with pytest.raises(MatrixError, match=message):
        ClipTransform(**values)

"""The same masks in everybody's files are the same tracks; what cannot be told is refused."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter
from pycocotools import mask as coco

from matrix_video.data.masks import read_masks
from matrix_video.data.tracks import State, run_lengths
from matrix_video.services.errors import MatrixError

T, H, W = 6, 40, 60
VOC = {1: (128, 0, 0), 2: (0, 128, 0)}


def numbers(second: int = 2) -> np.ndarray:
    """Objects 1 and ``second`` over six frames; the second is not seen in the last."""
    ids_THW = np.zeros((T, H, W), np.int32)
    for t in range(T):
        ids_THW[t, 4:20, 3 + t : 18 + t] = 1
        if t < T - 1:
            ids_THW[t, 15:35, 30 - t : 52 - t] = second
    return ids_THW


def save(folder: Path, name: str, picture: np.ndarray | Image.Image, **options: Any) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(folder / name, **options)


def frames(
    make: Callable[[np.ndarray], np.ndarray | Image.Image], name: str = "{:05d}.png"
) -> Callable[[Path], None]:
    """A picture a frame."""

    def write(folder: Path) -> None:
        for t, ids_HW in enumerate(numbers()):
            save(folder, name.format(t), make(ids_HW))

    return write


def objects(pattern: str, value: int = 255) -> Callable[[Path], None]:
    """A picture for each object and frame."""

    def write(folder: Path) -> None:
        for t, ids_HW in enumerate(numbers()):
            for one in (1, 2):
                picture = (value * (ids_HW == one)).astype(np.uint8)
                save(folder, pattern.format(object=one, frame=t), picture)

    return write


def grey(ids_HW: np.ndarray) -> np.ndarray:
    return ids_HW.astype(np.uint8)


def palette(ids_HW: np.ndarray) -> Image.Image:
    picture = Image.fromarray(grey(ids_HW), mode="P")
    picture.putpalette([0, 0, 0, *VOC[1], *VOC[2]])
    return picture


def colours(ids_HW: np.ndarray, of: dict[int, tuple[int, int, int]] = VOC) -> np.ndarray:
    picture_HWC = np.zeros((H, W, 3), np.uint8)
    for value, colour in of.items():
        picture_HWC[ids_HW == value] = colour
    return picture_HWC


def transparent(ids_HW: np.ndarray) -> np.ndarray:
    """Nothing is seen where there is no object, whatever colour lies below."""
    picture_HWC = np.where(ids_HW[..., None] == 0, np.uint8(7), colours(ids_HW))
    return np.dstack([picture_HWC, (255 * (ids_HW > 0)).astype(np.uint8)])


def arrays(**values: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        np.savez_compressed(path, **values)

    return write


def stacked_TNHW() -> np.ndarray:
    return np.stack([numbers() == 1, numbers() == 2], axis=1)


def array_files(**by_name: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        folder.mkdir()
        for t, ids_HW in enumerate(numbers()):
            values: dict[str, Any] = {name: make(ids_HW) for name, make in by_name.items()}
            np.savez(folder / f"{t:05d}.npz", **values)

    return write


def rle(mask_HW: np.ndarray, listed: bool = False) -> dict[str, Any]:
    found: Any = coco.encode(np.asfortranarray(mask_HW.astype(np.uint8)))
    counts = found["counts"].decode()
    return {"size": [H, W], "counts": run_lengths(counts) if listed else counts}


def runs_by_object(listed: bool) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        rows = {
            f"id{one}": [rle(m == one, listed) if (m == one).any() else None for m in numbers()]
            for one in (1, 2)
        }
        path.write_text(json.dumps(rows))

    return write


def runs_by_frame(path: Path) -> None:
    rows = {str(t): {str(i): rle(m == i) for i in (1, 2)} for t, m in enumerate(numbers())}
    path.write_text(json.dumps(rows))


def masklets(path: Path) -> None:
    rows = [[rle(m == 1), rle(m == 2)] for m in numbers()]
    path.write_text(json.dumps({"video_id": "sav_1", "masklet": rows, "masklet_id": [1, 2]}))


def vis(path: Path) -> None:
    rows = [
        {"id": i, "video_id": 3, "segmentations": [rle(m == i) for m in numbers()]} for i in (1, 2)
    ]
    path.write_text(json.dumps({"annotations": rows}))


STORED: dict[str, tuple[str, Callable[[Path], None]]] = {
    "grey": ("masks", frames(grey)),
    "grey, other names": ("masks", frames(grey, "frame_{:05d}.png")),
    "grey, a clip's number in the name": ("masks", frames(grey, "v12_{}.png")),
    "palette": ("masks", frames(palette)),
    "colours": ("masks", frames(colours)),
    "colours and alpha": ("masks", frames(transparent)),
    "a folder an object": ("masks", objects("{object}/{frame:05d}.png")),
    "SAM 2's folders": ("masks", objects("00{object}/{frame:05d}.png", value=1)),
    "the authors' folders": ("masks", objects("<id{object}>/{frame:05d}.png")),
    "below a folder of the video's name": ("masks", objects("a/{object}/{frame:05d}.png")),
    "a folder a frame": ("masks", objects("frame_{frame}/obj_{object}.png")),
    "object-frame": ("masks", objects("{object}-{frame}.png", value=1)),
    "frame and object in words": ("masks", objects("f{frame}_obj{object}.png")),
    "npz of ids": ("m.npz", arrays(masks=numbers())),
    "npz of ids as floats": ("m.npz", arrays(masks=numbers() * 1.0)),
    "npz of stacked masks": ("m.npz", arrays(masks=stacked_TNHW())),
    "npz, objects first": ("m.npz", arrays(masks=stacked_TNHW().swapaxes(0, 1))),
    "npz, logits": ("m.npz", arrays(m=stacked_TNHW()[:, :, None] * 20.0 - 10, obj_ids=[1, 2])),
    "npz an object": ("m.npz", arrays(obj_1=numbers() == 1, obj_2=numbers() == 2)),
    "npz an object and frame": (
        "m.npz",
        arrays(**{f"{t}_{i}": m == i for t, m in enumerate(numbers()) for i in (1, 2)}),
    ),
    "npz, objects last": ("m.npz", arrays(masks=np.moveaxis(stacked_TNHW(), 1, -1))),
    "npz an array a frame": (
        "m.npz",
        arrays(**{f"frame_{t}": m[:, None] for t, m in enumerate(stacked_TNHW())}),
    ),
    "npz of dictionaries": (
        "m.npz",
        arrays(**{f"f{t}_obj{i}": [m == i] for t, m in enumerate(numbers()) for i in (1, 2)}),
    ),
    "npz a frame, ids": ("masks", array_files(ids_map=lambda m: m)),
    "npz a frame, objects": (
        "masks",
        array_files(**{"1": lambda m: (m == 1)[None], "2": lambda m: (m == 2)[None]}),
    ),
    "run lengths": ("m.json", runs_by_object(listed=False)),
    "runs in lists": ("m.json", runs_by_object(listed=True)),
    "run lengths by frame": ("m.json", runs_by_frame),
    "SA-V": ("m.json", masklets),
    "VIS": ("m.json", vis),
}


@pytest.mark.parametrize("kind", STORED)
def test_every_way_of_storing_masks_gives_the_same_tracks(tmp_path: Path, kind: str) -> None:
    name, write = STORED[kind]
    write(tmp_path / name)
    found = read_masks(tmp_path / name, (H, W), T, names=("id1", "id2"))
    assert sorted(found.tracks) == ["id1", "id2"]
    for name, value in (("id1", 1), ("id2", 2)):
        assert np.array_equal(found.tracks[name].masks(), numbers() == value)
    assert found.tracks["id2"].states[-1] is State.ABSENT
    assert not found.notes


def test_ids_above_a_byte_are_themselves(tmp_path: Path) -> None:
    for t, ids_HW in enumerate(numbers(second=258)):
        save(tmp_path / "m", f"{t}.png", ids_HW.astype(np.uint16))
    found = read_masks(tmp_path / "m", (H, W), T)
    assert sorted(found.tracks) == ["1", "258"]
    with pytest.raises(
        MatrixError, match=r"no mask shows '2'; the masks hold 1 \(\d+ pixels\), 258"
    ):
        read_masks(tmp_path / "m", (H, W), T, names=("1", "2"))


def test_other_colours_keep_their_own_names(tmp_path: Path) -> None:
    frames(lambda ids_HW: colours(ids_HW, {1: (255, 0, 0), 2: (10, 20, 30)}))(tmp_path / "m")
    assert sorted(read_masks(tmp_path / "m", (H, W), T).tracks) == ["#0a141e", "#ff0000"]
    with pytest.raises(MatrixError, match=r"no mask shows '1'.*#ff0000.*colours \(#rrggbb\)"):
        read_masks(tmp_path / "m", (H, W), T, names=("1", "#0a141e"))


def test_white_on_black_is_the_one_object_or_tells_what_to_do(tmp_path: Path) -> None:
    frames(lambda ids_HW: grey(255 * (ids_HW == 1)))(tmp_path / "m")
    found = read_masks(tmp_path / "m", (H, W), T, names=("7",))
    assert np.array_equal(found.tracks["7"].masks(), numbers() == 1)
    with pytest.raises(MatrixError, match=r"White-on-black masks hold one object.*1/00000\.png"):
        read_masks(tmp_path / "m", (H, W), T, names=("1", "2"))


def test_black_on_white_is_told(tmp_path: Path) -> None:
    frames(lambda ids_HW: grey(255 * (ids_HW == 0)))(tmp_path / "m")
    found = read_masks(tmp_path / "m", (H, W), T, names=("1",))
    assert any("is it the background?" in note for note in found.notes)


def test_a_frame_without_an_objects_mask_is_unknown_for_that_object(tmp_path: Path) -> None:
    objects("{object}/{frame:05d}.png")(tmp_path / "m")
    (tmp_path / "m/2/00001.png").unlink()
    tracks = read_masks(tmp_path / "m", (H, W), T).tracks
    assert tracks["2"].states[1] is State.UNKNOWN
    assert tracks["2"].states[T - 1] is State.ABSENT
    assert State.UNKNOWN not in tracks["1"].states


# Frames


@pytest.mark.parametrize("first", [0, 1])
def test_masks_are_numbered_from_zero_or_one(tmp_path: Path, first: int) -> None:
    for t, ids_HW in enumerate(numbers()):
        save(tmp_path / "m", f"{t + first}.png", grey(ids_HW))
    found = read_masks(tmp_path / "m", (H, W), T, names=("1",))
    assert np.array_equal(found.tracks["1"].masks(), numbers() == 1)
    assert any("numbered from 1 (1 to 6)" in note for note in found.notes) == bool(first)


def test_fewer_masks_than_frames_need_a_stride(tmp_path: Path) -> None:
    frames(grey)(tmp_path / "m")
    with pytest.raises(
        MatrixError,
        match=r"6 masks, numbered in a row, for a video of 26 frames.*"
        r"Give --stride 5 .*--stride 1 if",
    ):
        read_masks(tmp_path / "m", (H, W), 26)
    spread = read_masks(tmp_path / "m", (H, W), 26, names=("1",), stride=5)
    visible = [t for t, s in enumerate(spread.tracks["1"].states) if s is State.VISIBLE]
    assert visible == [*range(0, 26, 5)]
    assert spread.tracks["1"].states[1] is State.UNKNOWN
    assert "20 of 26 frames have no mask and count as unknown" in spread.notes
    start = read_masks(tmp_path / "m", (H, W), 26, names=("1",), stride=1)
    assert {*start.tracks["1"].states[6:]} == {State.UNKNOWN}
    with pytest.raises(MatrixError, match=r"Give --stride 4 .*one frame in 4"):  # 6 fps of 24
        read_masks(tmp_path / "m", (H, W), 24)
    with pytest.raises(MatrixError, match="Give --stride 2 "):  # every second of an odd number
        read_masks(tmp_path / "m", (H, W), 11)
    with pytest.raises(MatrixError, match=r"numbered 5, frame 30 at a stride of 6, but the video"):
        read_masks(tmp_path / "m", (H, W), 26, stride=6)


def test_masks_named_by_the_videos_own_frames_stay_there(tmp_path: Path) -> None:
    for t, ids_HW in enumerate(numbers()):
        save(tmp_path / "m", f"{5 * t:05d}.png", grey(ids_HW))
    for stride in (None, 5):
        found = read_masks(tmp_path / "m", (H, W), 26, names=("1",), stride=stride)
        assert found.tracks["1"].states[25] is State.VISIBLE
    with pytest.raises(MatrixError, match=r"numbered 25, but the video has 20 frames \(0 to 19\)"):
        read_masks(tmp_path / "m", (H, W), 20)


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (("1.png", "001.png"), "'001' and '1' are the same"),
        (("a1.png", "b2.png"), "named both like 'a0' and like 'b0'"),
        (("a.png", "b.png"), "named both like 'a' and like 'b'"),
        (("1-1.png", "2-2.png"), "two numbers in them vary alike"),
        (("1-1-2.png", "2-2-3.png"), "3 numbers in them vary"),
    ],
)
def test_names_that_tell_no_frame_are_refused(
    tmp_path: Path, names: tuple[str, ...], problem: str
) -> None:
    for name in names:
        save(tmp_path / "m", name, numbers()[0].astype(np.uint8))
    with pytest.raises(MatrixError, match=problem):
        read_masks(tmp_path / "m", (H, W), T)


# Sizes


def test_another_size_is_refused_once_and_stretched_on_request(tmp_path: Path) -> None:
    frames(lambda ids_HW: Image.fromarray(grey(ids_HW)).resize((128, 128), 0))(tmp_path / "m")
    with pytest.raises(
        MatrixError,
        match=r"is 128x128, but its video is 40x60 .*6 masks like "
        r"this.*--resize-masks",
    ):
        read_masks(tmp_path / "m", (H, W), T)
    found = read_masks(tmp_path / "m", (H, W), T, resize=True, names=("1", "2"))
    assert "masks of 128x128 were stretched to 40x60" in found.notes
    for name in ("1", "2"):
        truth_THW, masks_THW = numbers() == int(name), found.tracks[name].masks()
        assert (truth_THW & masks_THW).sum() / (truth_THW | masks_THW).sum() > 0.9


# Values in between


def smoothed(ids_HW: np.ndarray, top: int) -> Image.Image:
    picture = Image.fromarray((top * ids_HW).astype(np.uint8))
    return picture.filter(ImageFilter.GaussianBlur(1.5))


@pytest.mark.parametrize(
    "kind",
    ["smoothed", "few levels", "jpeg", "jpeg of colours", "webp", "jpeg stored as png", "alpha"],
)
def test_one_object_with_soft_edges_keeps_its_area_and_says_so(tmp_path: Path, kind: str) -> None:
    for t, ids_HW in enumerate(numbers()):
        picture, name, options = smoothed(ids_HW == 1, 255), f"{t}.png", {}
        if kind == "few levels":
            picture = picture.point([64 * round(v / 64.01) for v in range(256)])
        elif kind.startswith("jpeg of") or kind in ("jpeg", "webp"):
            name, options = f"{t}.{'webp' if kind == 'webp' else 'jpg'}", {"quality": 60}
            picture = picture.convert("RGB") if kind == "jpeg of colours" else picture
        elif kind == "jpeg stored as png":
            Image.fromarray((255 * (ids_HW == 1)).astype(np.uint8)).save(
                tmp_path / "a.jpg", quality=40
            )
            picture = Image.open(tmp_path / "a.jpg")
        elif kind == "alpha":
            white = np.full((H, W, 3), 255, np.uint8)
            picture = Image.fromarray(np.dstack([white, np.asarray(picture)]))
        save(tmp_path / "m", name, picture, **options)
    found = read_masks(tmp_path / "m", (H, W), T, names=("1",))
    truth_THW, masks_THW = numbers() == 1, found.tracks["1"].masks()
    assert (truth_THW & masks_THW).sum() / (truth_THW | masks_THW).sum() > 0.9
    assert any("values in between on their borders" in note for note in found.notes)


@pytest.mark.parametrize("values", [{1: 1, 2: 2}, {1: 3, 2: 120}, {1: 100, 2: 200}])
def test_several_objects_with_smoothed_edges_are_refused(
    tmp_path: Path, values: dict[int, int]
) -> None:
    for t, ids_HW in enumerate(numbers()):
        named_HW = sum(value * (ids_HW == one) for one, value in values.items())
        picture = Image.fromarray(np.asarray(named_HW, np.uint8))
        small = picture.resize((W // 2, H // 2), Image.Resampling.NEAREST)
        save(tmp_path / "m", f"{t}.png", small.resize((W, H), Image.Resampling.BILINEAR))
    with pytest.raises(
        MatrixError, match=r"lie only on borders.*nearest neighbour|this is no mask"
    ):
        read_masks(tmp_path / "m", (H, W), T)


def test_a_thin_and_a_half_hidden_object_are_no_soft_edges(tmp_path: Path) -> None:
    ids_HW = np.zeros((H, W), np.uint8)
    ids_HW[10:30, 10:40] = 3
    ids_HW[10:30, 40] = 2  # a sliver beside the background: between 0 and 3
    ids_HW[5, 5:50] = 1  # a rope
    save(tmp_path / "m", "0.png", ids_HW)
    found = read_masks(tmp_path / "m", (H, W), 1)
    for value in (1, 2, 3):
        assert np.array_equal(found.tracks[str(value)].mask(0), ids_HW == value)
    assert not found.notes


# What is no mask


def deep_colours(folder: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        whole = kind + body
        return struct.pack(">I", len(body)) + whole + struct.pack(">I", zlib.crc32(whole))

    folder.mkdir()
    raw = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, 16, 2, 0, 0, 0))
    raw += chunk(b"IDAT", zlib.compress((b"\0" + b"\1\2" * 3 * W) * H)) + chunk(b"IEND", b"")
    (folder / "0.png").write_bytes(raw)


def noise(*shape: int) -> Callable[[Path], None]:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return lambda folder: save(folder, "0.png", pixels)


def mixed_depths(folder: Path) -> None:
    for name in ("a/b/0.png", "0.png"):
        save(folder, name, np.ones((H, W), bool))


def several_in_one(kind: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        first, *others = (Image.fromarray(grey(m)) for m in numbers())
        save(folder, f"0.{kind}", first, save_all=True, append_images=others)

    return write


def text(name: str = "") -> Callable[[Path], None]:
    def write(path: Path) -> None:
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text("no picture")

    return write


def write_json(value: object) -> Callable[[Path], None]:
    return lambda path: (path.write_text(json.dumps(value)), None)[1]


@pytest.mark.parametrize(
    ("name", "write", "problem"),
    [
        ("m", noise(H, W), r"0\.png: this is no mask: it holds 25. shades"),
        ("m", noise(H, W, 3), r"0\.png: this is no mask: it holds \d+ colours"),
        ("m", deep_colours, "kind RGB with 16 bits a channel"),
        ("m", text("0.png"), "cannot be read as a picture"),
        *(("m", several_in_one(k), "holds 6 pictures") for k in ("gif", "tiff", "png")),
        ("m", lambda folder: folder.mkdir(), "no masks were found"),
        ("m", lambda folder: None, "no masks were found"),
        ("m.txt", text(), "no masks were found"),
        ("m", lambda f: save(f, "0.png", np.zeros((H, W), np.uint8)), "all masks are empty"),
        ("m", mixed_depths, "more than one folder deep"),
        (
            "m.npz",
            arrays(a=np.array([{"a": 1}], dtype=object)),
            "Python objects, which are never loaded",
        ),
        ("m.npz", arrays(a=np.full((T, H, W), np.nan)), "no numbers"),
        ("m.npz", arrays(a=np.zeros(3)), r"the array 'a' has the shape \(3,\)"),
        ("m.npz", arrays(), "no masks were found"),
        ("m.npz", text(), "arrays cannot be read"),
        ("m.json", write_json({"a": 3}), "no run lengths that we know"),
        ("m.json", write_json({"1": [{"size": [1 << 30] * 2, "counts": [1 << 60]}]}), "at most 67"),
        ("m.json", write_json({"1": [{"size": [1 << 30] * 2, "counts": "a"}]}), "at most 67"),
        ("m.json", write_json({"1": [None] * 6, "2": [None] * 2}), r"lists of \[2, 6\] frames"),
        ("m.json", write_json({"1": [None], "id1": [None]}), "two masks of the object '1' for"),
        ("m.json", write_json({"masklet": [[None]], "masklet_id": [1, 2]}), "of another kind"),
        ("m.json", write_json({"1": [{"size": [H, W], "counts": "o" * 999}]}), "without end"),
        ("m.json", write_json({"annotations": [{"video_id": 1}]}), "an entry of another kind"),
    ],
)
def test_what_is_no_mask_is_one_clear_error(
    tmp_path: Path, name: str, write: Callable[[Path], None], problem: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(MatrixError, match=problem):
        read_masks(tmp_path / name, (H, W), T)

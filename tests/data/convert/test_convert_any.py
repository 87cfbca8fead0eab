"""Round trips of arbitrary data sets, both ways."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from matrix_video.data.dataset import DatasetWriter
from matrix_video.data.sample import Instance, Interaction, Sample, Span
from matrix_video.data.tracks import MaskTrack

T, H, W = 5, 8, 10
NAMES = ("id1", "id2", "id3", "id7")


@st.composite
def clips(draw: st.DrawFn) -> dict[str, object]:
    ids = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=3))
    text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
    pieces = draw(st.lists(text | st.sampled_from([f"<{name}>" for name in NAMES]), max_size=6))
    return {
        "prompt": draw(st.sampled_from(["", " "])).join(pieces),
        "ids": {
            name: {
                "brackets": draw(st.booleans()),
                "width": draw(st.sampled_from([1, 3, 5])),
                "mode": draw(st.sampled_from(["1", "L", "P", "RGB"])),
                "value": draw(st.integers(1, 3)),
                "frames": draw(
                    st.lists(
                        st.sampled_from(["none", "zero", "full", "box", "noise", "soft"]),
                        min_size=T,
                        max_size=T,
                    )
                ),
                "seed": draw(st.integers(0, 99)),
            }
            for name in ids
        },
        "merged": draw(st.sampled_from(["none", "all", "first", "orders", "noise"])),
        "order": draw(st.permutations(ids)),
    }


def build(root: Path, video: Path, index: int, clip: dict, kit: Any) -> None:
    folder = root / "mask_annotation" / f"{index:06d}"
    shutil.copyfile(video, root / "videos" / f"{index:06d}.mp4")
    by_frame: list[dict[str, np.ndarray]] = [{} for _ in range(T)]
    for name, how in clip["ids"].items():
        place = folder / (f"<{name}>" if how["brackets"] else name)
        place.mkdir(parents=True)
        rng = np.random.default_rng(how["seed"])
        for t, kind in enumerate(how["frames"]):
            mask = {
                "zero": np.zeros((H, W), bool),
                "full": np.ones((H, W), bool),
                "box": kit.box(t, int(rng.integers(5)), int(rng.integers(6))),
            }.get(kind, rng.random((H, W)) < 0.3)
            if kind == "none":
                continue
            image = kit.mask_image(mask, how["mode"], how["value"])
            if kind == "soft":
                image = Image.fromarray(rng.integers(0, 256, (H, W), dtype=np.uint8))
                mask = np.asarray(image) > 0
            kit.save(place / f"{t:0{how['width']}d}.png", image)
            by_frame[t][name] = mask
    if clip["merged"] == "none":
        return
    (folder / "merged").mkdir(parents=True)
    for t in range(1 if clip["merged"] == "first" else T):
        order = list(clip["order"])
        if clip["merged"] == "orders" and t % 2:
            order.reverse()
        image = kit.painted(by_frame[t], order)
        if clip["merged"] == "noise":
            noise = np.random.default_rng(t).integers(0, 256, (H, W, 3), dtype=np.uint8)
            image = Image.fromarray(noise)
        kit.save(folder / "merged" / f"{t:03d}.png", image)


@settings(max_examples=15)
@given(
    made=st.lists(clips(), min_size=1, max_size=2), kind=st.sampled_from(["csv", "json", "jsonl"])
)
def test_any_authors_set_round_trips(
    tmp_path_factory: pytest.TempPathFactory, video: Path, made: list[dict], kind: str, kit: Any
) -> None:
    work = tmp_path_factory.mktemp("any")
    authors = work / "authors"
    (authors / "videos").mkdir(parents=True)
    (authors / "mask_annotation").mkdir()
    rows = []
    for index, clip in enumerate(made):
        build(authors, video, index, clip, kit)
        rows.append({"video": f"{index:06d}.mp4", "prompt": clip["prompt"]})
    out = io.StringIO()
    if kind == "csv":
        writer = csv.DictWriter(out, ["video", "prompt"])
        writer.writeheader()
        writer.writerows(rows)
    elif kind == "json":
        json.dump(rows, out)
    else:
        out.writelines(json.dumps(row) + "\n" for row in rows)
    (authors / f"metadata.{kind}").write_bytes(out.getvalue().encode())
    _, back = kit.there_and_back(authors, work)
    expected = kit.contents(authors)
    if not any((authors / "mask_annotation").iterdir()):
        del expected["mask_annotation"]  # folders without a clip's own are not kept
    assert kit.contents(back) == expected


@st.composite
def our_samples(draw: st.DrawFn, id: str) -> Sample:
    words = st.text(st.characters(codec="utf-8"), max_size=30) | st.sampled_from(
        ["<id1>", " <id2> "]
    )
    caption = "".join(draw(st.lists(words, max_size=4)))
    ends = st.integers(0, len(caption))

    def spans(most: int) -> tuple[Span, ...]:
        pairs = draw(st.lists(st.tuples(ends, ends), max_size=most))
        return tuple(Span(start=min(p), end=max(p)) for p in pairs if p[0] != p[1])

    names = draw(st.lists(st.sampled_from(["id1", "id2", "id11"]), unique=True, max_size=3))
    instances = tuple(
        Instance(id=name, noun="thing", phrase="odd thing", mentions=spans(2), noun_spans=spans(2))
        for name in names
    )
    pair = st.sampled_from(names) if names else st.nothing()
    interactions = draw(
        st.lists(
            st.builds(
                Interaction,
                subject=pair,
                verb=st.just("hand over"),
                object=pair,
                bidirectional=st.booleans(),
                contact=st.none() | st.integers(1, 5),
            ),
            max_size=2 if names else 0,
        )
    )
    folder = draw(st.sampled_from(["videos", "clips", "videos/deep"]))
    return Sample(
        id=id,
        file_name=f"{folder}/{draw(st.sampled_from([id, 'x ' + id]))}.mp4",
        caption=caption,
        instances=instances,
        interactions=tuple(interactions),
        source=draw(st.none() | st.just("somewhere")),
        scores={"sharp": 0.1 + 0.2} if draw(st.booleans()) else {},
    )


@settings(max_examples=15)
@given(data=st.data())
def test_any_set_of_ours_round_trips(
    tmp_path_factory: pytest.TempPathFactory, video: Path, data: st.DataObject, kit: Any
) -> None:
    work = tmp_path_factory.mktemp("any")
    samples = [data.draw(our_samples(name)) for name in ("a", "0002.b")]
    with DatasetWriter(work / "ours") as writer:
        for sample in samples:
            tracks: dict[str, MaskTrack] = {}
            for instance in sample.instances:
                seed = data.draw(st.integers(0, 20))
                if seed == 0:
                    continue  # an instance without a track is legal
                rng = np.random.default_rng(seed)
                masks = rng.random((T, H, W)) < 0.4
                masks[rng.random(T) < 0.3] = False
                unknown = [t for t in range(T) if rng.random() < 0.3 or seed == 1]
                tracks[instance.id] = MaskTrack.from_masks(masks, unknown)
            writer.add_file(sample, video, tracks)
            assert (work / "ours" / sample.file_name).read_bytes() == video.read_bytes()
    _, back = kit.there_and_back(work / "ours", work)
    ours, theirs = kit.contents(work / "ours"), kit.contents(back)
    for name in [name for name in ours if name.startswith("tracks/")]:
        # The order of a file's instances says nothing.
        assert json.loads(ours.pop(name)) == json.loads(theirs.pop(name))
    assert theirs == ours

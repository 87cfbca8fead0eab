"""Videos with texts and masks of anybody's → our layout.

In one folder, of each clip three things of one name::

    a.mp4    the video
    a.json   {"caption": "the red ball pushes the blue box",
              "instances": {"1": "red ball", "2": "blue box"},
              "interactions": [["1", "pushes", "2"]]}
    a/       the masks: pictures, or a.npz, a.npy, a.masks.json; as ``data.masks`` reads them

The keys of ``instances`` are how the masks call them: numbers, words, or colours (``#ff0000``).
The caption says every phrase and verb word for word.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from matrix_video.data.convert.files import Names, tracks_of, write_ours
from matrix_video.data.convert.nouns import find_mention
from matrix_video.data.convert.run import Direction, Made
from matrix_video.data.masks.numbering import object_name
from matrix_video.data.masks.reading import read_masks
from matrix_video.data.metadata import FILE_NAME, dump_line
from matrix_video.data.paths import inside
from matrix_video.data.probe import find_videos, probe_video
from matrix_video.data.sample import Instance, Interaction, Record, Sample, Span
from matrix_video.data.spans import find_phrases
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import sha256_text, write_atomic
from matrix_video.services.records import read_record

_MASKS = ("", ".npz", ".npy", ".masks.json")


class Texts(Record):
    """What ``a.json`` holds."""

    caption: str
    instances: dict[str, str] = Field(min_length=1, description="phrase by the masks' name")
    interactions: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class MaskOptions:
    """How masks are fitted to their videos."""

    stride: int | None = None
    """The masks were made for every so many frames of the video."""
    resize_masks: bool = False
    """Stretch masks of another size than the video's, by area."""

    def __post_init__(self) -> None:
        if self.stride is not None and self.stride < 1:
            raise MatrixError(
                f"expected a stride of 1 or more, not {self.stride}",
                remedy="Give the number of frames from one mask to the next",
                field="stride",
            )


class FromMasks(Direction):
    """``MatrixError`` where the folder holds no videos."""

    def __init__(self, source: Path, target: Path, options: MaskOptions) -> None:
        self.source, self.target, self.options = source, target, options
        self.videos, beside = find_videos(source)
        ends = (".json", *_MASKS[1:])
        ours = {video.stem + end for video in self.videos for end in ends}
        self._left = [file.name for file in beside if file.name not in ours]
        self.names = [video.name for video in self.videos]
        self.contents = sha256_text(str(source.resolve()), *self.names, repr(options))
        self._often = Counter(video.stem for video in self.videos)
        named = Names()
        self.given: list[tuple[str, str]] = []
        for video in self.videos:
            name, _ = named.derive(video.name)
            self.given.append((name, f"videos/{name}{video.suffix}"))
            named.take(tracks_of(name))

    def _beside(self, index: int, *suffixes: str) -> list[Path]:
        video = self.videos[index]
        paths = [video.with_name(video.stem + suffix) for suffix in suffixes]
        return [path for path in paths if path.exists()]

    def inputs(self, index: int) -> Iterable[Path]:
        yield self.videos[index]
        for path in self._beside(index, ".json", *_MASKS):
            yield path
            yield from sorted(path.rglob("*")) if path.is_dir() else ()

    def make(self, index: int) -> Made:
        video, (name, file_name) = self.videos[index], self.given[index]
        inside(self.source, video.name)
        if self._often[video.stem] > 1:
            raise MatrixError(
                f"{self._often[video.stem]} videos have this name, so their texts are the same",
                remedy="Rename all but one, with texts and masks of their own",
                file=video,
            )
        masks = self._beside(index, *_MASKS)
        if len(masks) != 1:
            wanted = ", ".join(video.stem + (suffix or "/") for suffix in _MASKS)
            found = ", ".join(path.name for path in masks) or "none"
            raise MatrixError(
                f"expected masks in one of {wanted}; found {found}",
                remedy="Put the masks there, or leave the video out",
                file=video,
            )
        place = video.with_suffix(".json")
        if not place.is_file():
            raise MatrixError(
                "the video has no texts",
                remedy=f"Write its caption, instances and interactions into {place.name}",
                file=place,
            )
        remedy = (
            'Give {"caption": "...", "instances": {"1": "red ball"}, "interactions": '
            '[["1", "pushes", "2"]]}'
        )
        texts = read_record(place, Texts, what="texts of a clip", remedy=remedy, strict=True)
        ids = instance_ids(list(texts.instances))
        sample = make_sample(name, file_name, texts, ids, place)
        info = probe_video(video)
        read = read_masks(
            masks[0],
            (info.height, info.width),
            len(info.times),
            names=list(ids),
            stride=self.options.stride,
            resize=self.options.resize_masks,
        )
        tracks = {ids[key]: track for key, track in read.tracks.items()}
        write_ours(self.target, sample, video, info, tracks)
        often = [
            f"the caption says {one.phrase!r} {len(one.mentions)} times, all taken for {one.id}"
            for one in sample.instances
            if len(one.mentions) > 1
        ]
        notes = (*info.notes, *read.notes, *often)
        return Made(text=dump_line(sample), masks=len(read.files), notes=notes)

    def finish(self, made: list[tuple[int, Made]]) -> tuple[list[str], list[str]]:
        write_atomic(self.target / FILE_NAME, "".join(one.text for _, one in made))
        if not self._left:
            return [], []
        shown = ", ".join(self._left[:8])
        return [], [f"{len(self._left)} files belong to no video and are left aside: {shown}"]


def instance_ids(names: Sequence[str]) -> dict[str, str]:
    """Our id of each name: id7 for 7, id7 and obj_7; the least free number for others."""
    numbers = {name: object_name(name) for name in names}
    ids = {name: f"id{n}" for name, n in numbers.items() if re.fullmatch("[1-9][0-9]{0,8}", n)}
    free = (f"id{n}" for n in range(1, len(names) + len(ids) + 1) if f"id{n}" not in ids.values())
    return {name: ids.get(name) or next(free) for name in names}


def make_sample(
    name: str, file_name: str, texts: Texts, ids: dict[str, str], place: Path
) -> Sample:
    """``MatrixError`` for a phrase that the caption does not say, and a name that is none."""
    named = {one for subject, _, other in texts.interactions for one in (subject, other)}
    for one in sorted(named - ids.keys()):
        raise MatrixError(
            f"{one!r} is not among the instances {list(ids)}",
            remedy="Name instances by their keys",
            file=place,
            field="interactions",
        )
    if len(set(ids.values())) < len(ids):
        raise MatrixError(
            f"two names mean the same instance among {list(ids)}",
            remedy="Name instances by different numbers",
            file=place,
            field="instances",
        )
    verbs = list(dict.fromkeys(verb for _, verb, _ in texts.interactions))
    try:
        spans = find_phrases(texts.caption, [*texts.instances.values(), *verbs])
    except MatrixError as error:
        raise MatrixError(
            error.problem, remedy=error.remedy, file=place, field=error.field
        ) from error
    verb_spans = dict(zip(verbs, map(list, spans[len(ids) :]), strict=True))
    instances: list[Instance] = []
    for (key, phrase), mentions in zip(texts.instances.items(), spans[: len(ids)], strict=True):
        nouns = tuple(_noun(texts.caption, span) for span in mentions)
        noun = nouns[0].of(texts.caption)
        instances.append(
            Instance(id=ids[key], noun=noun, phrase=phrase, mentions=mentions, noun_spans=nouns)
        )
    interactions: list[Interaction] = []
    for subject, verb, other in texts.interactions:
        left = verb_spans[verb]
        said = left.pop(0) if len(left) > 1 else left[0]
        interactions.append(
            Interaction(subject=ids[subject], verb=verb, object=ids[other], verb_span=said)
        )
    return Sample(
        id=name,
        file_name=file_name,
        caption=texts.caption,
        instances=tuple(instances),
        interactions=tuple(interactions),
    )


def _noun(caption: str, phrase: Span) -> Span:
    """Of "woman in red" the woman; of a phrase that the rules do not know its last word."""
    found = find_mention(caption, phrase.start, phrase.end)
    last = phrase.of(caption).split()[-1]
    return found.noun if found else Span(start=phrase.end - len(last), end=phrase.end)

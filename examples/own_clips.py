"""A data set of clips of your own: videos, what happens in them, and mask tracks.

    python examples/own_clips.py clips --out data/own
    matrix check data/own

Per clip, three things in one folder, of the video's name:

    a.mp4            the video: as long and as large as the model is to see it
    a.json           {"caption": "the red ball pushes the blue box",
                      "instances": {"1": "red ball", "2": "blue box"},
                      "interactions": [["1", "pushes", "2"]]}
    a/00000.png ...  masks: a picture for each frame that is annotated, in a pixel the number of its
                     instance or 0 (what SAM 2 writes for a video); frames without one are unknown

The caption must hold every phrase, word for word; two instances of one phrase are taken in the
order in which the caption names them. A clip that is there already is left alone, so a run that
was stopped goes on.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from matrix_video.data.dataset import DatasetWriter
from matrix_video.data.sample import Instance, Interaction, Sample, Span
from matrix_video.data.tracks import MaskTrack
from matrix_video.data.video import probe_video


def find(words: str, caption: str, taken: list[Span]) -> Span:
    """The first place of ``words`` in the caption that nothing else has taken."""
    start = -1
    while (start := caption.find(words, start + 1)) >= 0:
        span = Span(start=start, end=start + len(words))
        if all(span.end <= other.start or other.end <= span.start for other in taken):
            taken.append(span)
            return span
    raise SystemExit(
        f"{caption!r} does not hold {words!r} (again): write the caption so that it does"
    )


def read_sample(video: Path) -> Sample:
    facts = json.loads(video.with_suffix(".json").read_text())
    caption, taken, instances = facts["caption"], [], []
    for number, phrase in facts["instances"].items():
        mention, noun = find(phrase, caption, taken), phrase.split()[-1]
        last = Span(start=mention.end - len(noun), end=mention.end)
        instances.append(
            Instance(
                id=f"id{number}", noun=noun, phrase=phrase, mentions=(mention,), noun_spans=(last,)
            )
        )
    interactions = [
        Interaction(
            subject=f"id{s}", verb=verb, object=f"id{o}", verb_span=find(verb, caption, taken)
        )
        for s, verb, o in facts["interactions"]
    ]
    return Sample(
        id=video.stem,
        file_name=f"videos/{video.name}",
        caption=caption,
        instances=tuple(instances),
        interactions=tuple(interactions),
    )


def read_tracks(video: Path, sample: Sample) -> dict[str, MaskTrack]:
    info = probe_video(video)
    pictures = {int(p.stem): p for p in sorted(video.with_suffix("").glob("*.png"))}
    numbers_THW = np.zeros((len(info.times), info.height, info.width), np.uint8)
    for frame, picture in pictures.items():
        numbers_THW[frame] = np.asarray(Image.open(picture))
    unknown = sorted({*range(len(numbers_THW))} - {*pictures})
    return {
        one.id: MaskTrack.from_masks(numbers_THW == int(one.id.removeprefix("id")), unknown)
        for one in sample.instances
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with DatasetWriter(args.out) as writer:
        for video in sorted(args.clips.glob("*.mp4")):
            if not writer.has(video.stem):
                sample = read_sample(video)
                writer.add_file(sample, video, read_tracks(video, sample))
        print(f"{len(writer)} clips in {args.out}")

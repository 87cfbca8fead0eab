"""``matrix check`` of several data sets: scenes, pixels and triples that they share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from matrix_video.data.check import check_datasets
from matrix_video.data.dataset import DatasetWriter
from matrix_video.data.sample import Instance, Interaction, Sample
from matrix_video.data.tracks import MaskTrack

Act = tuple[str, str, str]
"""Subject phrase, verb, object phrase; the last word of a phrase is the noun."""


def write(
    path: Path, acts: Sequence[Act], *, seed: int, scenes: Sequence[str | None], both: bool = False
) -> Path:
    with DatasetWriter(path) as writer:
        for number, ((subject, verb, object_), scene) in enumerate(zip(acts, scenes, strict=True)):
            rng = np.random.default_rng([seed, number])
            frames = rng.integers(0, 256, (1, 4, 4, 3), dtype=np.uint8)
            instances = tuple(
                Instance(id=f"id{k}", noun=phrase.split()[-1], phrase=phrase)
                for k, phrase in enumerate((subject, object_), start=1)
            )
            sample = Sample(
                id=f"c{number}",
                file_name=f"videos/c{number}.mp4",
                caption="",
                instances=instances,
                interactions=(
                    Interaction(subject="id1", verb=verb, object="id2", bidirectional=both),
                ),
                scene=scene,
            )
            full = MaskTrack.from_masks(np.ones((1, 4, 4), dtype=bool))
            writer.add(sample, frames, 8.0, {"id1": full, "id2": full}, lossless=True)
    return path


PUSH = ("small red ball", "push", "blue box")
PULL = ("red ball", "pull", "large blue box")
HIT = ("grey cone", "hit", "star")


def test_disjoint_sets_are_proved_disjoint(tmp_path: Path) -> None:
    a = write(tmp_path / "train", [PUSH, PULL], seed=1, scenes=["s1", "s2"])
    b = write(tmp_path / "test", [HIT], seed=2, scenes=["s3"])
    report = check_datasets([a, b])
    assert report.ok
    assert report.notes == []
    assert report.summary == [
        "train: 2 samples, 2 interactions, 4 instances",
        "test: 1 samples, 1 interactions, 2 instances",
        "train and test share no scenes (of 2 and 1)",
        "train and test share no videos (of 2 and 1)",
        "0 of the 1 triples of test occur in train (2 triples): test's triples are disjoint from "
        "train's",
    ]


def test_sets_that_share_some_triples_are_told(tmp_path: Path) -> None:
    a = write(tmp_path / "train", [PUSH, PULL], seed=1, scenes=["s1", "s2"])
    b = write(tmp_path / "test", [PUSH, HIT], seed=2, scenes=["s3", "s4"])
    c = write(tmp_path / "seen", [PUSH], seed=3, scenes=["s5"])
    assert check_datasets([a, c]).summary[-1] == (
        "1 of the 1 triples of seen occur in train (2 triples): shared, all of seen's among them"
    )
    report = check_datasets([a, b])
    assert report.ok
    assert (
        report.summary[-1] == "1 of the 2 triples of test occur in train (2 triples): partly shared"
    )
    assert [str(note) for note in report.notes] == [
        f"{b}/metadata.jsonl: interactions: 1 of the 2 triples of test occur in train, 1 of 2 the "
        "other way round: the data sets share some triples only (red ball push blue box). For a "
        "test of composition none may be shared; for a test on seen triples, all."
    ]


def test_shared_scenes_and_videos_are_problems(tmp_path: Path) -> None:
    a = write(tmp_path / "train", [PUSH, PULL], seed=1, scenes=["s1", "s2"])
    b = write(tmp_path / "test", [HIT, PULL], seed=1, scenes=["s9", "s1"])
    report = check_datasets([a, b])
    assert [str(problem) for problem in report.problems] == [
        f"{b}/metadata.jsonl: line 2: scene: sample 'c1' of test has the scene of sample 'c0' of "
        "train, 's1'. Make the splits from disjoint scenes.",
        f"{b}/metadata.jsonl: line 1: file_name: sample 'c0' of test has the video of sample 'c0' "
        "of train, byte for byte. Make the splits from disjoint videos.",
        f"{b}/metadata.jsonl: line 2: file_name: sample 'c1' of test has the video of sample 'c1' "
        "of train, byte for byte. Make the splits from disjoint videos.",
    ]
    assert "train and test share 1 scene (of 2 and 2)" in report.summary
    assert "train and test share 2 videos (of 2 and 2)" in report.summary


def test_every_pair_of_three_is_compared_and_one_name_told_apart(tmp_path: Path) -> None:
    a, b, c = (
        write(tmp_path / name / "data", [PUSH], seed=seed, scenes=[scene])
        for seed, (name, scene) in enumerate([("a", "s1"), ("b", None), ("c", "s1")])
    )
    report = check_datasets([a, b, c])
    assert len(report.summary) == 3 + 3 * 3
    (problem,) = report.problems
    assert f"of {c} has the scene of sample 'c0' of {a}, 's1'" in problem.problem
    text = f"{a} and {b} share no scenes (of 1 and 0); {b} has 1 samples without a scene key"
    assert text in report.summary


def test_a_broken_set_does_not_stop_the_comparison(tmp_path: Path) -> None:
    a = write(tmp_path / "train", [PUSH], seed=1, scenes=["s1"])
    report = check_datasets([a, tmp_path / "nothing", a])
    fields = [(problem.file and problem.file.name, problem.field) for problem in report.problems]
    assert ("nothing", None) in fields
    assert ("metadata.jsonl", "line 1: scene") in fields
    empty = "0 of the 0 triples of"
    assert sum(line.startswith(empty) for line in report.summary) == 1


@pytest.mark.parametrize(
    ("one", "other", "both", "same"),
    [
        (PUSH, ("Large RED Ball", "Push", "blue box"), False, True),  # neither size nor capitals
        (PUSH, ("grey ball", "push", "blue box"), False, False),
        (PUSH, ("redwood ball", "push", "blue box"), False, False),  # no word for a colour
        (PUSH, ("red and blue ball", "push", "blue box"), False, False),
        (("gray-and-white cat", "hit", "star"), ("white, grey cat", "hit", "star"), False, True),
        (PUSH, ("blue box", "push", "red ball"), False, False),
        (PUSH, ("blue box", "push", "red ball"), True, True),
    ],
)
def test_a_triple_is_verb_nouns_and_colours_in_order_unless_both_act(
    tmp_path: Path, one: Act, other: Act, both: bool, same: bool
) -> None:
    a = write(tmp_path / "a", [one], seed=1, scenes=["s1"], both=both)
    b = write(tmp_path / "b", [other], seed=2, scenes=["s2"], both=both)
    assert check_datasets([a, b]).summary[-1].startswith(f"{int(same)} of the 1 triples of b")

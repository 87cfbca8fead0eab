"""``matrix check`` of one data set: every mistake is named, none hides another, and what the check
finds in a line the strict reader refuses with the same words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from matrix_video.data.check import Report, check_datasets
from matrix_video.data.dataset import Dataset
from matrix_video.services.errors import MatrixError

LINE = "metadata.jsonl: line 2: "
TRACK = "tracks/0002.json: "


def edit(root: Path, change: Callable[[Any], object], line: int = 2) -> None:
    """Change one line of the metadata, as JSON."""
    path = root / "metadata.jsonl"
    lines = path.read_text().split("\n")
    value = json.loads(lines[line - 1])
    change(value)
    lines[line - 1] = json.dumps(value)
    path.write_text("\n".join(lines))


def edit_tracks(root: Path, change: Callable[[Any], object], id: str = "0002") -> None:
    path = root / "tracks" / f"{id}.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def texts(findings: list[MatrixError], root: Path) -> list[str]:
    return [str(finding).removeprefix(f"{root}/") for finding in findings]


def notes_of(report: Report, root: Path) -> list[str]:
    """What is noted beside the absent first frames of the fixture."""
    usual = "is absent in the first frame"
    return [text for text in texts(report.notes, root) if usual not in text]


def check_problems(root: Path, starts: list[str]) -> None:
    """The problems are these and no others; a text is what one begins with."""
    found = texts(check_datasets([root]).problems, root)
    assert len(found) == len(starts), found
    for text, start in zip(found, starts, strict=True):
        assert text.startswith(start.format(root=root))


def test_a_good_data_set_has_notes_alone_and_loads(dataset_path: Path) -> None:
    report = check_datasets([dataset_path])
    assert report.ok
    assert report.summary == ["dataset: 3 samples, 3 interactions, 6 instances"]
    assert texts(report.notes, dataset_path)[0] == (
        "tracks/0001.json: instances.id2.states[0]: instance 'id2' is absent in the first frame. "
        "SPA has no query for it, and the first-frame id map leaves it out."
    )
    assert len(report.notes) == 3
    assert [len(clip.video) for clip in Dataset(dataset_path)] == [5, 5, 5]


def of_span(name: str, instance: int = 0, **values: int) -> Callable[[Any], object]:
    return lambda v: v["instances"][instance][name][0].update(values)


def of_verb(**values: int) -> Callable[[Any], object]:
    return lambda v: v["interactions"][0]["verb_span"].update(values)


@pytest.mark.parametrize(
    ("change", "problems"),
    [
        (lambda v: v.update(colour=1), ["colour: unknown field. Remove it, or correct its name."]),
        (lambda v: v.pop("caption"), ["caption: Field required. Correct this line"]),
        (
            of_span("noun_spans", 1, end=999),
            ["instances[1].noun_spans[0]: span [35, 999) ends after the caption's 62"],
        ),
        (
            of_verb(end=998),
            ["interactions[0].verb_span: span [19, 998) ends after the caption's 62"],
        ),
        (
            of_span("mentions", start=18),
            ["instances[0].mentions[0]: span [18, 18) is empty"],
        ),
        (
            lambda v: v["interactions"][0].update(subject="id7", object="id8"),
            [
                "interactions[0].subject: 'id7' is not among the instances ['id1', 'id2']. "
                "Name an instance of this sample, or remove the interaction.",
                "interactions[0].object: 'id8' is not among the instances",
            ],
        ),
        (
            lambda v: v["instances"][1].update(id="id1"),
            [
                "instances[1].id: 'id1' is the id of 2 instances. Give every instance",
                "interactions[0].object: 'id2' is not among the instances ['id1', 'id1']",
                TRACK + "instances.id2: sample '0002' has no instance 'id2'. Remove the track",
            ],
        ),
        (
            lambda v: v["instances"][0].update(noun="", id="man"),
            [
                "instances[0].id: String should match pattern",
                "instances[0].noun: String should have at least 1 character",
            ],
        ),
        (lambda v: v.update(format=3), ["format: the line is of format 3; formats 1 to 2"]),
        (
            lambda v: v.update(id="0001"),
            ["id: '0001' is already the id of line 1. Give every sample an id of its own"],
        ),
        (
            lambda v: v.update(file_name="videos/0001.mp4"),
            ["file_name: 'videos/0001.mp4' is already the video of line 1. Give every"],
        ),
        (
            lambda v: v.update(file_name="../../etc/passwd"),
            ["file_name: '../../etc/passwd' is no path inside the data set; expected one"],
        ),
        (lambda v: v.update(id="../0002"), ["id: String should match pattern"]),
    ],
)
def test_mistakes_in_a_line_are_what_a_reader_refuses(
    dataset_path: Path, change: Callable[[Any], object], problems: list[str]
) -> None:
    edit(dataset_path, change)
    told = [text if text.startswith(TRACK) else LINE + text for text in problems]
    check_problems(dataset_path, told)
    with pytest.raises(MatrixError) as refused:
        Dataset(dataset_path)
    assert texts([refused.value], dataset_path)[0].startswith(told[0])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            of_span("mentions", start=3),
            "instances[0].mentions[0]: span [3, 18) reads ' small red ball', which is not whole "
            "words. Let the span begin and end with a word.",
        ),
        (
            of_span("mentions", start=4, end=9),
            "instances[0].mentions[0]: the span reads 'small', but the noun of 'small red ball' is "
            "'ball'. Move the span onto the noun, or correct the noun.",
        ),
        (
            of_span("noun_spans", start=35, end=38),
            "instances[0].noun_spans[0]: the span reads 'box', but the noun of 'small",
        ),
        (
            of_span("noun_spans", start=19, end=25),
            "instances[0].noun_spans[0]: the span reads 'pushes', but the noun of 'small",
        ),
        (
            of_verb(start=20),
            "interactions[0].verb_span: span [20, 25) reads 'ushes', which is not whole",
        ),
    ],
)
def test_wrong_words_are_problems_of_the_check_alone(
    dataset_path: Path, change: Callable[[Any], object], problem: str
) -> None:
    edit(dataset_path, change)
    check_problems(dataset_path, [LINE + problem])
    assert len(Dataset(dataset_path)) == 3


NO_JSON = "this is not a line of JSON ("
DEEP = b"[" * 200_000 + b"]" * 200_000


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id": ', NO_JSON),
        (b"[1]", "expected a JSON object, found [1]. Correct this line, or remove it."),
        (b'{"id": "\xff"}', NO_JSON + "'utf-8' codec"),
        (DEEP, NO_JSON + "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", NO_JSON + "a number of 5000 digits"),
        (b'{"a": NaN}', NO_JSON + "NaN is no number of JSON"),
        (b'{"id": "1", "id": "2"}', NO_JSON + "the name 'id' stands twice"),
        (b'{"id": "\\uD83D"}', NO_JSON + "half of a character"),
        (b'{"id": "a\x00b"}', NO_JSON + "Invalid control character"),
        (b'{"caption": "' + b"a" * 5_000_000 + b'"}', "the line has more than 4,194,304 bytes"),
        (b'{"\\u001b[31m": 1}', "file_name: Field required"),
        (b'{"id": "' + b"x" * 3_000_000 + b'"}', "id: String should have at most 200"),
        (
            b'{"instances": [' + b'{"id": "id1", "noun": "a", "phrase": "a"},' * 5000 + b"{}]}",
            "instances: Tuple should have at most 1000 items",
        ),
        (
            b'{"instances": [{"mentions": [{"start": 0, "end": 90000}]}]}',
            "instances[0].mentions[0]: span [0, 90000) has more than 1000 characters",
        ),
        (b'{"id": "x", "file_name": "' + b"x/" * 9000 + b'", "caption": ""}', "file_name: 'x/x/x"),
    ],
)
def test_what_a_line_holds_is_bounded_and_told_once(
    dataset_path: Path, line: bytes, message: str
) -> None:
    path = dataset_path / "metadata.jsonl"
    path.write_bytes(line + b"\n" + path.read_bytes())
    report = check_datasets([dataset_path])
    told = [text for text in texts(report.problems, dataset_path) if "line 1: " in text]
    assert any(text.startswith(f"metadata.jsonl: line 1: {message}") for text in told), told
    assert max(map(len, told)) < 3000
    assert all(text.isprintable() for text in told)
    assert not any(": line" in text for text in texts(report.problems, dataset_path)[len(told) :])
    with pytest.raises(MatrixError, match=r"metadata\.jsonl: line 1: "):
        Dataset(dataset_path)


def test_byte_order_mark_carriage_returns_and_old_lines_are_read(dataset_path: Path) -> None:
    path = dataset_path / "metadata.jsonl"
    assert path.read_text().count('{"format":2,') == 3
    old = path.read_text().replace('"format":2,', "").replace(',"doubtful":false', "")
    before = Dataset(dataset_path).samples
    path.write_bytes(b"\xef\xbb\xbf" + old.replace("\n", "\r\n\r\n").encode())
    assert Dataset(dataset_path).samples == before
    assert check_datasets([dataset_path]).ok


@pytest.mark.parametrize("word", ["men", "it", "them", "geese", "guy", "cacti"])
def test_pronouns_irregular_plurals_and_other_names_are_notes(
    dataset_path: Path, word: str
) -> None:
    def change(value: Any) -> None:
        value["caption"] += f" near {word}"
        end = len(value["caption"])
        for spans in ("mentions", "noun_spans"):
            value["instances"][1][spans].append({"start": end - len(word), "end": end})
        value["instances"][0]["doubtful"] = True

    edit(dataset_path, change)
    report = check_datasets([dataset_path])
    assert report.ok
    assert notes_of(report, dataset_path) == [
        LINE + "instances[0]: the noun 'ball' of 'small red ball' was guessed. Correct noun and "
        "spans where it is wrong, and take 'doubtful' away.",
        LINE + f"instances[1].noun_spans[1]: the span reads {word!r}, but the noun of 'blue box' "
        "is 'box'. Leave it where it is a pronoun, a plural or another name; else move the span.",
    ]
    assert len(Dataset(dataset_path)) == 3


def test_paraphrases_and_plurals_are_mentions(dataset_path: Path) -> None:
    def change(value: Any) -> None:
        value["caption"] = "the round Balls hit a bluish box that is blue"
        value["instances"][0]["mentions"] = [{"start": 4, "end": 15}]
        value["instances"][0]["noun_spans"] = []
        value["instances"][1]["mentions"] = [{"start": 22, "end": 45}]
        value["instances"][1]["noun_spans"] = [{"start": 29, "end": 32}]
        value["interactions"][0]["verb_span"] = {"start": 16, "end": 19}

    edit(dataset_path, change)
    assert check_datasets([dataset_path]).problems == []


def of_tracks(**values: object) -> Callable[[Any], object]:
    return lambda v: v.update(values)


def set_states(id: str, state: str) -> Callable[[Any], object]:
    return lambda v: v["instances"][id].update(states=[state] * 5, rles=[None] * 5)


@pytest.mark.parametrize(
    ("change", "problems"),
    [
        (
            of_tracks(size=[10, 8]),
            [
                "the masks are 5 frames of 10x8, but the video {root}/videos/0002.mp4 has 5 of "
                "8x10 (height x width). Make the masks from this very video."
            ],
        ),
        (
            lambda v: v["instances"].pop("id1"),
            [
                "instances.id1: instance 'id1' of sample '0002' has no track, but the caption "
                "mentions it. Track this instance, or remove it from the sample."
            ],
        ),
        (
            set_states("id2", "absent"),
            [
                "instances.id2: instance 'id2' is visible in no frame. Track it again, or remove "
                "it from the sample."
            ],
        ),
    ],
)
def test_mistakes_in_tracks(
    dataset_path: Path, change: Callable[[Any], object], problems: list[str]
) -> None:
    edit_tracks(dataset_path, change)
    check_problems(dataset_path, [TRACK + text for text in problems])


def test_notes_are_no_problems(dataset_path: Path) -> None:
    edit_tracks(dataset_path, set_states("id1", "unknown"), "0001")
    edit_tracks(dataset_path, lambda v: v["instances"].pop("id2"))

    def quiet(value: Any) -> None:
        value["interactions"] = []
        value["instances"][1].update(mentions=[], noun_spans=[])

    edit(dataset_path, quiet)
    (dataset_path / "videos" / "other.mp4").write_bytes(b"")
    (dataset_path / "tracks" / "other.json").write_bytes(b"")
    (dataset_path / ".partial-7-metadata.jsonl").write_bytes(b"")
    (dataset_path / "videos" / ".partial-7-x").mkdir()
    (dataset_path / "videos" / ".partial-7-x" / "y.mp4").write_bytes(b"")
    (dataset_path / "metadata.partial.jsonl").write_bytes(b"")
    report = check_datasets([dataset_path])
    assert report.ok
    assert all("id1" in clip.tracks for clip in Dataset(dataset_path))  # it loads all the same
    assert notes_of(report, dataset_path) == [
        "tracks/0001.json: instances.id1: instance 'id1' is annotated in no frame. It is never "
        "supervised and never scored; track it to change that.",
        "metadata.jsonl: line 2: interactions: sample '0002' has no interaction. matrix "
        "analyze refuses it, matrix train uses it for the model's own loss alone.",
        "tracks/0002.json: instances.id2: instance 'id2' of sample '0002' has no track, but only "
        "its mask is missed. Track this instance, or remove it from the sample.",
        "videos/other.mp4: no sample uses this video. Remove it, or add its line.",
        "tracks/other.json: no sample uses this track file. Remove it, or add its line.",
        ".partial-7-metadata.jsonl: a temporary file that an interrupted run left. Remove it "
        "unless a run is at work.",
        "videos/.partial-7-x: a temporary file that an interrupted run left. Remove it unless a "
        "run is at work.",
        "metadata.partial.jsonl: the journal of a writer that is at work or was interrupted. Let "
        "the command that writes this data set finish.",
    ]


def test_an_actor_that_nobody_mentions_needs_a_track(dataset_path: Path) -> None:
    def silent(value: Any) -> None:
        value["instances"][1].update(mentions=[], noun_spans=[])

    edit(dataset_path, silent)
    edit_tracks(dataset_path, lambda v: v["instances"].pop("id2"))
    (problem,) = texts(check_datasets([dataset_path]).problems, dataset_path)
    assert "has no track, but an interaction names it" in problem


def test_everything_at_once(dataset_path: Path) -> None:
    video = dataset_path / "videos" / "0001.mp4"
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    (dataset_path / "videos" / "0002.mp4").unlink()
    (dataset_path / "tracks" / "0003.json").unlink()

    def worst(value: Any) -> None:
        value["colour"] = "red"
        value["interactions"][0]["object"] = "id4"
        value["instances"][0]["noun_spans"][0]["end"] = 99
        value["instances"][1]["mentions"][0]["end"] = 98

    edit(dataset_path, worst)
    expected = [
        LINE + "colour: unknown field",
        LINE + "interactions[0].object: 'id4' is not among",
        LINE + "instances[0].noun_spans[0]: span [14, 99) ends after",
        LINE + "instances[1].mentions[0]: span [30, 98) ends after",
        "videos/0001.mp4: the video is damaged or truncated",
        "videos/0002.mp4: there is no such video file",
        "tracks/0003.json: there is no such track file",
    ]
    check_problems(dataset_path, expected)


def test_a_sample_without_instances_needs_no_track_file(dataset_path: Path) -> None:
    edit(dataset_path, lambda v: v.update(instances=[], interactions=[]))
    (dataset_path / "tracks" / "0002.json").unlink()
    assert check_datasets([dataset_path]).ok


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda path: None, "there is no such folder. Give the folder of a data set"),
        (lambda path: path.mkdir(), "the folder has no metadata.jsonl. Give the folder of a data"),
        (
            lambda path: (path.mkdir(), (path / "metadata.partial.jsonl").write_text("")),
            "the data set is unfinished: it has metadata.partial.jsonl but no metadata.jsonl. Run",
        ),
        (
            lambda path: (path.mkdir(), (path / "metadata.jsonl").write_text("\n")),
            "metadata.jsonl: the data set has 0 samples. Give a data set with at least one",
        ),
    ],
)
def test_no_data_set(tmp_path: Path, make: Callable[[Path], object], text: str) -> None:
    path = tmp_path / "set"
    make(path)
    report = check_datasets([path])
    assert not report.ok
    assert str(report.problems[0]).startswith((f"{path}: {text}", f"{path}/{text}"))


def test_a_mistake_that_repeats_is_told_once(dataset_path: Path) -> None:
    for line in (1, 2, 3):
        edit(dataset_path, lambda v: v.update(colour=1), line)
    edit_tracks(dataset_path, lambda v: v["instances"]["id1"].update(states=["seen"] * 5), "0001")
    (dataset_path / "videos" / "0003.mp4").unlink()
    report = check_datasets([dataset_path])
    told = [line.replace(f"{dataset_path}/", "") for line in report.lines()]
    assert told[:5] == [
        "problem: metadata.jsonl: line 1: colour: unknown field. Remove it, or correct its name.",
        "    and 2 more of this kind, the last at metadata.jsonl: line 3: colour",
        "problem: tracks/0001.json: instances.id1.states[0]: Input should be 'visible', 'absent' "
        "or 'unknown'. Correct the entry, or track the clip again.",
        "    and 4 more of this kind, the last at tracks/0001.json: instances.id1.states[4]",
        "problem: videos/0003.mp4: there is no such video file. Check the path or restore the "
        "file.",
    ]
    assert told[5].startswith("note: ")
    assert told[6].startswith("    and 1 more of this kind, the last at ")
    assert told[7:] == [report.summary[0], "problems: 9, notes: 2"]
    assert len(report.lines(every=True)) == 9 + 2 + 2

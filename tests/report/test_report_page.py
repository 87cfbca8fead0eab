"""The whole page: well-formed, offline, complete, true to its content."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from matrix_video.data.sample import Sample
from matrix_video.evaluation.questions import BOX_COLOURS
from matrix_video.report.content import GalleryClip, GalleryItem, ReportContent, ScoreRow
from matrix_video.report.page import build_report, too_small
from matrix_video.services.errors import MatrixError

from .conftest import estimate, summary

VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """Walks a page: tags must nest; collects addresses, ids and text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.addresses: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.alts: list[str] = []
        self.scripts = 0
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attrs:
            if name in ("src", "href", "srcset", "poster", "data", "action", "xlink:href"):
                self.addresses.append((tag, value or ""))
            self.ids += [value or ""] if name == "id" else []
            self.alts += [value or ""] if name == "alt" else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> inside {self.open}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def built(content: ReportContent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report(tmp_path_factory.mktemp("report"), content)


def test_the_page_is_whole_and_asks_nothing_of_the_network(built: Path) -> None:
    text, page = built.read_text(encoding="utf-8"), read(built)
    assert built.name == "index.html"
    assert len(set(page.ids)) == len(page.ids)
    assert page.scripts == 1
    for tag, address in page.addresses:
        assert not re.match(r"[a-z]+:|//", address, re.IGNORECASE), f"<{tag}> names {address}"
    assert not re.search(r"\b(fetch|XMLHttpRequest|import)\s*\(|url\(|@import|http", text)
    files = {address for tag, address in page.addresses if tag == "img"}
    assert files
    assert {str(f.relative_to(built.parent)) for f in built.parent.rglob("*.webp")} == files
    anchors = [address for tag, address in page.addresses if tag == "a"]
    assert all(address.startswith("#") and address[1:] in page.ids for address in anchors)
    assert all(alt.strip() for alt in page.alts)
    assert len(page.alts) >= len(files)


def test_a_page_of_somebody_else_is_not_overwritten(content: ReportContent, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<title>mine</title>")
    with pytest.raises(MatrixError, match=r"not written by matrix report\. Choose another"):
        build_report(tmp_path, content)
    assert [file.name for file in tmp_path.iterdir()] == ["index.html"]


def test_it_shows_the_numbers_that_were_given(built: Path) -> None:
    text = read(built).text
    for given in (
        "interaction fidelity (IF)",
        "MATRIX − LoRA , IF +0.041 [−0.018, +0.100] over 24 prompts: not resolved. Too small to "
        "tell rows apart: 24 videos a row. A difference in IF below about 0.07 would not be seen.",
        "MATRIX − base IF +0.111 [+0.042, +0.180] 24 MATRIX is higher",
        "0.450 [0.380, 0.510] +0.450 [+0.380, +0.510]",
        "24 of 26: 2 missing, 3 answers unscored",
        "frozen first frame null 0.050",
        "1 min 12 s",
        "Chosen: layer 5 : log-lift is higher in videos that succeed than in those that fail",
        "Chosen: layers 1, 2 : influential; no layer that follows the masks has a higher log-lift "
        "in successes; layer 1 (nouns -0.145 [-0.242, -0.049]) separates them the other way round",
        "v2v verbs: dominance not measured (3 successes and 61 failures)",
        "Not part of this run: SGA, SPA.",
        "ground truth ceiling",
        "IF 0.70 role gap +0.25",
        "InterGenEval (judge: oracle 2)",
        "diffusers 0.42.1",
        "with a rank correlation of 0.91 (least of 100 splits 0.64), and share 88 % of their top",
        "Best heads of the chosen layers words layer head AAS log-lift nouns 5 2 0.410 +1.900",
        "layer word padding video 0 2.0 % 10.0 % 88.0 %",
        "Not shown: map overlays of V2V: the run kept none.",
    ):
        assert given in text, given
    assert text.count("decoder absorbed") == 1  # of MATRIX, not of LoRA


def test_a_reader_meets_clips_then_scores_and_the_table_of_runs_last(built: Path) -> None:
    page = read(built)
    sections = ["first", "scores", "gallery", "layers", "training", "runs"]
    assert [name for name in page.ids if name in sections] == sections
    # The strongest null opens.
    assert page.text.index("another verb null") < page.text.index("base 0.381")


def test_boxes_lie_around_the_instances_in_the_colours_of_the_questions(
    built: Path, content: ReportContent
) -> None:
    """In frame t of the first clip, at that frame's place in the strip."""
    source = built.read_text(encoding="utf-8")
    svg = re.findall(r'<svg class="boxes".*?</svg>', source)[0]
    item = content.gallery[0]
    names = [instance.id for instance in item.sample.instances]
    for index, name in enumerate(names):
        (path,) = re.findall(rf'<path class="i{index}" d="([^"]*)"', svg)
        found = [[float(x) for x in re.split("[MHVz ]+", box)[1:6]] for box in path.split("z")[:-1]]
        track = item.clips[0].tracks[name]
        for t, (left, top, right, foot, back) in enumerate(found):
            rows, columns = np.nonzero(track.mask(t))
            assert (left, right, back) == (columns.min(), columns.max() + 1, left)
            assert (top - 64 * t, foot - 64 * t) == (rows.min(), rows.max() + 1)
        assert len(found) == len(track)
    style = source[: source.index("</style>")]
    assert [f".boxes .i{i} {{ --box:" in style for i in range(len(BOX_COLOURS))] == [True] * 6
    # The base's clip was not followed: boxes in its first frame alone.
    assert re.findall(r'<svg class="boxes".*?</svg>', source)[1].count("z") == len(names)


def test_every_answer_is_there_with_its_evidence(built: Path) -> None:
    """Of two cards, each with the base's y and nine n, and yyiyynyyuy of MATRIX."""
    source, text = built.read_text(encoding="utf-8"), read(built).text
    counts = {"yes": 16, "no": 20, "implausible": 2, "unscored": 2}
    for css, count in counts.items():
        assert len(re.findall(rf'<li class="answer {css}(?: apart)?"', source)) == count
    assert "distance 0.3" in text
    assert "no reply, distance 0.9, “[/b]”" in text
    assert "frame 7" in text


def test_text_is_escaped_everywhere(content: ReportContent, tmp_path: Path) -> None:
    evil = '<script>alert("x")</script>&\''
    judged = content.gallery[0].clips[1]
    assert judged.score is not None
    score = judged.score.model_copy(update={"state": "unscored", "reason": evil})
    changed = replace(
        content,
        title=evil,
        command=evil,
        runs=(replace(content.runs[0], label=evil, config={evil: evil}),),
        rows=(replace(content.rows[0], label=evil),),
        gallery=(
            GalleryItem(
                Sample(id="evil", file_name="a.mp4", caption=evil), (replace(judged, score=score),)
            ),
        ),
        judges=(evil,),
        missing={"gallery": (evil,)},
    )
    page = read(build_report(tmp_path / "evil", changed))
    assert page.scripts == 1
    assert page.text.count('<script>alert("x")</script>&') >= 12
    assert f"base: {evil}" in page.alts


def test_what_is_missing_is_named_in_its_place(content: ReportContent, tmp_path: Path) -> None:
    page = read(build_report(tmp_path / "empty", ReportContent(title="nothing")))
    assert page.text.count("Not shown:") == 6
    for line in ("no run folder was given", "no analysis was given", "no training run was given"):
        assert f"Not shown: {line}." in page.text
    assert not list(tmp_path.rglob("*.webp"))
    item = GalleryItem(content.gallery[0].sample, (GalleryClip("broken", tmp_path / "gone.mp4"),))
    page = read(build_report(tmp_path / "broken", ReportContent(title="t", gallery=(item,))))
    assert "gone.mp4: there is no such video file" in page.text
    assert "not scored" in page.text


def test_a_second_report_replaces_the_first_and_equal_content_gives_an_equal_page(
    content: ReportContent, tmp_path: Path
) -> None:
    first = build_report(tmp_path / "report", content)
    (first.parent / "assets" / "mine.webp").write_bytes(b"not ours")
    smaller = replace(content, gallery=content.gallery[:1])
    build_report(tmp_path / "report", smaller)
    files = {address for tag, address in read(first).addresses if tag == "img"}
    left = {f"assets/{file.name}" for file in (first.parent / "assets").iterdir()}
    assert left == files | {"assets/mine.webp"}
    assert first.read_bytes() == build_report(tmp_path / "again", smaller).read_bytes()


def test_so_few_videos_are_too_small_to_tell_rows_apart(content: ReportContent) -> None:
    """A width is named where there are enough for a verdict, and it is one."""

    def told(n: int, *ends: float) -> str:
        pair = replace(content.differences[0], estimate=estimate(0.0, *ends, n))
        row = ScoreRow("base", "run", summary(0.4, n))
        return too_small(ReportContent(title="t", rows=(row,), differences=(pair,)))

    small = "Too small to tell rows apart: 24 videos a row."
    assert (
        told(24, -0.06, 0.06) == f"{small} A difference in IF below about 0.06 would not be seen."
    )
    assert told(24, 0.0, 0.002) == small
    assert told(6, -0.3, 0.3) == "Too small to tell rows apart: 6 videos a row."
    assert told(50, -0.1, 0.1) == ""

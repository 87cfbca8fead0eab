"""A page's content as a small demo would give it, from tiny-world clips, and records of other rooms
with what a test does not care about filled in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from matrix_video.analysis.dominance import Contrast
from matrix_video.analysis.heads import HeadEvidence
from matrix_video.analysis.layers import (
    DataFacts,
    Evidence,
    GroupEvidence,
    LayerChoice,
    LayerEvidence,
    LayerSinks,
    ModelFacts,
)
from matrix_video.analysis.stability import Stability
from matrix_video.attention.site import Kind
from matrix_video.backbones.fingerprint import Fingerprint
from matrix_video.data.video import write_video
from matrix_video.evaluation.estimates import Estimate
from matrix_video.evaluation.scores import (
    METRICS,
    ScoredAnswer,
    ScoredInteraction,
    Summary,
    VideoScore,
)
from matrix_video.evaluation.verdict import Reply
from matrix_video.report.content import (
    Analysis,
    Curve,
    Difference,
    GalleryClip,
    GalleryItem,
    Overlay,
    ReportContent,
    ScoreRow,
    Term,
    TrainingCurves,
)
from matrix_video.report.runs import Run
from matrix_video.world.clips import make_clip
from matrix_video.world.palette import FPS

REPLIES: dict[str, Reply] = {
    "y": "yes",
    "n": "no",
    "i": "no (visually implausible)",
    "u": "unscored",
}


@pytest.fixture(scope="session")
def content(tmp_path_factory: pytest.TempPathFactory) -> ReportContent:
    """Every section filled."""
    folder = tmp_path_factory.mktemp("videos")
    settings = {"model": "tiny", "seed": 0, "steps": 9}
    return ReportContent(
        title="Tiny world, base against LoRA and MATRIX",
        command="matrix demo --out demo",
        versions=(("python", "3.11.9"), ("diffusers", "0.42.1")),
        runs=(
            Run("analysis", folder, "analyze", {"data": "demo/x", **settings}, 48.2),
            Run("MATRIX", folder, "train", {"data": "demo/x", **settings}, 71.9),
            Run("scores of MATRIX", folder, "evaluate", {"videos": "demo/x", **settings}),
        ),
        layers=(Analysis("analysis", layer_choice()),),
        curves=(training_curves("LoRA", aligned=False), training_curves("MATRIX", aligned=True)),
        rows=(
            ScoreRow("another verb", "null", summary(0.613)),
            ScoreRow("base", "run", summary(0.381)),
            ScoreRow("MATRIX", "run", summary(0.4503), "of 26: 2 missing, 3 answers unscored"),
            ScoreRow("frozen first frame", "null", summary(0.05, n=3)),
            ScoreRow("ground truth", "ceiling", summary(0.967)),
        ),
        differences=(
            difference("MATRIX", "LoRA", 0.0412, -0.018, 0.0996, "not resolved"),
            difference("MATRIX", "base", 0.1105, 0.0421, 0.1803, "MATRIX is higher"),
        ),
        judges=("oracle 2",),
        gallery=tuple(card(folder, index) for index in range(2)),
        missing={"layers": ("map overlays of V2V: the run kept none",)},
    )


def estimate(mean: float | None, low: float | None, high: float | None, n: int) -> Estimate:
    return Estimate(mean=mean, low=low, high=high, n=n)


def summary(level: float, n: int = 24) -> Summary:
    ends = (level - 0.07, level + 0.06) if n >= 5 else (None, None)
    return {metric: estimate(level, *ends, n) for metric in METRICS}


def difference(left: str, right: str, mean: float, low: float, high: float, verdict: str) -> Any:
    found = estimate(mean, low, high, 24)
    return Difference(left, right, "if", found, verdict, verdict.endswith("higher"))


def group(
    lifts: Sequence[float],
    words: Literal["nouns", "verbs"] = "nouns",
    kind: Kind = "v2t",
    **fields: Any,
) -> GroupEvidence:
    return GroupEvidence(
        kind=kind,
        words=words,
        samples=64,
        k=2,
        order=tuple(range(len(lifts))),
        layers=tuple(
            LayerEvidence(layer=i, frequency=0.5, aas=abs(v) / 10, log_lift=v, binding=0.05)
            for i, v in enumerate(lifts)
        ),
        **{
            "influential": (0, 1),
            "dominance": "not measured",
            "reason": "no labels of success were given",
            "successes": 0,
            "failures": 0,
            "contrasts": (),
            "dominant": (),
            "stability": Stability(splits=100, mean=0.91, low=0.64, high=1.0, top_shared=0.875),
            **fields,
        },
    )


def contrast(layer: int, mean: float, low: float, high: float) -> Contrast:
    return Contrast(layer, mean, low, high, p_value=0.1, gap_success=0.1, gap_failure=-0.1)


def layer_choice(**fields: Any) -> LayerChoice:
    contrasts = (contrast(5, 0.31, 0.06, 0.55), contrast(1, -0.145, -0.242, -0.049))
    measured: dict[str, Any] = {
        "dominance": "measured",
        "reason": None,
        "successes": 22,
        "failures": 42,
    }
    lifts = [2.1 * math.exp(-((layer - 5) ** 2) / 3) - 0.3 for layer in range(8)]
    evidence = Evidence(
        basis={"v2t": "dominance", "v2v": "influence"},
        groups=(
            group(lifts, contrasts=contrasts, dominant=(5,), influential=(5, 1), **measured),
            group(lifts, "verbs"),
            group(lifts, kind="v2v", contrasts=contrasts[1:], influential=(1, 2), **measured),
            group(lifts, "verbs", "v2v"),
        ),
        warnings=("v2v verbs: dominance not measured (3 successes and 61 failures)",),
        sinks=(LayerSinks(layer=0, shares={"word": 0.02, "padding": 0.1, "video": 0.88}),),
        heads=(HeadEvidence("v2t", "nouns", 5, 2, 0.41, 1.9, None),),
    )
    facts = ModelFacts(
        name="tiny",
        family="CogVideoX",
        num_layers=8,
        fingerprint=Fingerprint(name="T", architecture="a", weights="w"),
    )
    data = DataFacts(path="demo/clips", samples=64, hash="x")
    choice = LayerChoice(model=facts, data=data, v2t=(5,), v2v=(1, 2), evidence=evidence)
    return choice.model_copy(update=fields)


def training_curves(label: str, *, aligned: bool) -> TrainingCurves:
    def loss(start: float, end: float) -> Curve:
        steps = [float(step) for step in range(1, 301)]
        return tuple((s, end + (start - end) * math.exp(-s / 80)) for s in steps)

    terms: dict[Term, Curve] = {"diffusion": loss(0.21, 0.17)}
    if aligned:
        terms |= {"sga": loss(1.6, 0.7), "spa": loss(1.3, 0.8)}
    ends: tuple[tuple[Kind, int], ...] = (("v2t", 5), ("v2v", 1), ("v2v", 2))
    heldout = {end: ((0.0, 0.3), (300.0, 0.3 + end[1] / 50)) for end in ends}
    return TrainingCurves(label, terms, heldout, absorbed=aligned)


def video_score(id: str, replies: str, **fields: Any) -> VideoScore:
    """Of one video, with a letter for each of ten replies."""
    answers = tuple(
        ScoredAnswer(
            question=k,
            text=f"Question {k}?",
            answer=REPLIES[letter],
            frame=4 + k,
            evidence={"distance": k / 10},
            raw="[/b]" if letter == "u" else None,
            reason="no reply" if letter == "u" else None,
        )
        for k, letter in enumerate(replies, start=1)
    )
    key = "red ball (red bbox) push blue box (green bbox)"
    one = ScoredInteraction(
        key_interaction=key, subject="id1", verb="push", object="id2", answers=answers
    )
    known = {"state": "scored", "prompt": "p", "if": replies.count("y") / 10, "role_gap": 0.25}
    return VideoScore.model_validate({"id": id, "interactions": (one,), **known, **fields})


def card(folder: Path, index: int) -> GalleryItem:
    """All clips are the true one; that of the base was followed in its first frame alone."""
    world = make_clip(7, "val", index)
    tracks, video = world.tracks(), folder / f"{index}.mp4"
    write_video(video, world.frames_THWC, FPS, lossless=True)
    first = {name: track.take([0]) for name, track in tracks.items()}
    return GalleryItem(
        sample=world.sample,
        clips=(
            GalleryClip("ground truth", video, tracks, reference=True),
            GalleryClip("base", video, first, video_score("a", "y" + "n" * 9)),
            GalleryClip("MATRIX", video, tracks, video_score("a", "yyiyynyyuy")),
        ),
        overlays=(Overlay("base, V2T, layer 5", video, "base", world.sample.id),),
    )

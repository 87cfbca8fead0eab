"""A page's content as a small demo would give it, from tiny-world clips."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from matrix_video.data.video import write_video
from matrix_video.report.content import (
    METRICS,
    Agreement,
    Answer,
    Answers,
    Contrast,
    Curve,
    Difference,
    Estimate,
    GalleryClip,
    GalleryItem,
    HeadScore,
    HeldOut,
    Kind,
    LayerGroup,
    LayerScore,
    LayerScores,
    Metric,
    Overlay,
    ReportContent,
    RunRow,
    Sinks,
    StageRun,
    Term,
    TrainingCurves,
    Verdict,
    Words,
)
from matrix_video.world.clips import WorldClip, make_clip
from matrix_video.world.palette import FPS

QUESTIONS = (
    "Is the ball apart from the box at the start?",
    "Does the ball move towards the box?",
    "Does the ball reach the box?",
    "Do they touch?",
    "Does the box move while they touch?",
    "Has the box moved at the end?",
    "Does the ball push something?",
    "Is it the red ball that pushes?",
    "Is it the blue box that is pushed?",
    "Is the blue box pushed away?",
)


@pytest.fixture(scope="session")
def content(tmp_path_factory: pytest.TempPathFactory) -> ReportContent:
    return sample_content(tmp_path_factory.mktemp("videos"), prompts=2)


def sample_content(folder: Path, prompts: int = 4) -> ReportContent:
    """Every section filled; clips are written to ``folder``."""
    return ReportContent(
        title="Tiny world, base against LoRA and MATRIX",
        command="matrix demo --out demo",
        versions=(
            ("python", "3.11.9"),
            ("torch", "2.13.0"),
            ("diffusers", "0.42.1"),
            ("cpus", "2"),
        ),
        runs=tuple(
            StageRun(label, f"matrix {command}", "tiny", data, "0", seconds, (("steps", "300"),))
            for label, command, data, seconds in (
                ("analysis", "analyze", "demo/base/dataset", 48.2),
                ("LoRA", "train", "demo/train", 71.9),
                ("MATRIX", "train", "demo/train", 96.4),
                ("scores of MATRIX", "evaluate", "demo/matrix/dataset", None),
            )
        ),
        layers=(sample_layers(),),
        curves=(sample_curves("LoRA", aligned=False), sample_curves("MATRIX", aligned=True)),
        rows=sample_rows(),
        differences=(
            Difference("MATRIX", "LoRA", "if", Estimate(0.0412, -0.018, 0.0996, 24)),
            Difference("MATRIX", "base", "if", Estimate(0.1105, 0.0421, 0.1803, 24)),
            Difference("LoRA", "base", "if", Estimate(0.0693, 0.0011, 0.1382, 24)),
        ),
        judge="oracle",
        gallery=tuple(sample_card(folder, index) for index in range(prompts)),
        missing={"layers": ("map overlays of V2V: the run kept none",)},
    )


def sample_layers() -> LayerScores:
    rng = np.random.default_rng(1)
    groups: list[LayerGroup] = []
    kinds: tuple[tuple[Kind, int], ...] = (("v2t", 5), ("v2v", 1))
    heights: tuple[tuple[Words, float], ...] = (("nouns", 2.1), ("verbs", 1.4))
    for kind, best in kinds:
        for words, height in heights:
            lifts = [
                height * math.exp(-((layer - best) ** 2) / 3) - 0.3 + 0.15 * rng.standard_normal()
                for layer in range(8)
            ]
            groups.append(
                LayerGroup(
                    kind=kind,
                    words=words,
                    samples=64,
                    agreement=Agreement(100, 0.91, 0.64, 0.875),
                    layers=tuple(
                        LayerScore(i, 0.04 * math.exp(lift), lift, 0.05 * lift)
                        for i, lift in enumerate(lifts)
                    ),
                    influential=(best, best + 1),
                    dominant=(best,) if words == "nouns" and kind == "v2t" else (),
                    contrasts=(
                        Contrast(best, 0.31, 0.06, 0.55),
                        Contrast(best + 1, 0.12, -0.11, 0.36),
                    )
                    if kind == "v2t"
                    else (),
                    successes=22,
                    failures=42,
                )
            )
    return LayerScores(
        label="analysis",
        model="tiny",
        data="demo/base/dataset",
        samples=64,
        chosen={"v2t": (5,), "v2v": (1, 2)},
        basis={"v2t": "dominance", "v2v": "binding"},
        groups=tuple(groups),
        warnings=(
            "v2v nouns: dominance not measured (3 successes and 61 failures)",
            "v2v verbs: dominance not measured (3 successes and 61 failures)",
            "v2t nouns: dominance rests on 22 successes and 42 failures; it may not hold",
        ),
        sinks=tuple(
            Sinks(
                layer, {"word": 0.02 + 0.01 * layer, "padding": 0.1, "video": 0.88 - 0.01 * layer}
            )
            for layer in range(8)
        ),
        heads=(HeadScore("v2t", "nouns", 5, 2, 0.41, 1.9),),
    )


def sample_curves(label: str, *, aligned: bool, absorbed: bool | None = None) -> TrainingCurves:
    rng = np.random.default_rng(2)
    steps = tuple(float(step) for step in range(1, 301))

    def loss(start: float, end: float, noise: float) -> Curve:
        values = (
            (end + (start - end) * math.exp(-s / 80)) * math.exp(noise * rng.standard_normal())
            for s in steps
        )
        return Curve(steps, tuple(values))

    terms: dict[Term, Curve] = {"diffusion": loss(0.21, 0.17, 0.15)}
    if aligned:
        terms |= {"sga": loss(1.6, 0.7, 0.1), "spa": loss(1.3, 0.8, 0.1)}
    marks = (0.0, 100.0, 200.0, 300.0)
    gain = 0.12 if aligned else 0.01
    starts: tuple[tuple[Kind, int, float], ...] = (
        ("v2t", 5, 0.31),
        ("v2v", 1, 0.36),
        ("v2v", 2, 0.33),
    )
    heldout = tuple(
        HeldOut(
            kind, layer, Curve(marks, tuple(base + gain * (1 - math.exp(-m / 120)) for m in marks))
        )
        for kind, layer, base in starts
    )
    return TrainingCurves(label, terms, heldout, absorbed)


def sample_rows() -> tuple[RunRow, ...]:
    def row(
        label: str, kind: Literal["run", "null", "ceiling"], level: float, unscored: int = 0
    ) -> RunRow:
        scores: dict[Metric, Estimate] = {}
        for i, metric in enumerate(METRICS):
            mean = min(1.0, level + 0.03 * (3 - i) * (kind == "run"))
            low, high = max(0.0, mean - 0.07), min(1.0, mean + 0.06)
            scores[metric] = Estimate(mean, low, high, 24)
        return RunRow(label, kind, scores, unscored, 240)

    return (
        row("base", "run", 0.381),
        row("LoRA", "run", 0.4503, 2),
        row("MATRIX", "run", 0.4915),
        row("frozen first frame", "null", 0.05),
        row("another prompt’s clip", "null", 0.11),
        row("straight drift", "null", 0.13),
        row("ground truth after the VAE", "ceiling", 0.967),
    )


def sample_card(folder: Path, index: int) -> GalleryItem:
    world = make_clip(7, "val", index)
    frames = world.frames_THWC
    frozen = np.repeat(frames[:1], len(frames), axis=0)
    shifted = np.stack([np.roll(frame, -2 * t, axis=1) for t, frame in enumerate(frames)])
    clips = (
        ("ground truth", frames, ()),
        ("base", frozen, sample_answers("yes no no no no no no no no no")),
        ("LoRA", shifted, sample_answers("yes yes implausible no yes no yes no unscored yes")),
        ("MATRIX", frames[::-1], sample_answers("yes yes yes yes implausible yes yes yes yes no")),
    )
    return GalleryItem(
        sample=world.sample,
        clips=tuple(
            GalleryClip(
                label,
                stored(folder / f"{index}-{label}.mp4".replace(" ", "-"), pixels),
                {"if": 0.1 * sum(a.verdict == "yes" for a in answers[0].answers), "spi": 1.0}
                if answers
                else {},
                answers,
                reference=not answers,
            )
            for label, pixels, answers in clips
        ),
        overlays=(
            Overlay(
                "base, V2T layer 5, noise level 2 of 5", overlay(folder / f"{index}-o.mp4", world)
            ),
        ),
    )


def sample_answers(verdicts: str) -> tuple[Answers, ...]:
    found: list[Verdict] = [cast(Verdict, word) for word in verdicts.split()]
    return (
        Answers(
            "red ball pushes blue box",
            tuple(
                Answer(k, QUESTIONS[k - 1], word, 4 + k, f"distance {k / 10:.1f} of the diameter")
                for k, word in enumerate(found, start=1)
            ),
        ),
    )


def overlay(path: Path, world: WorldClip) -> Path:
    """Panels of 160 pixels with a bar, coloured where each instance is."""
    panels: list[NDArray[np.uint8]] = []
    for r in range(min(3, len(world.masks_RTHW))):
        tint = np.array([(255, 72, 72), (72, 200, 255), (255, 210, 60)][r])
        alpha = 0.7 * world.masks_RTHW[r][..., None]
        mixed = (world.frames_THWC * (1 - alpha) + tint * alpha).astype(np.uint8)
        large = mixed.repeat(3, axis=1).repeat(3, axis=2)
        panels.append(np.pad(large, ((0, 0), (16, 0), (0, 0), (0, 0)), constant_values=24))
    return stored(path, np.concatenate(panels, axis=2))


def stored(path: Path, frames_THWC: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, np.ascontiguousarray(frames_THWC), FPS, lossless=True)
    return path

"""The stages of ``matrix demo``.

render → generate and label base clips → analyze → train LoRA, and LoRA with SGA and SPA → generate
→ evaluate → report. Every stage is a run folder of the command it stands for.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from matrix_video.analysis.config import AnalyzeConfig
from matrix_video.analysis.layers import read_choice
from matrix_video.analysis.run import analyze, draw_overlays, make_probe
from matrix_video.attention.site import Kind
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.loading import backbone_for, load_pipeline
from matrix_video.data.dataset import Dataset
from matrix_video.data.tracks import MaskTrack, State
from matrix_video.evaluation.config import EvaluateConfig
from matrix_video.evaluation.run import evaluate
from matrix_video.evaluation.scores import read_scores
from matrix_video.generation.config import GenerateConfig
from matrix_video.generation.run import generate
from matrix_video.recipes.analyze import show
from matrix_video.recipes.demo import DemoCommand
from matrix_video.recipes.evaluate import show_differences, show_scores
from matrix_video.recipes.settings import tiny
from matrix_video.report.collect import collect
from matrix_video.report.page import build_report
from matrix_video.services.console import say
from matrix_video.services.errors import MatrixError
from matrix_video.services.progress import progress
from matrix_video.services.signals import EXIT_TERMINATED
from matrix_video.training.config import TrainConfig
from matrix_video.training.run import train
from matrix_video.world.splits import Split
from matrix_video.world.write import write_split

LOSSES: Final[dict[str, Kind]] = {"sga": "v2t", "spa": "v2v"}
"""The maps that each loss aligns."""


class Stages:
    """The stages, and the pipeline that they share."""

    def __init__(self, config: DemoCommand, console: Console) -> None:
        self.config = config
        self.console = console
        self.tracked = self.path("scores", "base-analysis", "tracked")
        """The base's videos with the tracks that the judge followed."""

    def path(self, *parts: str) -> Path:
        return self.config.out.joinpath(*parts)

    @cached_property
    def backbone(self) -> Backbone:
        """The base pipeline, loaded once and left as it was by every stage."""
        return backbone_for(load_pipeline(self.config.model))

    def all(self) -> dict[str, Callable[[], None]]:
        return {
            "render": self.render,
            "label": self.label,
            "analyze": self.analyze,
            "train-lora": partial(self.train, "lora", aligned=False),
            "train-matrix": partial(self.train, "matrix", aligned=True),
            "generate": self.generate,
            "evaluate": self.evaluate,
            "report": self.report,
        }

    def render(self) -> None:
        """Tiny-world clips: prompts to analyse and to compare on, and a training set."""
        config = self.config
        splits: dict[Split, int] = {
            "analysis": config.analysis_clips,
            "train": config.train_clips,
            "val": config.val_clips,
        }
        for split, clips in splits.items():
            with progress(f"render {split}", clips) as advance:
                write_split(self.path("data", split), clips, config.seed, split, advance)

    def label(self) -> None:
        """The base generates clips; the judge scores and tracks them.

        Instances that the judge lost are counted; their maps count as far as it saw them. Raises
        `MatrixError` where it lost all of them.
        """
        self._generate("base-analysis", "analysis", adapter=None)
        self._evaluate("base-analysis", "analysis", reference=False)
        judged = Dataset(self.tracked)
        followed = {s.id: _seen(judged.tracks(i)) for i, s in enumerate(judged.samples)}
        asked = Dataset(self.path("data", "analysis")).samples
        lost = [
            (sample.id, one)
            for sample in asked
            for one in sample.instances
            if one.id not in followed.get(sample.id, ())
        ]
        if lost:
            told = "; ".join(f"{clip}: {one.id} {one.phrase}" for clip, one in lost[:3])
            say(
                self.console,
                f"the oracle judge lost {len(lost)} instances in {len({clip for clip, _ in lost})} "
                f"of {len(asked)} videos right after the first frame "
                f"({told}{'; …' if len(lost) > 3 else ''})",
            )
        if not any(followed.values()):
            raise MatrixError(
                "the oracle judge lost every instance of every video that the base generated, so "
                "there is nothing to measure attention on",
                remedy="Use a pipeline that was trained on tiny world, or more --sampling-steps, "
                "in another --out",
                file=self.tracked,
            )

    def analyze(self) -> None:
        """Which layers follow the instances, and which of them separate success from failure."""
        settings = AnalyzeConfig(
            model=self.config.model,
            data=self.tracked,
            out=self.path("analysis"),
            labels=self.path("scores", "base-analysis", "scores.json"),
            overlays=0,
            seed=self.config.seed,
            precision="auto",
        )
        choice = analyze(settings, self.backbone)
        show(choice, self.console)
        # The gallery shows maps of its own prompts: the base's, on the real clips.
        prompts = Dataset(self.path("data", "val"))
        shown = min(self.config.gallery, len(prompts))
        folder, probe = self.path("analysis", "overlays"), make_probe(settings)
        with progress("overlays", shown) as advance:
            for index in range(shown):
                draw_overlays(folder, self.backbone, prompts, index, probe, choice)
                advance(1)

    def train(self, name: str, *, aligned: bool) -> None:
        """LoRA and the id map; ``aligned`` adds SGA and SPA, and nothing else."""
        result = train(self.training(name, aligned=aligned), self.backbone.pipe)
        if result.adapter is None:  # SIGTERM: the stage is not done
            raise SystemExit(EXIT_TERMINATED)

    def training(self, name: str, *, aligned: bool) -> TrainConfig:
        """Settings of a training; a loss for whose maps the analysis found no layer is left out."""
        layers = self.path("analysis", "layers.json")
        choice = read_choice(layers)
        off = {loss: 0.0 for loss, kind in LOSSES.items() if not choice.layers(kind)}
        if off and aligned:
            losses = " and ".join(off).upper()
            say(self.console, f"{name}: no layer was found for {losses}, so it is off")
        return tiny(
            data=self.path("data", "train"),
            out=self.path("training", name),
            layers=layers,
            model=self.config.model,
            steps=self.config.train_steps,
            seed=self.config.seed,
            cache=self.path("training", "cache"),  # both trainings see the same clips
            aligned=aligned,
        ).model_copy(update=off)

    def generate(self) -> None:
        for name, adapter in (("base", None), ("lora", "lora"), ("matrix", "matrix")):
            self._generate(name, "val", adapter)

    def evaluate(self) -> None:
        # Null rows and ceiling are the prompts' own: once is enough.
        for name in ("base", "lora", "matrix"):
            self._evaluate(name, "val", reference=name == "base")

    def report(self) -> None:
        names = {"base": "base", "LoRA": "lora", "MATRIX": "matrix"}
        content = collect(
            (
                ("analysis", self.path("analysis")),
                ("LoRA training", self.path("training", "lora")),
                ("MATRIX training", self.path("training", "matrix")),
                *((label, self.path("videos", name)) for label, name in names.items()),
                *((f"{label} scores", self.path("scores", name)) for label, name in names.items()),
            ),
            title="MATRIX demo",
            command=shlex.join(["matrix", *sys.argv[1:]]),
            prompts=self.config.gallery,
        )
        build_report(self.path("report"), content)

    def _generate(self, name: str, prompts: str, adapter: str | None) -> None:
        config = GenerateConfig(
            model=self.config.model,
            prompts=self.path("data", prompts),
            out=self.path("videos", name),
            adapter=None if adapter is None else self.path("training", adapter, "adapter"),
            seed=self.config.seed,
            steps=self.config.sampling_steps,
            precision="auto",
        )
        generate(config, self.backbone)

    def _evaluate(self, name: str, prompts: str, *, reference: bool) -> None:
        config = EvaluateConfig(
            videos=self.path("videos", name),
            prompts=self.path("data", prompts),
            out=self.path("scores", name),
            nulls=reference,
            model=self.config.model if reference else None,
            tracked=True,
            seed=self.config.seed,
        )
        evaluate(config, self.backbone if reference else None)

    def show(self, seconds: Mapping[str, float]) -> None:
        """Scores, differences, stage times and where the page is."""
        named = {
            name: read_scores(self.path("scores", name)) for name in ("base", "lora", "matrix")
        }
        show_scores(named, self.console)
        show_differences(named, [("matrix", "lora"), ("lora", "base")], self.console)
        table = Table("stage", "seconds")
        for name, spent in {**seconds, "all": sum(seconds.values())}.items():
            table.add_row(name, f"{spent:.1f}")
        self.console.print(table)
        say(self.console, f"page: {self.path('report', 'index.html')}")


def _seen(tracks: Mapping[str, MaskTrack]) -> set[str]:
    """Instances that are visible in some frame after the first, which is given."""
    return {name for name, track in tracks.items() if State.VISIBLE in track.states[1:]}

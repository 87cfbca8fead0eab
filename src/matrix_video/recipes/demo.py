"""``matrix demo``: the whole loop on the shipped tiny pipeline, through the commands' own code.

render → generate and label base clips → analyze → train LoRA, and LoRA with SGA and SPA → generate
→ evaluate → report. Every stage is a run folder of the command it stands for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.table import Table

from matrix_video.data.tracks import State
from matrix_video.services.console import make_console, say
from matrix_video.services.errors import MatrixError
from matrix_video.services.run import RunFolder

if TYPE_CHECKING:
    from matrix_video.attention.site import Kind
    from matrix_video.backbones.base import Backbone
    from matrix_video.data.tracks import MaskTrack
    from matrix_video.training.config import TrainConfig
    from matrix_video.world.splits import Split

_TRACKED: Final = ("base-analysis", "tracked")
"""Within ``scores``: the base's videos with the tracks that the judge followed."""
LOSSES: Final[dict[str, Kind]] = {"sga": "v2t", "spa": "v2v"}
"""The maps that each loss aligns."""


class DemoCommand(BaseModel):
    """Run the whole loop on the shipped tiny pipeline and tiny world: minutes on two CPU cores.

    Ends in OUT/report/index.html: attention measured, layers chosen, LoRA trained with and without
    SGA and SPA, clips side by side, scores with intervals. A stopped or killed demo goes on when
    the same command is given again. The default sizes show how it works; they are far too small to
    tell the rows apart.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    out: Path = Path("out/demo")
    """Folder for everything."""
    model: str = "tiny"
    """Pipeline: tiny, or a folder of the same world."""
    analysis_clips: int = Field(default=64, ge=2)
    """Clips that the base generates, that are labelled, and whose attention is measured."""
    train_clips: int = Field(default=96, ge=2)
    """Clips to fine-tune on."""
    val_clips: int = Field(default=24, ge=2)
    """Prompts to compare on."""
    train_steps: int = Field(default=80, ge=1)
    """Updates of each fine-tuning."""
    sampling_steps: int = Field(default=12, ge=1)
    """Denoising steps of every clip."""
    gallery: int = Field(default=6, ge=0)
    """Prompts in the gallery of the page."""
    seed: int = 0
    """Seed of everything."""


def run(config: DemoCommand) -> int:
    console = make_console()
    with RunFolder.open(config.out, config, command="demo") as folder:
        demo = _Demo(config, folder, console)
        for name, stage in demo.stages():
            if not folder.done(name):
                with demo.timed(name):
                    stage()
        demo.show()
    return 0


class _Demo:
    """The stages, and the pipeline that they share."""

    def __init__(self, config: DemoCommand, folder: RunFolder, console: Console) -> None:
        self.config = config
        self.folder = folder
        self.console = console
        self._loaded: Backbone | None = None

    def path(self, *parts: str) -> Path:
        return self.config.out.joinpath(*parts)

    @property
    def backbone(self) -> Backbone:
        """The base pipeline, loaded once and left as it was by every stage."""
        if self._loaded is None:
            from matrix_video.backbones.loading import backbone_for, load_pipeline

            self._loaded = backbone_for(load_pipeline(self.config.model))
        return self._loaded

    def stages(self) -> tuple[tuple[str, Callable[[], None]], ...]:
        return (
            ("render", self.render),
            ("label", self.label),
            ("analyze", self.analyze),
            ("train-lora", lambda: self.train("lora", aligned=False)),
            ("train-matrix", lambda: self.train("matrix", aligned=True)),
            ("generate", self.generate),
            ("evaluate", self.evaluate),
            ("report", self.report),
        )

    @contextmanager
    def timed(self, name: str) -> Generator[None]:
        """Title before, seconds after; of a stage that was interrupted, its last sitting counts."""
        say(self.console, name, style="bold")
        start = time.monotonic()
        yield
        self.folder.mark_done(name, seconds=round(time.monotonic() - start, 1))

    def render(self) -> None:
        """Tiny-world clips: prompts to analyse and to compare on, and a training set."""
        from matrix_video.services.progress import progress
        from matrix_video.world.write import write_split

        config = self.config
        splits: tuple[tuple[Split, int], ...] = (
            ("analysis", config.analysis_clips),
            ("train", config.train_clips),
            ("val", config.val_clips),
        )
        for split, clips in splits:
            with progress(f"render {split}", clips) as advance:
                write_split(self.path("data", split), clips, config.seed, split, advance)

    def label(self) -> None:
        """The base generates clips; the judge scores and tracks them.

        Instances that the judge lost are counted; their maps count as far as it saw them. Raises
        `MatrixError` where it lost all of them.
        """
        from matrix_video.data.dataset import Dataset

        self._generate("base-analysis", "analysis", adapter=None)
        self._evaluate("base-analysis", "analysis", tracked=True)
        asked, tracked = self.path("data", "analysis"), self.path("scores", *_TRACKED)
        judged = Dataset(tracked)
        followed = {s.id: _seen(judged.tracks(i)) for i, s in enumerate(judged.samples)}
        lost = {
            sample.id: [i for i in sample.instances if i.id not in followed.get(sample.id, ())]
            for sample in Dataset(asked).samples
        }
        told = [f"{clip}: {i.id} {i.phrase}" for clip, found in lost.items() for i in found]
        if told:
            say(
                self.console,
                f"the oracle judge lost {len(told)} instances in {sum(map(bool, lost.values()))} "
                f"of {len(lost)} videos right after the first frame "
                f"({'; '.join(told[:3])}{'; …' if len(told) > 3 else ''})",
            )
        if not any(followed.values()):
            raise MatrixError(
                "the oracle judge lost every instance of every video that the base generated, so "
                "there is nothing to measure attention on",
                remedy="Use a pipeline that was trained on tiny world, or more --sampling-steps, "
                "in another --out",
                file=tracked,
            )

    def analyze(self) -> None:
        """Which layers follow the instances, and which of them separate success from failure."""
        from matrix_video.analysis.config import AnalyzeConfig
        from matrix_video.analysis.run import analyze, draw_overlays, make_probe
        from matrix_video.data.dataset import Dataset
        from matrix_video.recipes.analyze import show
        from matrix_video.services.progress import progress

        settings = AnalyzeConfig(
            model=self.config.model,
            data=self.path("scores", *_TRACKED),
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
        from matrix_video.services.signals import EXIT_TERMINATED
        from matrix_video.training.run import train

        result = train(self.training(name, aligned=aligned), self.backbone.pipe)
        if result.adapter is None:  # SIGTERM: the stage is not done
            raise SystemExit(EXIT_TERMINATED)

    def training(self, name: str, *, aligned: bool) -> TrainConfig:
        """Settings of a training; a loss for whose maps the analysis found no layer is left out."""
        from matrix_video.analysis.layers import read_choice
        from matrix_video.recipes.tiny import tiny_training

        layers = self.path("analysis", "layers.json")
        choice = read_choice(layers)
        off = {loss: 0.0 for loss, kind in LOSSES.items() if not choice.layers(kind)}
        if off and aligned:
            say(
                self.console,
                f"{name}: no layer was found for {' and '.join(off).upper()}, so it is off",
            )
        return tiny_training(
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
            self._evaluate(name, "val", reference=name == "base", tracked=True)

    def report(self) -> None:
        from matrix_video.report.collect import collect
        from matrix_video.report.page import build_report

        content = collect(
            (
                ("analysis", self.path("analysis")),
                ("LoRA training", self.path("training", "lora")),
                ("MATRIX training", self.path("training", "matrix")),
                ("base", self.path("videos", "base")),
                ("LoRA", self.path("videos", "lora")),
                ("MATRIX", self.path("videos", "matrix")),
                ("base scores", self.path("scores", "base")),
                ("LoRA scores", self.path("scores", "lora")),
                ("MATRIX scores", self.path("scores", "matrix")),
            ),
            title="MATRIX demo",
            command=self.command(),
            prompts=self.config.gallery,
        )
        build_report(self.path("report"), content)

    def _generate(self, name: str, prompts: str, adapter: str | None) -> None:
        from matrix_video.generation.config import GenerateConfig
        from matrix_video.generation.run import generate

        generate(
            GenerateConfig(
                model=self.config.model,
                prompts=self.path("data", prompts),
                out=self.path("videos", name),
                adapter=None if adapter is None else self.path("training", adapter, "adapter"),
                seed=self.config.seed,
                steps=self.config.sampling_steps,
                precision="auto",
            ),
            self.backbone,
        )

    def _evaluate(
        self, name: str, prompts: str, *, reference: bool = False, tracked: bool = False
    ) -> None:
        from matrix_video.evaluation.config import EvaluateConfig
        from matrix_video.evaluation.run import evaluate

        evaluate(
            EvaluateConfig(
                videos=self.path("videos", name),
                prompts=self.path("data", prompts),
                out=self.path("scores", name),
                nulls=reference,
                model=self.config.model if reference else None,
                tracked=tracked,
                seed=self.config.seed,
            ),
            self.backbone if reference else None,
        )

    def command(self) -> str:
        """The command line that gives this demo."""
        changed = self.config.model_dump(mode="json", exclude_defaults=True)
        options = [f"--{key.replace('_', '-')} {value}" for key, value in changed.items()]
        return " ".join(["matrix demo", *options])

    def show(self) -> None:
        """Scores, differences, stage times and where the page is."""
        from matrix_video.evaluation.scores import read_scores
        from matrix_video.recipes.evaluate import show_differences, show_scores

        names = ("base", "lora", "matrix")
        named = {name: read_scores(self.path("scores", name)) for name in names}
        show_scores(named, self.console)
        show_differences(named, [("matrix", "lora"), ("lora", "base")], self.console)
        table = Table("stage", "seconds")
        for name, _ in self.stages():
            table.add_row(name, f"{self.folder.facts(name)['seconds']:.1f}")
        total = sum(self.folder.facts(name)["seconds"] for name, _ in self.stages())
        table.add_row("all", f"{total:.1f}")
        self.console.print(table)
        say(self.console, f"page: {self.path('report', 'index.html')}")


def _seen(tracks: Mapping[str, MaskTrack]) -> set[str]:
    """Instances that are visible in some frame after the first, which is given."""
    return {name for name, track in tracks.items() if State.VISIBLE in track.states[1:]}

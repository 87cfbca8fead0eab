"""Make one row with one training seed: train, sample, score.

Every stage is a run folder of the command that it stands for, so what was stopped goes on. Several
processes may work in one folder: each takes pairs that no other one has.
"""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import torch
from safetensors import safe_open

from ablation.results import PromptScore, Result, Spent
from ablation.rows import BASE, Pair, settings_hash, train_config
from ablation.settings import GROUPS, Settings, Split
from matrix_video.backbones.adapter import LORA_FILE
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.fingerprint import fingerprint
from matrix_video.backbones.loading import backbone_for, load_pipeline
from matrix_video.data.dataset import Dataset
from matrix_video.evaluation.config import EvaluateConfig
from matrix_video.evaluation.run import evaluate
from matrix_video.evaluation.scores import VideoScore, read_scores
from matrix_video.generation.config import GenerateConfig
from matrix_video.generation.run import generate
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import read_json, write_json
from matrix_video.services.run import RunFolder, environment
from matrix_video.services.signals import EXIT_TERMINATED
from matrix_video.training.config import TrainConfig
from matrix_video.training.inputs import encoded_set, read_clips
from matrix_video.training.run import train
from matrix_video.world.splits import Split as WorldSplit
from matrix_video.world.write import write_split

Stage = Literal["train", "generate", "evaluate"]
SPENT: Final = "spent.json"


@contextmanager
def held(folder: Path, *, wait: bool) -> Generator[bool]:
    """Whether this process alone has ``folder`` within; the system frees it when it dies."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".claim", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


class Workshop:
    """The base, the data and the encoded clips that all rows share, in one folder."""

    def __init__(self, out: Path, settings: Settings, split: Split) -> None:
        """``MatrixError`` where the model is not the one that the settings name."""
        self.out, self.settings, self.split = out, settings, split
        self.source = _commit()
        self.backbone: Backbone = backbone_for(load_pipeline(settings.model))
        found = fingerprint(self.backbone.transformer)
        if (found.weights, self.backbone.num_layers) != (settings.weights, settings.num_layers):
            raise MatrixError(
                f"the model {settings.model} has weights {found.weights} in "
                f"{self.backbone.num_layers} layers, the settings name {settings.weights} in "
                f"{settings.num_layers}",
                remedy="Give the base that the settings were frozen for",
                field="weights",
            )

    def data(self, split: WorldSplit) -> Path:
        return self.out / "data" / split

    def prepare(self) -> None:
        """Render what is missing, and encode the training clips: once for all rows."""
        groups = GROUPS[self.split]
        share = self.settings.prompts // len(groups)
        wanted: list[tuple[WorldSplit, int]] = [("train", self.settings.clips)]
        wanted += [(group, share) for group in groups]
        with held(self.out / "data", wait=True):
            for split, clips in wanted:
                folder = self.data(split)
                if not (folder / "metadata.jsonl").exists() or len(Dataset(folder)) < clips:
                    print(f"render {clips} clips of {split}", flush=True)
                    write_split(folder, clips, self.settings.data_seed, split)
        config = self._training(Pair(0, "selected"), self.out / "unused")
        clips, _ = read_clips(config)
        # In an order of its own each, so that processes which begin together share the work.
        order = [sample.id for sample in clips.samples]
        random.Random(os.getpid()).shuffle(order)
        encoded_set(self.backbone, clips.subset(order), config, "encode")

    def make(self, pair: Pair, folder: Path) -> Result:
        """Train, sample and score. A SIGTERM while it trains ends the process in good order."""
        trained = folder / "train"
        adapter = None
        if pair.row != BASE:
            with _clock(folder, "train"):
                done = train(self._training(pair, trained), self.backbone.pipe)
            if done.adapter is None:
                raise SystemExit(EXIT_TERMINATED)
            adapter = done.adapter
        own: list[VideoScore] = []
        others: dict[str, list[PromptScore]] = {}
        for group in GROUPS[self.split]:
            videos = folder / f"videos-{group}"
            with _clock(folder, "generate"):
                self._generate(adapter, group, videos)
            judged = folder / f"scores-{group}"
            with _clock(folder, "evaluate"):
                self._evaluate(group, videos, judged, references=pair.row == BASE)
            scores = read_scores(judged)
            own += scores.videos
            for name, row in scores.references.items():
                others.setdefault(name, []).extend(map(PromptScore.of, row.videos))
        heldout, losses = _measured(RunFolder(trained))
        return Result(
            row=pair.row,
            seed=pair.seed,
            settings=settings_hash(self.settings, pair.row),
            updates=0 if adapter is None else self._training(pair, trained).steps,
            parameters={} if adapter is None else _counts(adapter),
            heldout_aas=heldout,
            losses=losses,
            spent={stage: Spent(**spent) for stage, spent in read_json(folder / SPENT).items()},
            environment={**environment(), "device": _device(self.backbone.device)},
            source=self.source,
            references={name: tuple(rows) for name, rows in others.items()},
            prompts=tuple(map(PromptScore.of, own)),
        )

    def _training(self, pair: Pair, out: Path) -> TrainConfig:
        cache = self.out / "cache"
        return train_config(self.settings, pair, data=self.data("train"), out=out, cache=cache)

    def _generate(self, adapter: Path | None, group: WorldSplit, out: Path) -> None:
        sampling = self.settings.sampling
        config = GenerateConfig(
            model=self.settings.model,
            prompts=self.data(group),
            limit=self.settings.prompts // len(GROUPS[self.split]),
            out=out,
            adapter=adapter,
            seed=sampling.seed,
            steps=sampling.steps,
            guidance=sampling.guidance,
            batch=sampling.batch,
            precision=self.settings.training["precision"],
        )
        generate(config, self.backbone)

    def _evaluate(self, group: WorldSplit, videos: Path, out: Path, *, references: bool) -> None:
        config = EvaluateConfig(
            videos=videos,
            prompts=self.data(group),
            out=out,
            nulls=references,
            model=self.settings.model if references else None,
        )
        evaluate(config, self.backbone)


@contextmanager
def _clock(folder: Path, stage: Stage) -> Generator[None]:
    """Add the time within to what earlier sittings spent on the stage."""
    wall, cpu = time.monotonic(), time.process_time()
    try:
        yield
    finally:
        file = folder / SPENT
        known = read_json(file) if file.exists() else {}
        before = Spent(**known.get(stage, {}))
        after = Spent(
            seconds=round(before.seconds + time.monotonic() - wall, 1),
            cpu_seconds=round(before.cpu_seconds + time.process_time() - cpu, 1),
        )
        write_json(file, {**known, stage: after.model_dump()})


def _measured(run: RunFolder) -> tuple[dict[str, float], dict[str, float]]:
    """Held-out AAS at the end, and losses over the last tenth of the updates."""
    lines = run.metrics()
    prefix = "heldout_aas/"
    scored = [line for line in lines if any(key.startswith(prefix) for key in line)]
    last = scored[-1] if scored else {}
    aas = {k.removeprefix(prefix): round(v, 4) for k, v in last.items() if k.startswith(prefix)}
    updates = [line for line in lines if "diffusion" in line]
    tail = updates[-max(1, len(updates) // 10) :]
    losses: dict[str, float] = {}
    for term in ("diffusion", "sga", "spa"):
        values = [line[term] for line in tail if term in line]
        if values:
            losses[term] = round(sum(values) / len(values), 5)
    return aas, losses


def _counts(adapter: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for file in sorted(adapter.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            shapes = [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118
        name = "lora" if file.name == LORA_FILE else file.stem
        found[name] = sum(int(torch.Size(shape).numel()) for shape in shapes)
    return found


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    threads = torch.get_num_threads()
    return f"{names[0] if names else 'CPU'}, {threads} thread{'s' if threads > 1 else ''}"


def _commit() -> str | None:
    """Of the code as it is now, which is what this process runs; "-dirty" where it was changed."""
    root = Path(__file__).parents[2]
    git = ["git", "-C", str(root)]
    changed = [*git, "status", "--porcelain", "--", "src", "experiments/ablation/*.py"]
    head, dirty = (
        subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        for command in ([*git, "rev-parse", "--short=12", "HEAD"], changed)
    )
    return f"{head}-dirty" if head and dirty else head or None


def commit(file: Path) -> None:
    """Commit this one file. `MatrixError` with git's own words where it does not."""
    where = ["git", "-C", str(file.parent)]
    for command in (
        [*where, "add", "--", file.name],
        [
            *where,
            "commit",
            "--quiet",
            "-m",
            f"Ablation: {file.parent.name} {file.stem}",
            "--",
            file.name,
        ],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise MatrixError(
                f"git did not commit the result ({(done.stderr or done.stdout).strip()})",
                remedy="The result is kept: commit it, or run again without --commit",
                file=file,
            )

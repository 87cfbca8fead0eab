"""The fine-tuning loop: what happens in an update, and between updates.

Shapes: B samples of one forward pass.

Processes are equal: each takes its share of every update's samples, gradients are averaged over
processes, and since losses are means per map, then per sample, then per batch, the split changes
nothing but rounding. Source: paper section 5; the loop's form is our choice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Final, cast

import torch
from torch import Tensor

from matrix_video.alignment.objectives import Term
from matrix_video.attention.tap import Captures
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.condition import Condition
from matrix_video.backbones.precision import autocast
from matrix_video.backbones.text import Text
from matrix_video.services.errors import MatrixError
from matrix_video.services.progress import progress
from matrix_video.services.run import RunFolder
from matrix_video.services.signals import stop_on_signals
from matrix_video.training.average import Average
from matrix_video.training.batches import Batch, Draw, EncodedSet, make_batch
from matrix_video.training.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from matrix_video.training.config import TrainConfig
from matrix_video.training.encode import Encoded, with_masks_of
from matrix_video.training.guards import Proof, Stillness
from matrix_video.training.parallel import Parallel, clip_gradients, whole
from matrix_video.training.schedule import Order, donors, rate_factor
from matrix_video.training.step import compute_losses, gradient_norms, not_finite
from matrix_video.training.student import Student, View
from matrix_video.training.tally import Tally, count_losses, means
from matrix_video.training.taps import Taps

Calls = Callable[[View], Captures]
"""The captures of a tap on a view's sites."""
Validate = Callable[[Calls], Mapping[str, float]]
"""Scores for ``metrics.jsonl``, taken before the first update, every K updates and at the end."""

Watch = Callable[[Backbone, Condition | None, int], Mapping[str, float]]
"""Looks at the student as it is after some updates, say at videos that it makes; what it returns
goes into ``metrics.jsonl``."""


GO_ON: Final = "run the same command to go on"


@dataclass(frozen=True)
class Outcome:
    """``step`` updates were made; ``stopped``: SIGTERM ended the run before the last one.

    ``weights`` are all trained weights, or their moving average, in full, by name.
    """

    step: int
    stopped: bool
    weights: Mapping[str, Tensor]


class Trainer:
    """A run: the student, its optimiser, its data, and the folder it is written to."""

    def __init__(
        self,
        student: Student,
        data: EncodedSet,
        empty: Text,
        config: TrainConfig,
        run: RunFolder | None,
        parallel: Parallel,
        watch: Watch | None = None,
        origin: str = "",
    ) -> None:
        """``run`` is None in all processes but the main one, which alone writes. ``empty`` is
        the empty caption; ``watch`` is called every ``config.sample_every`` updates; ``origin``
        changes with base and clips, and a checkpoint of another one is refused."""
        self.watch, self.origin = watch, origin
        self.data, self.empty = data, empty
        self.config, self.run, self.parallel = config, run, parallel
        transformer = student.backbone.transformer
        blocks = [transformer.get_submodule(n) for n in student.backbone.layer_names()]
        parallel.place(student.trainee(), blocks)
        self.student = student.current()
        self.share, self.micro = _shares(config, parallel.processes)
        clips = [data.clip(i) for i in range(len(data))]
        self.views = {clip: self.student.view(clip) for clip in dict.fromkeys(clips)}
        self.order = Order(clips, batch=config.batch, seed=config.seed)
        self.donors = donors(clips) if config.shuffle_masks else None
        self.draw = Draw(
            config.seed, config.id_map, config.id_drop, config.caption_dropout, config.roles
        )
        self.weights: dict[Term, float] = {"sga": config.sga, "spa": config.spa}
        layers = self.student.layers
        acting = (("sga", config.sga, layers.v2t), ("spa", config.spa, layers.v2v))
        self.proof = Proof(cast("Term", term) for term, weight, on in acting if weight and on)
        self.still = Stillness()
        self.acted = 0
        """Samples of this process at whose noise the terms act."""
        new_rate = config.lr if config.lr_new is None else config.lr_new
        rated = [(self.student.lora, config.lr), (self.student.new, new_rate)]
        groups = [{"params": list(p.values()), "lr": rate} for p, rate in rated if p]
        self.rates = [rate for p, rate in rated if p]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
        self.average = Average(self.student.parameters, config.ema) if config.ema else None

    def fit(self, validate: Validate) -> Outcome:
        """Train to ``config.steps``, on from the run folder's checkpoint if there is one.

        With a moving average it is the average that is scored and watched, as it is what is saved.

        Raises `MatrixError` for a loss that is not a number (after saving a checkpoint of the
        update before), for an alignment term that reaches no attention, and for a loss that stays
        as it is. CTRL-C saves a checkpoint and is a KeyboardInterrupt after the running update;
        a second one does not wait for it.
        """
        config = self.config
        start = self._resume()
        calls = Taps(self.student.backbone.transformer)
        with (
            ExitStack() as stack,
            stop_on_signals() as stop,
            progress("train", config.steps) as advance,
        ):
            stack.callback(calls.release)
            advance(start)
            if start == 0:
                self._log(0, {**self._scored(validate, calls), **self._watched(0, calls)})
            for step in range(start, config.steps):
                values = self.update(step, calls)
                done = step + 1
                last = done == config.steps
                scored = last or done % config.heldout_every == 0
                if scored:
                    values |= self._scored(validate, calls)
                shown = self._watched(done, calls)
                values |= shown
                if scored or shown or done % config.log_every == 0:
                    self._log(done, values)
                advance(1, _note(values))
                stopped = self.parallel.any(stop.asked)
                if last or stopped or done % config.checkpoint_every == 0:
                    self._save(done)
                if stopped and not last and stop.interrupted:
                    raise KeyboardInterrupt(f"{done} updates are saved; {GO_ON}")
                if stopped and not last:
                    return Outcome(done, True, self._final())
        return Outcome(config.steps, False, self._final())

    def update(self, step: int, calls: Calls) -> dict[str, float]:
        """One update (from 0).

        The values are those of `tally.count_losses`, means over the update's samples; the
        gradient's norm before clipping, and every `heldout_every` updates each term's own, of the
        first forward pass; the learning rate; seconds, and those spent on reading samples and on
        making batches of them (noise, the id map's latents, the way to the device).
        """
        began = time.monotonic()
        config, rank = self.config, self.parallel.index
        factor = rate_factor(step, warmup=config.warmup, steps=config.steps, decay=config.decay)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        chosen = self.order.update(step)[rank * self.share : (rank + 1) * self.share]
        parts = [chosen[i : i + self.micro] for i in range(0, len(chosen), self.micro)]
        tally, waited, made = Tally(), 0.0, 0.0
        problem: MatrixError | None = None
        for number, part in enumerate(parts, start=1):
            asked = time.monotonic()
            samples = [self._sample(index, epoch) for index, epoch in part]
            read = time.monotonic()
            batch = make_batch(
                self.student.backbone, samples, [epoch for _, epoch in part], self.empty, self.draw
            )
            waited, made = waited + read - asked, made + time.monotonic() - read
            view = self.views[samples[0].clip]
            captures = calls(view)
            found: list[MatrixError | None] = []
            work = partial(self._losses, batch, view, captures, step, tally, found)
            with self.parallel.accumulating(last=number == len(parts)):
                total = self.parallel.run(work)
                (total / len(parts)).backward()
            captures.clear()  # they hold the graph
            problem = problem or found[0]
        values = self._agreed(tally, problem, step)
        self.still.see(values)
        norm = clip_gradients(self.student.parameters.values(), config.clip_grad)
        if not norm < float("inf"):
            self._save(step)
            raise MatrixError(
                f"step {step + 1}: the gradient's norm is {norm:g}",
                remedy="lower --lr, or train with --precision no",
            )
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.student.parameters, step)
        rate = float(cast("float", self.optimizer.param_groups[0]["lr"]))
        spent = {
            "seconds": time.monotonic() - began,
            "data_seconds": waited,
            "batch_seconds": made,
        }
        return values | {"grad_norm": norm, "lr": rate} | spent

    def _sample(self, index: int, epoch: int) -> Encoded:
        sample = self.data[index]
        if self.donors is None:
            return sample
        others = self.donors[index]
        return with_masks_of(sample, self.data[others[epoch % len(others)]])

    def _losses(
        self,
        batch: Batch,
        view: View,
        calls: Captures,
        step: int,
        tally: Tally,
        found: list[MatrixError | None],
    ) -> Tensor:
        losses = compute_losses(self.student, view, batch, self.weights, calls, self.autocast)
        total = losses.total(self.weights)
        count_losses(tally, losses, view, batch, total)
        self.acted += int(losses.acting_B.sum())
        problem = not_finite(losses, batch, step + 1)
        if problem is None:
            try:
                self.proof.see(losses, calls)
            except MatrixError as error:
                problem = error
        # Where parameters are split the graph ends in their gathered copies.
        if (step + 1) % self.config.heldout_every == 0 and not found and not self.parallel.shard:
            parameters = [*self.student.parameters.values()]
            for name, norm in gradient_norms(losses, self.weights, parameters).items():
                tally.add(name, total.new_tensor([norm]))
        found.append(problem)
        return total

    def autocast(self) -> AbstractContextManager[object]:
        """The precision of the transformer's forward passes."""
        return autocast(self.parallel.accelerator.device, self.config.precision)

    def _agreed(self, tally: Tally, problem: MatrixError | None, step: int) -> dict[str, float]:
        """Means over all processes; an error of any of them is raised in all, with the weights as
        they were before this update in a checkpoint."""
        told = None if problem is None else (problem.problem, problem.remedy, problem.field)
        own = {
            "tally": tally.facts(),
            "problem": told,
            "open": set(self.proof.open),
            "acted": self.acted,
        }
        gathered = self.parallel.gathered(own)
        problems = [one["problem"] for one in gathered if one["problem"] is not None]
        if problems:
            self._save(step)
            what, remedy, field = problems[0]
            raise MatrixError(what, remedy=remedy, field=field)
        # What one process has shown is shown: another's share may have no map for long.
        self.proof.open = set[Term].intersection(*(one["open"] for one in gathered))
        self.proof.expect(sum(one["acted"] for one in gathered), len(self.data))
        return means(one["tally"] for one in gathered)

    def _scored(self, validate: Validate, calls: Calls) -> Mapping[str, float]:
        with self._as_saved():
            return validate(calls)

    def _as_saved(self) -> AbstractContextManager[None]:
        """The weights within are those that the adapter would be saved from."""
        return nullcontext() if self.average is None else self.average.lent(self.student.parameters)

    def _watched(self, step: int, calls: Taps) -> Mapping[str, float]:
        """What `watch` says of the student after ``step`` updates, if it is due."""
        every = self.config.sample_every
        due = every and (step % every == 0 or step == self.config.steps)
        if self.watch is None or not due:
            return {}
        calls.release()  # sampling makes forwards of its own
        shown: Mapping[str, float] = {}
        if self.run is not None:
            with self._as_saved():
                shown = self.watch(self.student.backbone, self.student.condition, step)
        self.parallel.wait()
        return shown

    def _resume(self) -> int:
        file = latest_checkpoint(self.config.out)
        step = 0
        if file is not None:
            average = None if self.average is None else self.average.values
            parameters = self.student.parameters
            step = load_checkpoint(file, parameters, self.optimizer, average, self.origin)
        self.parallel.wait()
        if self.run is not None:
            self.run.truncate_metrics(lambda row: row["step"] <= step and step > 0)
        return step

    def _save(self, step: int) -> None:
        average = None if self.average is None else self.average.values
        folder = None if self.run is None else self.run.path
        facts = {"config": self.config.model_dump_json(), "origin": self.origin}
        save_checkpoint(folder, step, self.student.parameters, self.optimizer, average, facts)
        self.parallel.wait()

    def _final(self) -> dict[str, Tensor]:
        values = self.student.parameters if self.average is None else self.average.values
        return {name: whole(value.detach()) for name, value in values.items()}

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        if self.run is not None and (values or step):
            self.run.log(step=step, **values)
        self.parallel.accelerator.log(dict(values), step=step)


def _note(values: Mapping[str, float]) -> str:
    """Losses, and the mean score of the maps, beside the progress."""
    shown = {name: values[name] for name in ("loss", "sga", "spa") if name in values}
    live = [value for name, value in values.items() if name.startswith("aas/")]
    if live:
        shown["aas"] = sum(live) / len(live)
    return "  ".join(f"{name} {value:.3g}" for name, value in shown.items())


def _shares(config: TrainConfig, processes: int) -> tuple[int, int]:
    """Samples per process and update, and per forward pass."""
    share, rest = divmod(config.batch, processes)
    micro = config.micro_batch or share
    if rest or share % micro:
        raise MatrixError(
            f"a batch of {config.batch} does not divide into {processes} processes with "
            f"{micro} samples per forward pass",
            remedy="choose --batch as a multiple of processes × --micro-batch",
            field="batch",
        )
    return share, micro

"""The fine-tuning loop: what happens in an update, and between updates.

Shapes: B samples of one forward pass.

Processes are equal: each takes its share of every update's samples, gradients are averaged over
processes, and since losses are means per map, then per sample, then per batch, the split changes
nothing but rounding. Source: paper section 5; the loop's form is our choice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from matrix_video.alignment.objectives import Term, require_gradient
from matrix_video.attention.tap import Captures, tap
from matrix_video.backbones.precision import autocast
from matrix_video.backbones.text import Text
from matrix_video.services.errors import MatrixError
from matrix_video.services.progress import progress
from matrix_video.services.run import RunFolder
from matrix_video.services.signals import stop_on_sigterm
from matrix_video.training.batches import Draw, EncodedSet, make_batch
from matrix_video.training.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from matrix_video.training.config import TrainConfig
from matrix_video.training.schedule import batch_indices, warmup_factor
from matrix_video.training.step import Losses, check_finite, compute_losses
from matrix_video.training.student import Student

Validate = Callable[[Captures], Mapping[str, float]]
"""Scores for ``metrics.jsonl``, taken before the first update, every K updates and at the end; the
captures are those of a tap on the student's sites."""

PATIENCE = 32
"""Samples after which an alignment term must have found a map."""


@dataclass(frozen=True)
class Outcome:
    """``step`` updates were made; ``stopped``: SIGTERM ended the run before the last one."""

    step: int
    stopped: bool


class Trainer:
    """A run: the student, its optimiser, its data, and the folder it is written to."""

    def __init__(
        self,
        student: Student,
        data: EncodedSet,
        empty: Text,
        config: TrainConfig,
        run: RunFolder | None,
        accelerator: Accelerator,
    ) -> None:
        """``run`` is None in all processes but the main one, which alone writes. ``empty`` is
        the empty caption."""
        self.student, self.data, self.empty = student, data, empty
        self.config, self.run, self.accelerator = config, run, accelerator
        self.share, self.micro = _shares(config, accelerator.num_processes)
        self.draw = Draw(config.seed, config.id_map, config.id_drop, config.caption_dropout)
        self.weights: dict[Term, float] = {"sga": config.sga, "spa": config.spa}
        self.unproven: set[Term] = set()
        if config.sga and student.v2t_sites:
            self.unproven.add("sga")
        if config.spa and student.v2v_sites:
            self.unproven.add("spa")
        new_rate = config.lr if config.lr_new is None else config.lr_new
        rated = [(student.lora, config.lr), (student.new, new_rate)]
        groups = [{"params": list(p.values()), "lr": rate} for p, rate in rated if p]
        self.rates = [rate for p, rate in rated if p]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)

    def fit(self, validate: Validate) -> Outcome:
        """Train to ``config.steps``, on from the run folder's checkpoint if there is one.

        Raises `MatrixError` for a loss that is not a number, and for an alignment term that reaches
        no attention.
        """
        config = self.config
        start = self._resume()
        with (
            tap(self.student.backbone.transformer, self.student.sites) as calls,
            stop_on_sigterm() as stop,
            progress("train", config.steps) as advance,
        ):
            advance(start)
            if start == 0:
                self._log(0, validate(calls))
            for step in range(start, config.steps):
                values = self.update(step, calls)
                done = step + 1
                last = done == config.steps
                scored = last or done % config.heldout_every == 0
                if scored:
                    values |= validate(calls)
                if scored or done % config.log_every == 0:
                    self._log(done, values)
                advance(1)
                stopped = self._any_process(stop.asked)
                if last or stopped or done % config.checkpoint_every == 0:
                    self._save(done)
                if stopped and not last:
                    return Outcome(done, stopped=True)
        return Outcome(config.steps, stopped=False)

    def update(self, step: int, calls: Captures) -> dict[str, float]:
        """One update (from 0); ``calls`` are captures of a tap on the student's sites.

        The values are means over the update's samples: loss, diffusion, sga, spa (terms that are
        on), regions that SPA skipped, the gradient's norm before clipping, learning rate, seconds.
        """
        began = time.monotonic()
        config, rank = self.config, self.accelerator.process_index
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * warmup_factor(step, config.warmup)
        self.optimizer.zero_grad(set_to_none=True)
        chosen = batch_indices(step, samples=len(self.data), batch=config.batch, seed=config.seed)[
            rank * self.share : (rank + 1) * self.share
        ]
        parts = [chosen[i : i + self.micro] for i in range(0, len(chosen), self.micro)]
        totals: dict[str, float] = {}
        for part in parts:
            losses = self._forward(part, step, calls)
            total = losses.total(self.weights)
            (total / len(parts)).backward()
            calls.clear()  # they hold the graph
            for name, value in _values(losses, total, len(part)).items():
                totals[name] = totals.get(name, 0.0) + value / len(parts)
        self._expect_maps(step)
        self._average_gradients()
        norm = nn.utils.clip_grad_norm_(self.student.parameters.values(), config.clip_grad)
        if not bool(torch.isfinite(norm)):
            raise MatrixError(
                f"step {step + 1}: the gradient's norm is {norm.item():g}",
                remedy="lower --lr, or train with --precision no",
            )
        self.optimizer.step()
        values = self._mean_over_processes(totals)
        rate = float(cast("float", self.optimizer.param_groups[0]["lr"]))
        values |= {"grad_norm": norm.item(), "lr": rate, "seconds": time.monotonic() - began}
        return values

    def _forward(self, part: list[tuple[int, int]], step: int, calls: Captures) -> Losses:
        samples, epochs = [self.data[i] for i, _ in part], [epoch for _, epoch in part]
        student = self.student
        batch = make_batch(student.backbone, samples, epochs, self.empty, self.draw)
        losses = compute_losses(student, batch, self.weights, calls, self.autocast)
        check_finite(losses, batch, step + 1)
        for term, alignment in losses.terms.items():
            if term in self.unproven and alignment.maps():
                require_gradient(alignment, calls)
                self.unproven.discard(term)
        return losses

    def autocast(self) -> AbstractContextManager[object]:
        """The precision of the transformer's forward passes."""
        return autocast(self.accelerator.device, self.config.precision)

    def _expect_maps(self, step: int) -> None:
        # One batch may do without (its captions dropped, its samples without interaction).
        seen = (step + 1) * self.share
        if self.unproven and seen >= min(len(self.data), PATIENCE):
            term = min(self.unproven)
            what = "a phrase with a mask" if term == "sga" else "an instance in its first frame"
            raise MatrixError(
                f"the {term.upper()} loss covers no token: none of the first {seen} samples has "
                f"{what}",
                remedy=f"look at the data set with `matrix check`, or train with --{term} 0",
                field=term,
            )

    def _average_gradients(self) -> None:
        if self.accelerator.num_processes == 1:
            return
        parameters = list(self.student.parameters.values())
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = torch.cat([grad.flatten() for grad in grads])
        mean = cast("Tensor", self.accelerator.reduce(flat, "mean"))
        pieces = mean.split([p.numel() for p in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.grad = piece.view_as(parameter).clone()

    def _mean_over_processes(self, values: dict[str, float]) -> dict[str, float]:
        if self.accelerator.num_processes == 1:
            return values
        flat = torch.tensor(list(values.values()), device=self.accelerator.device)
        mean = cast("Tensor", self.accelerator.reduce(flat, "mean"))
        return dict(zip(values, mean.tolist(), strict=True))

    def _any_process(self, flag: bool) -> bool:
        if self.accelerator.num_processes == 1:
            return flag
        raised = torch.tensor(float(flag), device=self.accelerator.device)
        return bool(cast("Tensor", self.accelerator.reduce(raised, "sum")) > 0)

    def _resume(self) -> int:
        file = latest_checkpoint(self.config.out)
        step = 0
        if file is not None:
            step = load_checkpoint(file, self.student.parameters, self.optimizer)
            self.unproven.clear()
        if self.run is not None:
            self.run.truncate_metrics(lambda row: row["step"] <= step and step > 0)
        return step

    def _save(self, step: int) -> None:
        if self.run is not None:
            save_checkpoint(self.run.path, step, self.student.parameters, self.optimizer)
        self.accelerator.wait_for_everyone()

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        if self.run is not None and (values or step):
            self.run.log(step=step, **values)


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


def _values(losses: Losses, total: Tensor, samples: int) -> dict[str, float]:
    values = {"loss": total.item(), "diffusion": losses.diffusion_B.mean().item()}
    for term, alignment in losses.terms.items():
        values[term] = alignment.total().item()
        if term == "spa":
            values["spa_skipped"] = alignment.skipped / samples
    return values

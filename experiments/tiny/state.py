"""Optimizers, moving average, log and checkpoint of a pretraining, in one small class.

Checkpoints are safetensors with the optimizers' moments beside the weights: no pickle. A killed run
resumes at its last checkpoint and draws the same batches from there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from matrix_video.backbones.tensors import save_tensors
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import atomic_path
from tiny.muon import Muon


class PretrainState:
    """Everything that changes while the named modules train under one loss."""

    def __init__(
        self,
        folder: Path,
        modules: Mapping[str, nn.Module],
        learning_rate: float,
        ema: float,
        *,
        muon: tuple[str, ...] = (),
        muon_rate: float = 0.0,
    ) -> None:
        """``muon``: weight matrices whose name holds one of these go to Muon, at ``muon_rate``."""
        self.folder = folder
        self.step = 0
        self._ema = ema
        self.parameters: dict[str, nn.Parameter] = {
            f"{name}.{key}": parameter
            for name, module in modules.items()
            for key, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        self.average: dict[str, Tensor] = {
            key: parameter.detach().clone() for key, parameter in self.parameters.items()
        }
        matrices = [
            p for key, p in self.parameters.items() if p.ndim >= 2 and any(m in key for m in muon)
        ]
        taken = {id(p) for p in matrices}
        others = [p for p in self.parameters.values() if id(p) not in taken]
        decayed = [p for p in others if p.ndim > 1]
        plain = [p for p in others if p.ndim <= 1]
        adam = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}],
            lr=learning_rate,
            betas=(0.9, 0.99),
            fused=True,
        )
        self.optimizers: list[tuple[torch.optim.Optimizer, float]] = [(adam, learning_rate)]
        if matrices:
            self.optimizers.append((Muon(matrices, muon_rate), muon_rate))
        self._clock = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)

    def update(self, loss: Tensor, rate: float) -> float:
        """One step at ``rate`` times the peak rates, then the moving average; the gradient norm."""
        if not torch.isfinite(loss):
            raise MatrixError(
                f"the loss is {loss.item()} at step {self.step}",
                remedy="lower the learning rate and start again from the last checkpoint",
                file=self.folder,
            )
        for optimizer, peak in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = peak * rate
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(list(self.parameters.values()), 1.0)
        for optimizer, _ in self.optimizers:
            optimizer.step()
        self.step += 1
        # A young average follows closely, so that early checkpoints are not the random start.
        decay = min(self._ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(  # pyright: ignore[reportPrivateUsage]
                list(self.average.values()), list(self.parameters.values()), 1 - decay
            )
        return float(norm)

    def log(self, **values: float) -> None:
        now = time.monotonic()
        line = {"step": self.step, "seconds": round(now - self._clock, 2), **values}
        self._clock = now
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)

    @contextmanager
    def averaged(self) -> Generator[None]:
        """Inside, the modules carry the averaged weights."""
        kept = {key: parameter.detach().clone() for key, parameter in self.parameters.items()}
        self.load_average()
        try:
            yield
        finally:
            self._put(kept)

    def load_average(self) -> None:
        self._put(self.average)

    def _put(self, values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for key, parameter in self.parameters.items():
                parameter.copy_(values[key])

    def save(self, config: Mapping[str, Any]) -> None:
        tensors = {f"weight/{k}": p.detach() for k, p in self.parameters.items()}
        tensors |= {f"average/{k}": v for k, v in self.average.items()}
        for key, parameter in self.parameters.items():
            for optimizer, _ in self.optimizers:
                for moment, value in optimizer.state.get(parameter, {}).items():
                    if moment != "step":
                        tensors[f"{moment}/{key}"] = value
        self._write(tensors, config, "checkpoint")

    def _write(self, tensors: dict[str, Tensor], config: Mapping[str, Any], name: str) -> Path:
        target = self.folder / f"{name}.safetensors"
        with atomic_path(target) as path:
            facts = {"step": str(self.step), "config": json.dumps(dict(config))}
            save_tensors(tensors, path, facts)
        return target

    def keep(self, config: Mapping[str, Any]) -> Path:
        """Write ``kept.safetensors``: the averaged weights in float16, from which `resume` begins
        where no checkpoint is left. Moments are not in it."""
        tensors = {f"average/{key}": value.half() for key, value in self.average.items()}
        return self._write(tensors, config, "kept")

    def resume(
        self, config: Mapping[str, Any], *, may_change: tuple[str, ...] = ("steps",)
    ) -> bool:
        """Continue from the checkpoint, or from kept weights; False when there is neither."""
        path = self.folder / "checkpoint.safetensors"
        kept = not path.exists()
        if kept:
            path = self.folder / "kept.safetensors"
        if not path.exists():
            return False
        with safe_open(str(path), framework="pt") as file:
            facts = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        stored = json.loads(facts["config"])
        for key, value in config.items():
            if key not in may_change and stored.get(key) != value:
                raise MatrixError(
                    f"the checkpoint was made with {key} = {stored.get(key)!r}, not {value!r}",
                    remedy="use the same settings, or another output folder",
                    file=path,
                    field=key,
                )
        for key, value in self.average.items():
            value.copy_(tensors[f"average/{key}"])
        self.step = int(facts["step"])
        if kept:
            self.load_average()
            return True
        self._put({key: tensors[f"weight/{key}"] for key in self.parameters})
        for optimizer, _ in self.optimizers:
            owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
            for key, parameter in self.parameters.items():
                if id(parameter) not in owned:
                    continue
                if isinstance(optimizer, Muon):
                    moments = {"momentum_buffer": tensors[f"momentum_buffer/{key}"]}
                else:
                    moments = {
                        "step": torch.tensor(float(self.step)),
                        "exp_avg": tensors[f"exp_avg/{key}"],
                        "exp_avg_sq": tensors[f"exp_avg_sq/{key}"],
                    }
                optimizer.state[parameter] = moments
        return True

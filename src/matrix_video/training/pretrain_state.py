"""Optimizer, moving average, log and checkpoint of a pretraining, in one small class.

Checkpoints are safetensors with the Adam moments beside the weights: no pickle. A killed run
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
from safetensors.torch import load_file
from torch import Tensor, nn

from matrix_video.backbones.tensors import save_tensors
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import atomic_path


class PretrainState:
    """Everything that changes while the named modules train under one loss."""

    def __init__(
        self, folder: Path, modules: Mapping[str, nn.Module], learning_rate: float, ema: float
    ) -> None:
        self.folder = folder
        self.step = 0
        self._ema = ema
        self._rate = learning_rate
        self.parameters: dict[str, nn.Parameter] = {
            f"{name}.{key}": parameter
            for name, module in modules.items()
            for key, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        self.average: dict[str, Tensor] = {
            key: parameter.detach().clone() for key, parameter in self.parameters.items()
        }
        decayed = [p for p in self.parameters.values() if p.ndim > 1]
        plain = [p for p in self.parameters.values() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}],
            lr=learning_rate,
            betas=(0.9, 0.99),
            fused=True,
        )
        self._clock = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)

    def update(self, loss: Tensor, rate: float) -> None:
        """One step of AdamW at ``rate`` times the peak learning rate, then the moving average."""
        if not torch.isfinite(loss):
            raise MatrixError(
                f"the loss is {loss.item()} at step {self.step}",
                remedy="lower the learning rate and start again from the last checkpoint",
                file=self.folder,
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate * rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(list(self.parameters.values()), 1.0)
        self.optimizer.step()
        self.step += 1
        # A young average follows closely, so that early checkpoints are not the random start.
        decay = min(self._ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(  # pyright: ignore[reportPrivateUsage]
                list(self.average.values()), list(self.parameters.values()), 1 - decay
            )

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
            moments = self.optimizer.state[parameter]
            tensors[f"exp_avg/{key}"] = moments["exp_avg"]
            tensors[f"exp_avg_sq/{key}"] = moments["exp_avg_sq"]
        with atomic_path(self.folder / "checkpoint.safetensors") as path:
            facts = {"step": str(self.step), "config": json.dumps(dict(config))}
            save_tensors(tensors, path, facts)

    def resume(
        self, config: Mapping[str, Any], *, may_change: tuple[str, ...] = ("steps",)
    ) -> bool:
        """Continue from the checkpoint, if there is one; False when there is none."""
        path = self.folder / "checkpoint.safetensors"
        if not path.exists():
            return False
        from safetensors import safe_open

        with safe_open(str(path), framework="pt") as file:
            facts = file.metadata()
        stored = json.loads(facts["config"])
        for key, value in config.items():
            if key not in may_change and stored.get(key) != value:
                raise MatrixError(
                    f"the checkpoint was made with {key} = {stored.get(key)!r}, not {value!r}",
                    remedy="use the same settings, or another output folder",
                    file=path,
                    field=key,
                )
        tensors = load_file(path)
        self._put({key: tensors[f"weight/{key}"] for key in self.parameters})
        self.step = int(facts["step"])
        for key, parameter in self.parameters.items():
            self.average[key].copy_(tensors[f"average/{key}"])
            self.optimizer.state[parameter] = {
                "step": torch.tensor(float(self.step)),
                "exp_avg": tensors[f"exp_avg/{key}"],
                "exp_avg_sq": tensors[f"exp_avg_sq/{key}"],
            }
        return True

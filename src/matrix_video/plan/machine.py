"""How fast a machine is: measured here, or peak numbers of its maker at an assumed utilisation."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import torch
import torch.nn.functional as F

from matrix_video.services.errors import MatrixError

Kind = Literal["matmul", "attention", "memory"]
GB: Final = 1e9


@dataclass(frozen=True)
class Work:
    """One operation: arithmetic, bytes read and written, and what it computes in."""

    kind: Kind
    flops: float
    bytes: int
    dtype: torch.dtype


@dataclass(frozen=True)
class Machine:
    """Rates in FLOP/s and bytes/s as they are reached, not as they are advertised."""

    name: str
    memory: int
    """Bytes."""
    rates: Mapping[tuple[Kind, torch.dtype], float]
    """Of matrix products and attention; other dtypes run as float32."""
    bandwidth: float
    gpu: bool
    assumption: str

    def seconds(self, work: Work) -> float:
        """An operation takes as long as its arithmetic or its traffic, whichever is slower."""
        if work.kind == "memory":
            return work.bytes / self.bandwidth
        rate = self.rates.get((work.kind, work.dtype), self.rates[work.kind, torch.float32])
        return max(work.flops / rate, work.bytes / self.bandwidth)


@dataclass(frozen=True)
class _Card:
    """Published dense peak rates: float32, bfloat16 (TFLOP/s), memory (GB/s), capacity (GB)."""

    float32: float
    bfloat16: float
    bandwidth: float
    memory: float


CARDS: Final[Mapping[str, _Card]] = {
    "h200": _Card(67, 989, 4800, 141),
    "h100": _Card(67, 989, 3350, 80),
    "a100": _Card(19.5, 312, 2039, 80),
    "l40s": _Card(91.6, 362, 864, 48),
    "rtx4090": _Card(82.6, 165, 1008, 24),
}
"""From NVIDIA's data sheets (SXM form of H100, H200 and A100 80 GB; without sparsity; float32 is
that of the ordinary units, since PyTorch's matrix products do not use TF32 unless asked to)."""
_BANDWIDTH_SHARE: Final = 0.7
"""Of the peak, that element-wise kernels reach; our assumption."""


def machine(device: str, *, utilisation: float, tflops: float | None) -> Machine:
    """The machine ``device``: "this" one, measured, or a card of the table.

    ``tflops`` replaces all rates of arithmetic, and nothing is measured or assumed about them.
    Raises `MatrixError` for a name that is not in the table.
    """
    if device == "this":
        found = _here(measure=tflops is None)
    elif device in CARDS:
        found = _from_card(device, CARDS[device], utilisation)
    else:
        raise MatrixError(
            f"nothing is known about a device {device!r}",
            remedy=f"use this, {', '.join(CARDS)}, or give --tflops and --memory-gb",
            field="device",
        )
    if tflops is None:
        return found
    rates = dict.fromkeys(found.rates, tflops * 1e12)
    told = f"{tflops:g} TFLOP/s as given, {found.bandwidth / GB:.0f} GB/s"
    return Machine(found.name, found.memory, rates, found.bandwidth, found.gpu, told)


def _from_card(name: str, card: _Card, utilisation: float) -> Machine:
    kinds: tuple[Kind, ...] = ("matmul", "attention")
    rates: dict[tuple[Kind, torch.dtype], float] = {}
    for kind in kinds:
        rates[kind, torch.float32] = card.float32 * 1e12 * utilisation
        rates[kind, torch.bfloat16] = card.bfloat16 * 1e12 * utilisation
    return Machine(
        name,
        int(card.memory * GB),
        rates,
        card.bandwidth * GB * _BANDWIDTH_SHARE,
        gpu=True,
        assumption=f"{utilisation:.0%} of its peak of {card.bfloat16:g} TFLOP/s in bfloat16 and "
        f"{card.float32:g} in float32, {_BANDWIDTH_SHARE:.0%} of {card.bandwidth:g} GB/s",
    )


def _here(*, measure: bool) -> Machine:
    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    if gpu:
        name, memory = torch.cuda.get_device_name(), torch.cuda.mem_get_info()[1]
    else:
        name = f"this machine ({torch.get_num_threads()} threads)"
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    side = 4096 if gpu else 256
    rates: dict[tuple[Kind, torch.dtype], float] = {}
    for dtype in (torch.float32, torch.bfloat16):
        rates["matmul", dtype] = _matmul_rate(device, dtype, side) if measure else 1.0
        rates["attention", dtype] = _attention_rate(device, dtype, side) if measure else 1.0
    bandwidth = _bandwidth(device)
    told = ", ".join(
        f"{kind} {rate / 1e12:.3g} TFLOP/s in {str(dtype).removeprefix('torch.')}"
        for (kind, dtype), rate in rates.items()
    )
    return Machine(
        name, memory, rates, bandwidth, gpu, f"measured just now: {told}, {bandwidth / GB:.3g} GB/s"
    )


def _matmul_rate(device: torch.device, dtype: torch.dtype, side: int) -> float:
    x = torch.randn(side, side, device=device).to(dtype)
    return 2 * side**3 / _best(lambda: x @ x, device)


def _attention_rate(device: torch.device, dtype: torch.dtype, tokens: int) -> float:
    x = torch.randn(1, 4, tokens, 64, device=device).to(dtype)
    flops = 4 * 4 * tokens**2 * 64
    return flops / _best(lambda: F.scaled_dot_product_attention(x, x, x), device)


def _bandwidth(device: torch.device) -> float:
    x = torch.zeros(1 << 24, device=device)
    return 2 * x.nbytes / _best(lambda: x + 1, device)


def _best(run: Callable[[], object], device: torch.device, rounds: int = 4) -> float:
    """Seconds of the fastest round after one that warms up."""
    taken: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return min(taken[1:])

"""What exact attention maps cost, beside the attention call that they are read from.

    python benchmarks/readout.py [--grids 5x16x16 13x16x20] [--heads 24] [--out FILE]

One attention call over 226 text + F·h·w video tokens, forward and backward, with a loss on its
output and, in all rows but ``plain``, on maps of two phrases (8 text columns) and of two regions
in the first frame. Rows of ``method``:

    plain      the attention call alone
    dense      softmax(q kᵀ) as an N × N tensor per head, output and maps from it
    portable   our engine for any kernel: indicator columns through attention, chosen rows in chunks
    fast       our engine on the call's own log-sum-exp
    official   what the released code of the paper's authors does: products of all first-frame
               queries with all keys, and of all queries with all text keys, for every head; no P

``regions`` says which part of frame 0 the two regions cover together. Rows are measured
interleaved, the median over rounds counts. ``peak_bytes`` is the largest sum of live allocations
that PyTorch's profiler saw, with q, k, v; ``rss_bytes`` is by how much the same call in a fresh
process raises its peak of resident memory (Linux). A method whose N × N tensors would not fit into
``--limit-gb`` has a row without figures.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from matrix_video.attention.observe import Engine, Observer
from matrix_video.attention.readout import v2t_maps, v2v_maps
from matrix_video.attention.site import Call, Site
from matrix_video.plan.measure import allocated

Method = Literal["plain", "dense", "portable", "fast", "official"]
METHODS: Final[tuple[Method, ...]] = ("plain", "dense", "portable", "fast", "official")
REGIONS: Final = {"two of a tenth": 0.1, "all of frame 0": 0.5}
TEXT: Final = 226
_COPIES: Final = 4
"""N × N tensors per head that dense attention holds at its peak: logits, P and their gradients."""


@dataclass(frozen=True)
class ReadoutBenchmark:
    """Measure the engines."""

    grids: tuple[str, ...] = ("5x16x16", "13x16x20")
    """Token grids, frames × rows × columns."""
    heads: int = 24
    """Attention heads."""
    size: int = 64
    """Channels of a head."""
    rounds: int = 15
    """Rounds; the median counts."""
    threads: int = 2
    """CPU threads."""
    limit_gb: float = 8.0
    """Memory that dense N × N tensors may take."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of q, k and v."""
    out: Path | None = None
    """JSON file for the result."""
    probe: tuple[str, str, str] | None = None
    """Internal: print the growth of this process's memory over one call (grid, method, regions)."""


@dataclass(frozen=True)
class Row:
    """One measurement; None where the method was left out."""

    tokens: int
    regions: str | None
    method: Method
    seconds: float | None
    peak_bytes: int | None
    rss_bytes: int | None
    note: str = ""


class Case:
    """q, k, v of one size, and the weights of phrases and regions."""

    def __init__(self, config: ReadoutBenchmark, grid: str) -> None:
        frames, rows, columns = map(int, grid.split("x"))
        self.video, self.frame = frames * rows * columns, rows * columns
        self.tokens = TEXT + self.video
        shape = (1, config.heads, self.tokens, config.size)
        generator = torch.Generator().manual_seed(0)
        kind = getattr(torch, config.dtype)
        q, k, v, cotangent = (torch.randn(shape, generator=generator).to(kind) for _ in range(4))
        self.q, self.k, self.v = (x.requires_grad_() for x in (q, k, v))
        self.cotangent = cotangent
        self.site = Site(
            module="attention",
            num_queries=self.tokens,
            num_keys=self.tokens,
            video_start=TEXT,
            num_video=self.video,
            num_text=TEXT,
        )
        self.phrases = torch.zeros(1, 2, TEXT)
        self.phrases[0, 0, 2:6] = self.phrases[0, 1, 8:12] = 1 / 4

    def region_weights(self, share: float) -> Tensor:
        """Two regions side by side, each of this share of frame 0."""
        count = round(self.frame * share)
        weights = torch.zeros(1, 2, self.video)
        weights[0, 0, :count] = weights[0, 1, count : 2 * count] = 1 / count
        return weights


def _attention(case: Case) -> Tensor:
    return F.scaled_dot_product_attention(case.q, case.k, case.v)


def _finish(case: Case, out: Tensor, *maps: Tensor) -> None:
    loss = (out * case.cotangent).sum() + sum(m.float().square().sum() for m in maps)
    loss.backward()


def _plain(case: Case, regions: Tensor) -> None:
    del regions
    _finish(case, _attention(case))


def _dense(case: Case, regions: Tensor) -> None:
    p = ((case.q * case.q.shape[-1] ** -0.5) @ case.k.transpose(-1, -2)).softmax(dim=-1)
    video = case.site.video
    v2t = (p[:, :, video, case.site.text] @ case.phrases.transpose(1, 2).to(p)).mean(dim=1)
    v2v = (regions[:, None].to(p) @ p[:, :, video, video]).mean(dim=1)
    _finish(case, p @ case.v, v2t, v2v)


def _ours(engine: Engine) -> Callable[[Case, Tensor], None]:
    def run(case: Case, regions: Tensor) -> None:
        with Observer("attention", {0}, keep_output=False, engine=engine) as observer:
            out = _attention(case)
        call: Call = observer.found[0]
        maps = v2t_maps(call, case.site, case.phrases), v2v_maps(call, case.site, regions)
        _finish(case, out, *maps)

    return run


def _official(case: Case, regions: Tensor) -> None:
    scale = case.q.shape[-1] ** -0.5
    q, k = case.q[:, :, case.site.video], case.k[:, :, case.site.video]
    text = (q @ case.k[:, :, case.site.text].transpose(-1, -2)) * scale
    rows = (q[:, :, : case.frame] @ k.transpose(-1, -2)) * scale
    v2t = case.phrases.to(text) @ text.mean(dim=1).transpose(-1, -2)
    v2v = regions[..., : case.frame].to(rows) @ rows.mean(dim=1)
    _finish(case, _attention(case), v2t, v2v)


RUN: Final[dict[Method, Callable[[Case, Tensor], None]]] = {
    "plain": _plain,
    "dense": _dense,
    "portable": _ours("portable"),
    "fast": _ours("fast"),
    "official": _official,
}


def _once(case: Case, method: Method, regions: Tensor) -> float:
    case.q.grad = case.k.grad = case.v.grad = None
    start = time.perf_counter()
    RUN[method](case, regions)
    return time.perf_counter() - start


def _peak(case: Case, method: Method, regions: Tensor) -> int:
    """Largest sum of live allocations, inputs included."""
    case.q.grad = case.k.grad = case.v.grad = None
    peak = allocated(lambda: RUN[method](case, regions), case.q.device)
    inputs = (case.q, case.k, case.v, case.cotangent)
    return peak + sum(x.nbytes for x in inputs)


def _rss(config: ReadoutBenchmark, grid: str, method: Method, regions: str) -> int:
    command = [sys.executable, __file__, "--probe", grid, method, regions]
    for name in ("heads", "size", "threads", "dtype"):
        command += [f"--{name}", str(getattr(config, name))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def _probe(config: ReadoutBenchmark, grid: str, method: Method, regions: str) -> None:
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of starting up
    before = _resident_peak()
    case = Case(config, grid)
    RUN[method](case, case.region_weights(REGIONS[regions]))
    print(_resident_peak() - before)


def _resident_peak() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def measure(config: ReadoutBenchmark, grid: str) -> list[Row]:
    """All rows of one size."""
    case = Case(config, grid)
    todo: list[tuple[Method, str]] = [("plain", next(iter(REGIONS)))]
    rows: list[Row] = []
    for method in METHODS[1:]:
        bytes_dense = _COPIES * config.heads * case.tokens**2 * case.q.element_size()
        if method == "dense" and bytes_dense > config.limit_gb * 1e9:
            note = f"left out: about {bytes_dense / 1e9:.0f} GB"
            rows.append(Row(case.tokens, None, method, None, None, None, note))
            continue
        todo += [(method, name) for name in REGIONS]
    weights = {name: case.region_weights(share) for name, share in REGIONS.items()}
    seconds: dict[tuple[Method, str], list[float]] = {each: [] for each in todo}
    for turn in range(config.rounds + 1):
        for method, name in todo:
            taken = _once(case, method, weights[name])
            if turn:  # the first warms up
                seconds[method, name].append(taken)
    for method, name in todo:
        rows.append(
            Row(
                case.tokens,
                None if method == "plain" else name,
                method,
                statistics.median(seconds[method, name]),
                _peak(case, method, weights[name]),
                _rss(config, grid, method, name),
            )
        )
    return rows


def _over_plain(rows: list[Row], row: Row) -> dict[str, float]:
    plain = next(r for r in rows if r.method == "plain" and r.tokens == row.tokens)
    if row.seconds is None or row.peak_bytes is None or row.rss_bytes is None:
        return {}
    assert plain.seconds is not None
    assert plain.peak_bytes is not None
    return {
        "seconds_over_plain": row.seconds / plain.seconds,
        "peak_over_plain": row.peak_bytes / plain.peak_bytes,
    }


def main(config: ReadoutBenchmark) -> None:
    torch.set_num_threads(config.threads)
    if config.probe is not None:
        grid, method, regions = config.probe
        _probe(config, grid, next(m for m in METHODS if m == method), regions)
        return
    rows: list[Row] = []
    for grid in config.grids:
        rows += measure(config, grid)
    result = {
        "benchmark": "readout",
        "heads": config.heads,
        "size": config.size,
        "dtype": config.dtype,
        "text": TEXT,
        "rounds": config.rounds,
        "threads": config.threads,
        "rows": [{**asdict(row), **_over_plain(rows, row)} for row in rows],
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "matrix-video")},
    }
    text = json.dumps(result, indent=2)
    print(text)
    if config.out is not None:
        config.out.write_text(text + "\n")


if __name__ == "__main__":
    main(tyro.cli(ReadoutBenchmark))

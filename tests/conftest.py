"""Settings of every test: one thread, no network, hypothesis that repeats itself in CI, and with
``MATRIX_PRECISION=bf16`` or ``fp32`` a CPU that computes in bfloat16 by itself, or does not, which
decides what ``--precision auto`` is; and the dense float64 reference that attention maps are
compared with.

Shapes: B batch, A heads, Nq queries, Nk keys, N video tokens, R rows of weights, D head size.
"""

import math
import os
import signal
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

# Before torch is imported: with other work on the cores, two threads are far slower than one.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402
from torch import Tensor  # noqa: E402

from matrix_video.attention.site import Call, Site  # noqa: E402

torch.set_num_threads(1)
# A shell's background jobs ignore it from birth, and tests interrupt themselves.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

_CAPABILITIES = {"bf16": {"avx512_bf16": True}, "fp32": dict[str, bool]()}


@pytest.fixture(scope="session", autouse=True)
def _precision() -> Generator[None]:
    asked = os.environ.get("MATRIX_PRECISION")
    if asked is not None and asked not in _CAPABILITIES:
        pytest.exit(f"MATRIX_PRECISION is {asked!r}, not one of {', '.join(_CAPABILITIES)}", 2)
    with pytest.MonkeyPatch.context() as patch:
        if asked is not None:
            patch.setattr(torch.cpu, "get_capabilities", lambda: _CAPABILITIES[asked])
        yield


def image_variant(variants: Sequence[str]) -> str:
    """Of a family's, one that takes a first frame, and so an id map, where there is any."""
    return next((name for name in variants if "i2v" in name), variants[0])


def dense_p(call: Call) -> Tensor:
    """P [B,A,Nq,Nk] in float64, by the definition."""
    q, k = call.q.double(), call.k.double()
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    scale = 1 / math.sqrt(q.shape[-1]) if call.scale is None else call.scale
    logits = torch.einsum("band,bamd->banm", q, k) * scale
    if call.is_causal:
        rows, columns = logits.shape[-2:]
        later = torch.arange(columns)[None] > torch.arange(rows)[:, None]
        logits = logits.masked_fill(later, -math.inf)
    if call.mask is not None:
        if call.mask.dtype == torch.bool:
            logits = logits.masked_fill(~call.mask, -math.inf)
        else:
            logits = logits + call.mask.double()
    top = logits.amax(-1, keepdim=True).clamp_min(-1e300)
    exp = (logits - top).exp()
    return exp / exp.sum(-1, keepdim=True).clamp_min(1e-300)


def dense_v2t(call: Call, site: Site, weights_BRL: Tensor) -> Tensor:
    p_BANL = dense_p(call)[:, :, site.video, site.text]
    return torch.einsum("brl,banl->barn", weights_BRL.double(), p_BANL)


def dense_v2v(call: Call, site: Site, weights_BRN: Tensor) -> Tensor:
    p_BAMN = dense_p(call)[:, :, site.video, site.video]
    return torch.einsum("brm,bamn->barn", weights_BRN.double(), p_BAMN)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """max|Δ| / max|expected|; the plain maximum where nothing is expected."""
    assert found.shape == expected.shape
    found, expected = found.detach(), expected.detach()
    top = float(expected.abs().max())
    return float((found.double() - expected.double()).abs().max()) / (top or 1.0)


@dataclass(frozen=True)
class Dense:
    p: Callable[[Call], Tensor]
    v2t: Callable[[Call, Site, Tensor], Tensor]
    v2v: Callable[[Call, Site, Tensor], Tensor]
    error: Callable[[Tensor, Tensor], float]


@pytest.fixture(scope="session")
def dense() -> Dense:
    return Dense(dense_p, dense_v2t, dense_v2v, relative_error)

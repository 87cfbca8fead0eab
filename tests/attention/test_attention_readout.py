"""Maps against a dense float64 softmax: forward, gradients, masks, grouped heads, memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from matrix_video.attention.observe import Observer
from matrix_video.attention.readout import v2t_maps, v2v_maps
from matrix_video.attention.site import Call, Site
from matrix_video.services.errors import MatrixError

MaskKind = Literal["none", "keys", "dense", "additive", "causal"]
LIMITS = {torch.float64: 1e-10, torch.float32: 1e-5}
Attended = tuple[Call, Tensor, Tensor]


@dataclass(frozen=True)
class Case:
    seed: int
    dtype: torch.dtype
    batch: int
    heads: int
    key_heads: int
    size: int
    prefix: int
    text: int
    video: int
    suffix: int
    regions: int
    mask: MaskKind
    scale: float | None
    chunk: int
    per_head: bool
    text_first: bool


@st.composite
def cases(draw: st.DrawFn) -> Case:
    heads = draw(st.sampled_from([1, 2, 4]))
    return Case(
        seed=draw(st.integers(0, 10_000)),
        dtype=draw(st.sampled_from([torch.float64, torch.float32])),
        batch=draw(st.integers(1, 3)),
        heads=heads,
        key_heads=draw(st.sampled_from([h for h in (1, 2, 4) if heads % h == 0])),
        size=draw(st.sampled_from([4, 8, 16])),
        prefix=draw(st.integers(0, 2)),
        text=draw(st.integers(1, 6)),
        video=draw(st.integers(1, 20)),
        suffix=draw(st.integers(0, 2)),
        regions=draw(st.integers(1, 20)),  # more than the head size: several calls
        mask=draw(st.sampled_from(["none", "keys", "dense", "additive", "causal"])),
        scale=draw(st.sampled_from([None, 0.1, 0.4])),
        chunk=draw(st.sampled_from([1, 3, 7, 1024])),
        per_head=draw(st.booleans()),
        text_first=draw(st.booleans()),
    )


def build(case: Case) -> tuple[Call, Site, Tensor, Tensor]:
    """Call, site, and weights over text tokens and over video tokens with some rows of zeros."""
    g = torch.Generator().manual_seed(case.seed)
    length = case.prefix + case.text + case.video + case.suffix
    if case.text_first:
        text_start, video_start = case.prefix, case.prefix + case.text
    else:
        video_start, text_start = case.prefix, case.prefix + case.video

    def tensor(heads: int) -> Tensor:
        shape = (case.batch, heads, length, case.size)
        return torch.randn(shape, generator=g, dtype=case.dtype).requires_grad_()

    mask: Tensor | None = None
    if case.mask == "keys":
        mask = torch.rand(case.batch, 1, 1, length, generator=g) > 0.3
        mask[..., video_start] = True
    elif case.mask == "dense":
        mask = torch.rand(length, length, generator=g) > 0.5
        mask[video_start] = False  # a row that may see nothing gives zeros
    elif case.mask == "additive":
        mask = torch.randn(case.batch, case.heads, 1, length, generator=g, dtype=case.dtype)
        mask = torch.where(mask > 1, -1e4, mask)
    call = Call(
        q=tensor(case.heads),
        k=tensor(case.key_heads),
        mask=mask,
        is_causal=case.mask == "causal",
        scale=case.scale,
        enable_gqa=case.key_heads != case.heads,
    )
    site = Site(
        module="attn",
        num_queries=length,
        num_keys=length,
        video_start=video_start,
        num_video=case.video,
        text_start=text_start,
        num_text=case.text,
    )

    def weights(tokens: int) -> Tensor:
        w = torch.rand(case.batch, case.regions, tokens, generator=g)
        w = w * (torch.rand(case.batch, case.regions, tokens, generator=g) > 0.6)
        return w / w.sum(-1, keepdim=True).clamp_min(1e-9)

    return call, site, weights(case.text), weights(case.video)


def attended(call: Call, seed: int) -> Attended:
    """The call as the tap's fast engine makes it, with its values and its output."""
    g = torch.Generator().manual_seed(seed + 1)
    v = torch.randn(call.k.shape, generator=g, dtype=call.k.dtype).requires_grad_()
    with Observer("attn", {0}, keep_output=False, engine="fast") as observer:
        out = F.scaled_dot_product_attention(
            call.q,
            call.k,
            v,
            attn_mask=call.mask,
            is_causal=call.is_causal,
            scale=call.scale,
            enable_gqa=call.enable_gqa,
        )
    return observer.found[0], v, out


def gradients(maps: Tensor, call: Call, seed: int) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    cotangent = torch.randn(maps.shape, generator=g, dtype=torch.float64)
    return torch.autograd.grad((maps.double() * cotangent).sum(), (call.q, call.k))


@settings(max_examples=60)
@given(case=cases(), kind=st.sampled_from(["v2t", "v2v"]))
def test_maps_and_gradients_equal_dense_softmax(dense: Any, case: Case, kind: str) -> None:
    call, site, text_w, video_w = build(case)
    if kind == "v2t":
        found = v2t_maps(call, site, text_w, per_head=case.per_head)
        expected = dense.v2t(call, site, text_w)
    else:
        found = v2v_maps(call, site, video_w, per_head=case.per_head, chunk=case.chunk)
        expected = dense.v2v(call, site, video_w)
    if not case.per_head:
        expected = expected.mean(dim=1)
    limit = LIMITS[case.dtype]
    assert found.dtype == case.dtype
    assert dense.error(found, expected) <= limit
    pairs = zip(
        gradients(found, call, case.seed), gradients(expected, call, case.seed), strict=True
    )
    for mine, reference in pairs:
        # A saturated softmax or one over few keys makes gradients cancel: differences of terms as
        # large as the maps, whose rounding stays. A tenth of a map is then the measure.
        top = max(float(reference.abs().max()), float(expected.detach().abs().max()) / 10, limit)
        assert float((mine.double() - reference.double()).abs().max()) <= limit * top


@settings(max_examples=80)
@given(case=cases(), kinds=st.sampled_from([("v2t",), ("v2v",), ("v2t", "v2v")]))
def test_the_fast_engine_equals_dense_softmax(
    dense: Any, case: Case, kinds: tuple[str, ...]
) -> None:
    """Maps, and gradients of losses on several maps and on the output at once."""
    plain, site, text_w, video_w = build(case)
    call, v, out = attended(plain, case.seed)
    assert torch.equal(out, F.scaled_dot_product_attention(
        plain.q, plain.k, v, plain.mask, is_causal=plain.is_causal, scale=plain.scale,
        enable_gqa=plain.enable_gqa,
    ))  # fmt: skip
    p = dense.p(plain)
    values = v.double().repeat_interleave(case.heads // case.key_heads, dim=1)
    found, expected = [out], [p @ values]
    for kind in kinds:
        if kind == "v2t":
            found.append(v2t_maps(call, site, text_w, per_head=case.per_head))
            expected.append(dense.v2t(plain, site, text_w))
        else:
            found.append(v2v_maps(call, site, video_w, per_head=case.per_head))
            expected.append(dense.v2v(plain, site, video_w))
        if not case.per_head:
            expected[-1] = expected[-1].mean(dim=1)
    limit = LIMITS[case.dtype]
    g = torch.Generator().manual_seed(case.seed + 2)
    weights = [torch.randn(x.shape, generator=g, dtype=torch.float64) for x in found]
    weights[0][:, :, ::2] = 0  # rows of the output without a gradient of their own
    sums: list[list[Tensor]] = []
    for maps in (found, expected):
        loss = sum((m.double() * w).sum() for m, w in zip(maps, weights, strict=True))
        sums.append([*torch.autograd.grad(loss, (plain.q, plain.k, v))])
    for mine, reference in zip(found[1:], expected[1:], strict=True):
        assert dense.error(mine, reference) <= limit
    for mine, reference in zip(*sums, strict=True):
        top = max(float(reference.abs().max()), 0.1)  # as above: cancelling terms round
        assert float((mine.double() - reference.double()).abs().max()) <= limit * top


@settings(max_examples=20)
@given(case=cases(), kind=st.sampled_from(["v2t", "v2v"]))
def test_logits_are_mean_scaled_products(dense: Any, case: Case, kind: str) -> None:
    call, site, text_w, video_w = build(case)
    q = call.q.double()
    k = call.k.double().repeat_interleave(case.heads // case.key_heads, dim=1)
    scale = case.size**-0.5 if case.scale is None else case.scale
    products = torch.einsum("band,bamd->banm", q, k)[:, :, site.video] * scale
    if kind == "v2t":
        found = v2t_maps(call, site, text_w, per_head=case.per_head, mode="logits")
        expected = torch.einsum("brl,banl->barn", text_w.double(), products[..., site.text])
    else:
        found = v2v_maps(call, site, video_w, per_head=case.per_head, mode="logits")
        expected = torch.einsum("brm,bamn->barn", video_w.double(), products[..., site.video])
    if not case.per_head:
        expected = expected.mean(dim=1)
    top = max(float(expected.detach().abs().max()), 1.0)
    worst = float((found.detach().double() - expected.detach()).abs().max())
    assert worst <= LIMITS[case.dtype] * top


def small(mask: MaskKind = "none", **changes: Any) -> tuple[Call, Site, Tensor, Tensor]:
    case = Case(
        seed=1,
        dtype=torch.float64,
        batch=2,
        heads=2,
        key_heads=2,
        size=4,
        prefix=1,
        text=2,
        video=5,
        suffix=1,
        regions=2,
        mask=mask,
        scale=None,
        chunk=3,
        per_head=False,
        text_first=True,
    )
    return build(replace(case, **changes))


@pytest.mark.parametrize("mask", ["none", "keys", "additive", "causal"])
def test_gradcheck(mask: MaskKind) -> None:
    call, site, text_w, video_w = small(mask)

    def v2t(q: Tensor, k: Tensor) -> Tensor:
        return v2t_maps(replace(call, q=q, k=k), site, text_w)

    def v2v(q: Tensor, k: Tensor) -> Tensor:
        return v2v_maps(replace(call, q=q, k=k), site, video_w, chunk=3)

    assert torch.autograd.gradcheck(v2t, (call.q, call.k))
    assert torch.autograd.gradcheck(v2v, (call.q, call.k))


@pytest.mark.parametrize("mask", ["none", "keys", "additive", "causal"])
@pytest.mark.parametrize("output", [False, True])
def test_gradcheck_of_the_fast_engine(mask: MaskKind, output: bool) -> None:
    """With and without a use of the output: the log-sum-exp's gradient rides in its backward."""
    call, site, text_w, video_w = small(mask)

    def maps(q: Tensor, k: Tensor) -> tuple[Tensor, ...]:
        found, _, out = attended(replace(call, q=q, k=k), 0)
        several = v2t_maps(found, site, text_w), v2v_maps(found, site, video_w)
        return (*several, out) if output else several

    assert torch.autograd.gradcheck(maps, (call.q, call.k))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("logits", [1, 30])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-12, 1e-6, 1e6])
def test_output_gradients_of_any_size(
    dense: Any, dtype: torch.dtype, logits: float, scale: float
) -> None:
    """Rows in which the output has next to no gradient still carry that of the maps, also where a
    softmax is saturated; against float64 on the same rounded queries, keys and values."""
    case, site, text_w, video_w = small(dtype=torch.float32, video=30, size=8)
    q, k = ((x.detach() * logits**0.5).to(dtype).requires_grad_() for x in (case.q, case.k))
    plain = replace(case, q=q, k=k)
    call, v, out = attended(plain, 3)
    p = dense.p(plain)
    g = torch.Generator().manual_seed(4)
    on_out = torch.randn(out.shape, generator=g) * scale
    on_out[:, :, ::2] = 0
    on_text, on_video = (torch.randn(2, 2, 30, generator=g) for _ in range(2))

    def grads(out: Tensor, text: Tensor, video: Tensor) -> tuple[Tensor, ...]:
        loss = (out.double() * on_out).sum() + (text.double() * on_text).sum()
        return torch.autograd.grad(loss + (video.double() * on_video).sum(), (q, k, v))

    found = grads(out, v2t_maps(call, site, text_w), v2v_maps(call, site, video_w))
    text, video = dense.v2t(plain, site, text_w).mean(1), dense.v2v(plain, site, video_w).mean(1)
    expected = grads(p @ v.double(), text, video)
    limit = 3e-4 if dtype == torch.float32 else 5e-2
    for mine, reference in zip(found, expected, strict=True):
        top = max(float(reference.abs().max()), 0.1)  # as above: cancelling terms round
        assert float((mine.double() - reference.double()).abs().max()) <= limit * top


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("output", [False, True])
@pytest.mark.parametrize("power", [-15, -22, -26, -32])
def test_gradients_of_next_to_no_attention(
    dense: Any, dtype: torch.dtype, output: bool, power: int
) -> None:
    """A phrase of probability 10^power, in rows of which half have a gradient of the output."""
    case, site, _, _ = small(dtype=torch.float32, video=12, size=8, batch=1)
    q, k = (x.detach() * 0.1 for x in (case.q, case.k))
    q[..., 0] = 1  # and the text's keys lie so far the other way that P is what is wanted
    k[:, :, site.text, 0] = math.log(10.0) * power * 8**0.5
    plain = replace(case, q=q.to(dtype).requires_grad_(), k=k.to(dtype).requires_grad_())
    call, _, out = attended(plain, 3)
    on_out = torch.zeros(out.shape, dtype=torch.float64)
    on_out[:, :, ::2] = 10.0**power * output
    thirds = torch.full((1, 1, site.num_text), 1 / site.num_text)
    found, expected = v2t_maps(call, site, thirds), dense.v2t(plain, site, thirds).mean(1)
    assert 10.0 ** (power - 2) < expected.max() < 10.0 ** (power + 1)
    loss = found.double().sum() + (out.double() * on_out).sum()
    grads = torch.autograd.grad(loss, (plain.q, plain.k))
    assert all(bool(x.isfinite().all()) and bool(x.any()) for x in grads)
    if not output:
        references = torch.autograd.grad(expected.sum(), (plain.q, plain.k))
        for mine, reference in zip(grads, references, strict=True):
            assert dense.error(mine, reference) <= (1e-4 if dtype == torch.float32 else 3e-2)


def test_a_second_backward_adds_nothing_of_the_first() -> None:
    plain, site, text_w, _ = small()
    call, _, out = attended(plain, 0)
    loss = v2t_maps(call, site, text_w).square().sum() + out.sum()
    first = torch.autograd.grad(loss, (plain.q, plain.k), retain_graph=True)
    again = torch.autograd.grad(loss, (plain.q, plain.k), retain_graph=True)
    alone = torch.autograd.grad(out.sum(), (plain.q, plain.k))
    plain_out = F.scaled_dot_product_attention(plain.q, plain.k, torch.zeros_like(plain.k))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], alone[0])
    assert plain_out.shape == out.shape


def test_where_the_fast_engine_cannot_run() -> None:
    q = torch.randn(1, 1, 4, 8)
    with Observer("blocks.3.attn1", {0}, keep_output=False, engine="auto") as observer:
        F.scaled_dot_product_attention(q, q, q[..., :4])  # values of another size: no flash kernel
    assert observer.found[0].flash is None
    for arguments in ({"value": q[..., :4]}, {"value": q, "dropout_p": 0.1}):
        observer = Observer("blocks.3.attn1", {0}, keep_output=False, engine="fast")
        problem = r"blocks\.3\.attn1: this attention call does not run through .*engine='auto'"
        with observer, pytest.raises(MatrixError, match=problem):
            F.scaled_dot_product_attention(q, q, **arguments)


def test_cross_attention_site(dense: Any) -> None:
    """Keys of other number than queries: V2T works, V2V is refused."""
    g = torch.Generator().manual_seed(0)
    q = torch.randn(2, 2, 30, 8, generator=g, dtype=torch.float64)
    k = torch.randn(2, 2, 7, 8, generator=g, dtype=torch.float64)
    site = Site(
        "attn2", 30, 7, video_start=0, num_video=30, text_start=2, num_text=5, video_keys=False
    )
    weights = torch.tensor([[[0.5, 0, 0.5, 0, 0]]]).expand(2, 1, 5)
    maps = v2t_maps(Call(q, k), site, weights)
    p = dense.p(Call(q, k))
    assert dense.error(maps[:, 0], (p[..., 2] + p[..., 4]).mean(1) / 2) < 1e-12
    with pytest.raises(ValueError, match="cross-attention"):
        v2v_maps(Call(q, k), site, torch.zeros(2, 1, 30))


def test_shape_mistakes_are_refused() -> None:
    call, site, text_w, video_w = small()
    with pytest.raises(ValueError, match=r"weights \(2, 2, 5\), expected \[2, R, 2\]"):
        v2t_maps(call, site, video_w)
    with pytest.raises(ValueError, match="weights"):
        v2v_maps(call, site, video_w[:1])
    with pytest.raises(ValueError, match="9 tokens, expected 10"):
        v2t_maps(call, replace(site, num_keys=10), text_w)
    with pytest.raises(ValueError, match="no text keys"):
        v2t_maps(call, replace(site, num_text=0), text_w)


def test_padding_rows_are_zero_and_keep_the_graph() -> None:
    call, site, text_w, video_w = small()
    for maps in (
        v2t_maps(call, site, torch.zeros_like(text_w)),
        v2v_maps(call, site, torch.zeros_like(video_w)),
    ):
        assert not maps.any()
        grads = torch.autograd.grad(maps.sum(), (call.q, call.k))
        assert not any(grad.any() for grad in grads)


def test_bfloat16_softmax_in_float32(dense: Any) -> None:
    """Both maps work in float32 on the rounded q and k."""
    call, site, _, video_w = small(video=40, text=6, size=16, dtype=torch.float32)
    call = replace(call, q=call.q.detach().bfloat16(), k=call.k.detach().bfloat16())
    maps = v2v_maps(call, site, video_w)
    assert maps.dtype == torch.float32
    assert dense.error(maps, dense.v2v(call, site, video_w).mean(1)) < 1e-5
    thirds = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]).expand(2, 2, 6) / 3
    maps = v2t_maps(call, site, thirds)
    assert maps.dtype == torch.float32
    assert dense.error(maps, dense.v2t(call, site, thirds).mean(1)) < 1e-5


def test_bfloat16_of_the_fast_engine(dense: Any) -> None:
    """Forward and backward against float64 on the same rounded q, k and v."""
    case, site, text_w, video_w = small(video=40, text=6, size=16, dtype=torch.float32)
    rounded = [x.detach().bfloat16().requires_grad_() for x in (case.q, case.k)]
    plain = replace(case, q=rounded[0], k=rounded[1])
    call, v, out = attended(plain, 3)
    assert out.dtype == torch.bfloat16
    p = dense.p(plain)
    found = v2t_maps(call, site, text_w), v2v_maps(call, site, video_w), out
    text, video = dense.v2t(plain, site, text_w).mean(1), dense.v2v(plain, site, video_w).mean(1)
    expected = text, video, p @ v.double()
    g = torch.Generator().manual_seed(4)
    weights = [torch.randn(x.shape, generator=g, dtype=torch.float64) for x in found]
    both = [
        torch.autograd.grad(
            sum((m.double() * w).sum() for m, w in zip(maps, weights, strict=True)), [*rounded, v]
        )
        for maps in (found, expected)
    ]
    for mine, reference in (*zip(found, expected, strict=True), *zip(*both, strict=True)):
        assert dense.error(mine, reference) <= 2e-2
    # Maps are made in float32; what is left is the kernel's own exponential in bfloat16 mode.
    assert dense.error(found[0], expected[0]) <= 1e-4


def test_autocast_outside_does_not_change_a_map(dense: Any) -> None:
    call, site, text_w, video_w = small(dtype=torch.float32)
    plain = v2t_maps(call, site, text_w), v2v_maps(call, site, video_w)
    with torch.autocast("cpu", torch.bfloat16):
        inside = v2t_maps(call, site, text_w), v2v_maps(call, site, video_w)
    for one, other in zip(plain, inside, strict=True):
        assert dense.error(other, one) < 1e-6  # in bfloat16 it would be 1e-3 and more


class Largest(TorchDispatchMode):
    """Number of elements of the largest tensor that any operation returns."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, Tensor):
                self.largest = max(self.largest, x.numel())
        return out


@pytest.mark.parametrize("mask", ["none", "keys"])
def test_no_tensor_grows_with_the_square_of_the_length(mask: MaskKind) -> None:
    call, site, text_w, video_w = small(
        mask, video=500, size=8, heads=4, key_heads=4, dtype=torch.float32, batch=1
    )
    keys = site.num_keys
    with Largest() as seen:
        maps = v2t_maps(call, site, text_w)
        torch.autograd.grad(maps.sum(), call.q)
    assert seen.largest <= 4 * keys * 8
    saved: dict[int, int] = {}  # elements by storage: chunks share theirs

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes() // 4
        return x

    with Largest() as seen, torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        maps = v2v_maps(call, site, video_w, chunk=16)
        torch.autograd.grad(maps.sum(), call.q)
    assert seen.largest <= max(16 * keys, 4 * keys * 8)
    assert sum(saved.values()) < keys * keys / 2

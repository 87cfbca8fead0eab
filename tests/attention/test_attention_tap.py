"""The tap: what it sees, what it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate.hooks import AlignDevicesHook, add_hook_to_module, remove_hook_from_module
from torch import Tensor, nn

from matrix_video.attention.site import Site
from matrix_video.attention.tap import Captures, tap
from matrix_video.services.errors import MatrixError

Make = Callable[..., Any]
X = torch.randn(2, 11, 16, generator=torch.Generator().manual_seed(3))


def state(model: nn.Module) -> list[tuple[str, type, list[str], int]]:
    """Everything a tap could leave in a module."""
    return [
        (name, type(m), sorted(vars(m)), len(m._forward_hooks) + len(m._forward_pre_hooks))
        for name, m in model.named_modules()
    ]


def test_outputs_are_bit_identical_and_nothing_is_left(make_model: Make, make_site: Make) -> None:
    model = make_model()
    before, keys, sdpa = state(model), list(model.state_dict()), F.scaled_dot_product_attention
    plain = model(X)
    with tap(model, {"a": make_site(0), "b": make_site(1)}, keep_output=True) as captures:
        assert list(model.state_dict()) == keys
        assert isinstance(model.blocks[0].attn, type(make_model().blocks[0].attn))
        tapped = model(X)
        assert torch.equal(tapped, plain)
    assert state(model) == before
    assert F.scaled_dot_product_attention is sdpa
    assert set(captures) == {"a", "b"}
    for call in captures.values():
        assert call.q.shape == call.k.shape == (2, 2, 11, 8)
        p = (call.q @ call.k.transpose(-1, -2) / 8**0.5).softmax(-1)
        assert torch.allclose(p @ call.v, call.out, atol=1e-6)
        assert call.mask is None
        assert not call.is_causal
    model.zero_grad()
    plain.sum().backward()
    grads = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    tapped.sum().backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(grads, model.parameters(), strict=True))


def test_output_and_values_are_kept_only_when_asked(make_model: Make, make_site: Make) -> None:
    model = make_model()
    with tap(model, {"a": make_site()}) as captures:
        model(X)
    assert captures["a"].v is None
    assert captures["a"].out is None


def test_no_sites_is_no_tap(make_model: Make) -> None:
    model = make_model()
    before = state(model)
    with tap(model, {}) as captures:
        assert state(model) == before
        model(X)
    assert len(captures) == 0


@pytest.mark.parametrize("where", ["model", "body"])
def test_restored_after_an_exception(make_model: Make, make_site: Make, where: str) -> None:
    model = make_model()
    before = state(model)
    model.fail = where == "model"
    with pytest.raises(ArithmeticError, match="planted"), tap(model, {"a": make_site()}) as found:
        model(X)
        raise ArithmeticError("planted")
    assert state(model) == before
    assert len(found) == (0 if where == "model" else 1)
    model.fail = False
    with tap(model, {"a": make_site()}) as captures:  # and usable again
        model(X)
    assert len(captures) == 1


def test_attention_elsewhere_is_not_captured(make_model: Make, make_site: Make) -> None:
    model = make_model()
    with tap(model, {"a": make_site(1)}) as captures:
        model.blocks[1].attn(X)  # not through the model
        assert len(captures) == 0
        F.scaled_dot_product_attention(X, X, X)
        model(X)
        assert captures["a"].q.shape == (2, 2, 11, 8)


def test_a_new_forward_and_clear_empty_the_captures(make_model: Make, make_site: Make) -> None:
    model = make_model()
    with tap(model, {"a": make_site()}) as captures:
        with pytest.raises(KeyError, match="no capture 'a'"):
            captures["a"]
        model(X)
        first = captures["a"]
        model(X + 1)
        assert captures["a"] is not first
        captures.clear()
        assert "a" not in captures


def test_two_names_and_two_calls_of_one_module(make_model: Make, make_site: Make) -> None:
    model = make_model(calls=2)
    sites = {
        "first": make_site(calls=2, call=0),
        "second": make_site(calls=2, call=1),
        "again": make_site(calls=2, call=1),
    }
    with tap(model, sites, keep_output=True) as captures:
        model(X)
    assert torch.equal(captures["second"].v, captures["first"].out)
    assert captures["again"].out is captures["second"].out


def test_keep_takes_part_of_the_batch(make_model: Make, make_site: Make) -> None:
    model = make_model()
    sites = {"all": make_site(), "second": make_site(keep=slice(1, None))}
    with tap(model, sites, keep_output=True) as captures:
        model(X)
    for name in ("q", "k", "v", "out"):
        whole, part = (getattr(captures[key], name) for key in ("all", "second"))
        assert torch.equal(whole[1:], part)


class MaskedModel(nn.Module):
    def __init__(self, mask: Tensor | None, **settings: Any) -> None:
        super().__init__()
        self.attn = Masked(mask, settings)

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        return self.attn(q, k)


class Masked(nn.Module):
    def __init__(self, mask: Tensor | None, settings: dict[str, Any]) -> None:
        super().__init__()
        self.mask, self.settings = mask, settings

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, k, self.mask, 0.0, **self.settings)


def test_arguments_are_recorded_however_passed() -> None:
    q, k = torch.randn(2, 4, 6, 8), torch.randn(2, 2, 6, 8)
    mask = torch.rand(2, 1, 1, 6) > 0.2
    site = Site("attn", 6, 6, video_start=1, num_video=5, keep=slice(1, 2))
    model = MaskedModel(mask, scale=0.25, enable_gqa=True)
    with tap(model, {"a": site}) as captures:
        model(q, k)
    call = captures["a"]
    assert call.mask is not None
    assert torch.equal(call.mask, mask[1:2])
    assert (call.scale, call.enable_gqa, call.is_causal) == (0.25, True, False)
    model = MaskedModel(None, is_causal=True)
    with tap(model, {"a": site}) as captures:
        model(k, k)
    assert captures["a"].is_causal
    shared = torch.rand(6, 6) > 0.2  # no batch axis: nothing to cut
    shared[:, 0] = True
    model = MaskedModel(shared)
    with tap(model, {"a": site}) as captures:
        model(k, k)
    assert captures["a"].mask is shared


def test_autocast_below_python_is_seen() -> None:
    """Norms may hand attention float32 under autocast; the kernel gets bfloat16 all the same."""
    q, k = torch.randn(2, 4, 6, 8), torch.randn(2, 4, 6, 8)
    mask = torch.randn(2, 1, 1, 6)
    model, site = MaskedModel(mask), Site("attn", 6, 6, video_start=1, num_video=5)
    with tap(model, {"a": site}, keep_output=True) as captures:
        with torch.autocast("cpu", torch.bfloat16):
            model(q, k)
        call = captures["a"]
        assert call.out.dtype == torch.bfloat16
        assert torch.equal(call.q, q.bfloat16())
        assert torch.equal(call.k, k.bfloat16())
        assert torch.equal(call.mask, mask.bfloat16())
        model(q.double(), k.double())
        assert captures["a"].q.dtype == torch.float64


# -- errors ------------------------------------------------------------------------------------


def test_unknown_module_lists_near_names(make_model: Make, make_site: Make) -> None:
    model = make_model()
    before = state(model)
    with (
        pytest.raises(MatrixError, match=r"blocks\.7\.attn: Model has no module.*blocks\.0\.attn"),
        tap(model, {"a": make_site(0), "b": make_site(7)}),
    ):
        pass
    assert state(model) == before


def test_replaced_forward_is_refused(make_model: Make, make_site: Make) -> None:
    model = make_model()
    attn = model.blocks[0].attn
    attn.forward = lambda x: x
    with (
        pytest.raises(MatrixError, match=r"forward of this module was replaced.*disable caches"),
        tap(model, {"a": make_site()}),
    ):
        pass


def test_forward_left_behind_by_a_removed_hook(make_model: Make, make_site: Make) -> None:
    """Libraries put the bound method of the class back: as good as none."""
    model = make_model()
    attn = model.blocks[0].attn
    attn.forward = attn.forward
    left = vars(attn)["forward"]
    with tap(model, {"a": make_site()}) as captures:
        model(X)
    assert len(captures) == 1
    assert vars(attn)["forward"] is left


def test_layer_that_did_not_run(make_model: Make, make_site: Make) -> None:
    model = make_model()
    with tap(model, {"a": make_site(0), "b": make_site(1)}) as captures:
        model.skip = {1}
        with pytest.raises(MatrixError, match=r"blocks\.1\.attn: .* ran 0 times .*native"):
            model(X)
        assert len(captures) == 0
        model.skip = set()
        model(X)
        assert len(captures) == 2


def test_another_number_of_calls(make_model: Make, make_site: Make) -> None:
    model = make_model(calls=2)
    with (
        tap(model, {"a": make_site()}),
        pytest.raises(MatrixError, match="2 calls of scaled_dot_product_attention, expected 1"),
    ):
        model(X)
    model = make_model(calls=0)  # as with a fused kernel of another library
    with (
        tap(model, {"a": make_site()}),
        pytest.raises(MatrixError, match=r"0 calls of .* expected 1.*attention backend 'native'"),
    ):
        model(X)


def test_other_lengths_than_declared(make_model: Make, make_site: Make) -> None:
    model = make_model()
    with (
        tap(model, {"a": make_site(video=9)}),
        pytest.raises(MatrixError, match=r"over 11 queries, expected 12.* max_sequence_length"),
    ):
        model(X)


def test_site_checks_itself(make_site: Make) -> None:
    with pytest.raises(ValueError, match="call 1 of 1"):
        make_site(call=1)
    with pytest.raises(ValueError, match="video tokens end at 11"):
        Site("a", 10, 20, video_start=3, num_video=8)
    with pytest.raises(ValueError, match="video keys end at 11"):
        Site("a", 11, 7, video_start=3, num_video=8)
    with pytest.raises(ValueError, match="text keys end past 11"):
        Site("a", 11, 11, video_start=3, num_video=8, text_start=9, num_text=3)


# -- gradients, checkpointing, copies ----------------------------------------------------------


def attention_loss(captures: Any) -> Tensor:
    return sum((c.q[:, :, :3] * c.k[:, :, 3:6]).tanh().sum() for c in captures.values())


@pytest.mark.parametrize("autocast", [False, True])
def test_recompute_neither_changes_gradients_nor_captures(
    make_model: Make, make_site: Make, autocast: bool
) -> None:
    grads: list[list[Tensor]] = []
    for reentrant in (None, False):
        model = make_model(layers=3)
        model.reentrant = reentrant
        sites = {"a": make_site(0), "c": make_site(2)}
        with tap(model, sites, require_grad=True) as captures:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                out = model(X)
            kept = dict(captures)
            assert kept["a"].q.dtype == (torch.bfloat16 if autocast else torch.float32)
            (out.float().square().mean() + attention_loss(captures)).backward()
            assert dict(captures) == kept  # the very same objects
        grads.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_backward_after_the_tap(make_model: Make, make_site: Make) -> None:
    model = make_model()
    model.reentrant = False
    with tap(model, {"a": make_site(1)}) as captures:
        model(X)
    attention_loss(captures).backward()
    assert model.blocks[0].attn.to_q.weight.grad.any()


def test_reentrant_checkpointing_is_refused_where_gradients_are_asked(
    make_model: Make, make_site: Make
) -> None:
    model = make_model()
    model.reentrant = True
    x = X.clone().requires_grad_()
    with tap(model, {"a": make_site()}, require_grad=True) as captures:
        with pytest.raises(MatrixError, match=r"carry no gradient.*use_reentrant=False"):
            model(x)
        with torch.no_grad():  # validation under the same tap
            model(x)
        assert len(captures) == 1
    with tap(model, {"a": make_site()}) as captures:  # reading alone is fine
        model(x)
    assert not captures["a"].q.requires_grad


def test_frozen_model_is_refused_where_gradients_are_asked(
    make_model: Make, make_site: Make
) -> None:
    model = make_model().requires_grad_(False)
    with (
        tap(model, {"a": make_site()}, require_grad=True),
        pytest.raises(MatrixError, match="train something in or before this layer"),
    ):
        model(X)


def test_copies_of_a_tapped_model_are_untapped(make_model: Make, make_site: Make) -> None:
    model = make_model()
    stock = type(model.blocks[0].attn)
    with tap(model, {"a": make_site()}) as captures:
        expected = model(X)
        kept = captures["a"]
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert type(twin.blocks[0].attn) is stock
            with torch.no_grad():
                twin.blocks[0].attn.to_q.weight.add_(1)
            assert not torch.equal(twin(X), expected)
            assert captures["a"] is kept
        assert torch.equal(model(X), expected)


def test_nested_taps_see_the_same(make_model: Make, make_site: Make) -> None:
    model = make_model()
    before = state(model)
    with tap(model, {"outer": make_site()}) as outer:
        model(X)
        kept = outer["outer"]
        with tap(model, {"inner": make_site()}) as inner:
            model(X)
            assert type(copy.deepcopy(model).blocks[0].attn) is type(make_model().blocks[0].attn)
        assert torch.equal(inner["inner"].q, kept.q)
        assert torch.equal(outer["outer"].q, kept.q)
    assert state(model) == before


def test_taps_that_end_out_of_order_are_an_error(make_model: Make, make_site: Make) -> None:
    model = make_model()
    first, second = tap(model, {"a": make_site()}), tap(model, {"a": make_site()})
    first.__enter__()
    second.__enter__()
    with pytest.raises(RuntimeError, match="class was changed inside the tap"):
        first.__exit__(None, None, None)
    second.__exit__(None, None, None)


@pytest.mark.parametrize("whole", [False, True])
def test_compiled(make_model: Make, make_site: Make, whole: bool) -> None:
    """Graph capture and its guards without code generation; the tapped module runs eagerly."""
    model = make_model()
    expected = model(X)
    expected.sum().backward()
    grads = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    for module in [model] if whole else model.blocks:
        module.compile(backend="eager")
    with tap(model, {"a": make_site(0)}, require_grad=True) as captures:
        for _ in range(2):
            out = model(X)
        assert torch.allclose(out, expected, atol=1e-6)
        assert captures["a"].q.requires_grad
        out.sum().backward()
    assert all(
        torch.allclose(a, p.grad, atol=1e-5) for a, p in zip(grads, model.parameters(), strict=True)
    )
    torch.compiler.reset()


# -- several forwards, offloading --------------------------------------------------------------


def test_after_is_given_the_captures_of_every_forward(make_model: Make, make_site: Make) -> None:
    """As a pipeline with separate guidance makes them: two forwards, both of which are seen."""
    model = make_model()
    seen: list[Tensor] = []

    def after(captures: Captures) -> None:
        seen.append(captures["a"].q)
        captures.clear()

    with tap(model, {"a": make_site()}, after=after) as captures:
        model(X)
        model(X + 1)
        assert len(captures) == 0
        model.fail = True
        with pytest.raises(ArithmeticError, match="planted"):  # nothing to hand out
            model(X)
    assert len(seen) == 2
    for q, x in zip(seen, (X, X + 1), strict=True):
        twin = make_model()
        with tap(twin, {"a": make_site()}) as alone:
            twin(x)
        assert torch.equal(alone["a"].q, q)


def test_an_error_of_after_ends_the_forward_and_restores(make_model: Make, make_site: Make) -> None:
    model = make_model()
    before = state(model)

    def after(_: Captures) -> None:
        raise ArithmeticError("planted")

    with (
        pytest.raises(ArithmeticError, match="planted"),
        tap(model, {"a": make_site()}, after=after),
    ):
        model(X)
    assert state(model) == before


def offloaded(model: nn.Module) -> nn.Module:
    """The attention of both blocks as diffusers' offloading leaves it, for a CPU."""
    for block in model.blocks:
        hook = AlignDevicesHook(execution_device="cpu", offload=True, place_submodules=True)
        add_hook_to_module(block.attn, hook)
    return model


def test_offloading_hooks_are_observed_through(make_model: Make, make_site: Make) -> None:
    model = offloaded(make_model())
    attn = model.blocks[0].attn
    assert attn.to_q.weight.is_meta  # its weights are elsewhere between forwards
    before, hooked = state(model), vars(attn)["forward"]
    plain = make_model()
    with tap(plain, {"a": make_site()}) as expected:
        out = plain(X)
    with tap(model, {"a": make_site()}) as captures:
        assert torch.equal(model(X), out)
        assert torch.equal(captures["a"].q, expected["a"].q)
        with tap(model, {"inner": make_site()}) as inner:
            model(X)
            twin = copy.deepcopy(model)
        assert torch.equal(inner["inner"].q, expected["a"].q)
    assert state(model) == before
    assert vars(attn)["forward"] is hooked
    # The copy is untapped, and has hook and weights of its own.
    kept = captures["a"]
    assert torch.equal(twin(X), out)
    assert captures["a"] is kept
    own = vars(twin.blocks[0].attn)["forward"]
    assert own.args == (twin.blocks[0].attn,)
    remove_hook_from_module(attn)
    with tap(model, {"a": make_site()}) as captures:
        assert torch.equal(model(X), out)


def test_a_cache_is_refused_under_and_over_an_offloading_hook(
    make_model: Make, make_site: Make
) -> None:
    def cache(module: nn.Module) -> None:
        stored = module.forward
        module.forward = lambda x: stored(x)

    for first, second in ((cache, offload), (offload, cache)):
        model = make_model()
        first(model.blocks[0].attn)
        second(model.blocks[0].attn)
        with (
            pytest.raises(
                MatrixError, match=r"forward of this module was replaced.*disable caches"
            ),
            tap(model, {"a": make_site()}),
        ):
            pass


def offload(module: nn.Module) -> None:
    add_hook_to_module(module, AlignDevicesHook(execution_device="cpu"))

"""SGA and SPA against dense softmax and the dense mask loss."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from matrix_video.alignment.decoder import DecoderConfig, seeded_decoder
from matrix_video.alignment.losses import mask_loss
from matrix_video.alignment.objectives import Aligner, alignment_loss, require_gradient, sga, spa
from matrix_video.alignment.targets import Targets, output_frames, token_ratio
from matrix_video.attention.readout import MapMode
from matrix_video.attention.site import Call, Site
from matrix_video.services.errors import MatrixError

FRAMES, ROWS, COLUMNS, TEXT, HEADS, SIZE = 3, 2, 2, 4, 2, 4
VIDEO = FRAMES * ROWS * COLUMNS
TOKENS = TEXT + VIDEO
SITE = Site("attn", TOKENS, TOKENS, video_start=TEXT, num_video=VIDEO, num_text=TEXT)
RATIO, UP = 2, 2
ALIGNER = Aligner((FRAMES, ROWS, COLUMNS), RATIO, UP)


def draw(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def call(seed: int) -> Call:
    q = draw(seed, 2, HEADS, TOKENS, SIZE).requires_grad_()
    k = draw(seed + 1, 2, HEADS, TOKENS, SIZE).requires_grad_()
    return Call(q, k)


def dense(observed: Call) -> Tensor:
    """P [B,A,Nq,Nk] by the definition."""
    logits = torch.einsum("baid,bajd->baij", observed.q, observed.k) / math.sqrt(SIZE)
    exponent = logits.exp()
    return exponent / exponent.sum(dim=-1, keepdim=True)


def targets(seed: int, rows: int) -> Targets:
    frames = 1 + RATIO * (FRAMES - 1)
    mask = draw(seed, 2, rows, frames, ROWS * UP, COLUMNS * UP) > 0.5
    known = draw(seed + 1, 2, rows, frames) > -1
    present = torch.ones(2, rows, dtype=torch.bool)
    present[1, -1] = False
    return Targets(mask, known, present)


def phrase_weights() -> Tensor:
    weights = torch.zeros(2, 2, TEXT)
    weights[0, 0, 1], weights[0, 1, 2:4], weights[1, 0, 0] = 1, 0.5, 1
    return weights


def region_weights() -> Tensor:
    weights = torch.zeros(2, 2, VIDEO)
    weights[0, 0, 1], weights[0, 1, 2:4], weights[1, 0, 0:2] = 1, 0.5, 0.5
    return weights


def nearest_bilinear(lift: Tensor) -> Tensor:
    """[R,F,h,w] on the output grid; bilinear by explicit weights for 2 -> 4 cells."""
    along = torch.tensor([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]], dtype=lift.dtype)
    fine = torch.einsum("iy,jx,rfyx->rfij", along, along, lift)
    return torch.stack([fine[:, math.ceil(t / RATIO)] for t in range(5)], dim=1)


def test_sga_is_the_mask_loss_of_dense_maps() -> None:
    observed, wanted = call(0), targets(10, 2)
    found = sga({"5/v2t": observed}, {"5/v2t": SITE}, phrase_weights(), wanted, ALIGNER)
    p = dense(observed)
    logits = torch.zeros(wanted.mask_BRTHW.shape, dtype=torch.float64)
    for b, r, tokens in ((0, 0, [1]), (0, 1, [2, 3]), (1, 0, [0])):
        column = p[b, :, TEXT:, :][:, :, tokens].mean(dim=(0, 2))
        lift = torch.log(column * VIDEO / column.sum()).clamp(-6, 6)
        logits[b, r] = nearest_bilinear(lift.reshape(1, FRAMES, ROWS, COLUMNS))[0]
    expected = mask_loss(logits, wanted.mask_BRTHW, wanted.known_BRT, wanted.present_BR)
    torch.testing.assert_close(found.per_sample(), expected.total_B)
    torch.testing.assert_close(found.total(), expected.total_B.mean())
    assert found.maps() == 3


def test_spa_leaves_latent_frame_0_out() -> None:
    observed, wanted = call(1), targets(20, 2)
    found = spa({"2/v2v": observed}, {"2/v2v": SITE}, region_weights(), wanted, ALIGNER)
    p = dense(observed)[:, :, TEXT:, TEXT:]
    logits = torch.zeros(wanted.mask_BRTHW.shape, dtype=torch.float64)
    first = ROWS * COLUMNS
    for b, r, tokens in ((0, 0, [1]), (0, 1, [2, 3]), (1, 0, [0, 1])):
        row = p[b][:, tokens].mean(dim=(0, 1))[first:]
        lift = torch.log(row * (VIDEO - first) / row.sum()).clamp(-6, 6)
        lift = torch.cat([torch.zeros(first, dtype=lift.dtype), lift])
        logits[b, r] = nearest_bilinear(lift.reshape(1, FRAMES, ROWS, COLUMNS))[0]
    known = wanted.known_BRT.clone()
    known[:, :, 0] = False
    expected = mask_loss(logits, wanted.mask_BRTHW, known, wanted.present_BR)
    torch.testing.assert_close(found.per_sample(), expected.total_B)


def test_spa_skips_and_counts_what_the_first_frame_does_not_show() -> None:
    weights = region_weights()
    weights[0, 1] = 0
    wanted = targets(21, 2)
    found = spa({"a": call(2)}, {"a": SITE}, weights, wanted, ALIGNER)
    assert found.skipped == 1
    assert found.layers["a"].maps_B.tolist() == [1, 1]
    alone = Targets(wanted.mask_BRTHW[:, :1], wanted.known_BRT[:, :1], wanted.present_BR[:, :1])
    expected = spa({"a": call(2)}, {"a": SITE}, weights[:, :1], alone, ALIGNER)
    torch.testing.assert_close(found.per_sample(), expected.per_sample())
    assert expected.skipped == 0


def test_layers_are_averaged_and_reported() -> None:
    calls = {"1": call(3), "2": call(5)}
    sites = {"1": SITE, "2": SITE}
    both = sga(calls, sites, phrase_weights(), targets(30, 2), ALIGNER)
    single = [
        sga({n: calls[n]}, {n: SITE}, phrase_weights(), targets(30, 2), ALIGNER) for n in calls
    ]
    torch.testing.assert_close(both.total(), (single[0].total() + single[1].total()) / 2)
    assert list(both.layers) == ["1", "2"]
    torch.testing.assert_close(both.layers["2"].total_B, single[1].per_sample())


@pytest.mark.parametrize("mode", ["probabilities", "logits"])
def test_gradients_reach_queries_keys_and_decoder(mode: MapMode) -> None:
    decoder = seeded_decoder(DecoderConfig(ratio=RATIO, up=UP, channels=2), 0).double()
    torch.nn.init.normal_(decoder.last.weight, generator=torch.Generator().manual_seed(0))
    aligner = Aligner((FRAMES, ROWS, COLUMNS), RATIO, UP, decoder, mode=mode)
    observed = call(7)

    def loss(q: Tensor, k: Tensor, *_: Tensor) -> Tensor:
        calls = {"a": Call(q, k)}
        grounding = sga(calls, {"a": SITE}, phrase_weights(), targets(40, 2), aligner).total()
        return (
            grounding + spa(calls, {"a": SITE}, region_weights(), targets(41, 2), aligner).total()
        )

    inputs = (observed.q, observed.k, decoder.last.weight, decoder.inner.conv.weight)
    assert torch.autograd.gradcheck(loss, inputs, fast_mode=True)


def test_where_the_attention_looks_is_told_in_both_modes() -> None:
    calls, sites = {"a": call(7)}, {"a": SITE}
    for term, weights, wanted in (
        (sga, phrase_weights(), targets(40, 2)),
        (spa, region_weights(), targets(41, 2)),
    ):
        compared = term(calls, sites, weights, wanted, ALIGNER)
        other = term(calls, sites, weights, wanted, replace(ALIGNER, mode="logits"))
        assert torch.equal(other.maps_BRN["a"], compared.maps_BRN["a"])
        assert not other.maps_BRN["a"].requires_grad
        assert not torch.allclose(other.total(), compared.total())


def test_a_step_down_the_gradient_raises_attention_inside_the_mask() -> None:
    """End to end: the losses push the right way."""
    observed = call(9)
    inside = torch.zeros(2, 2, 5, ROWS * UP, COLUMNS * UP, dtype=torch.bool)
    inside[..., :2, :2] = True
    wanted = Targets(
        inside, torch.ones(2, 2, 5, dtype=torch.bool), torch.ones(2, 2, dtype=torch.bool)
    )
    weights = torch.zeros(2, 2, TEXT)
    weights[:, 0, 0], weights[:, 1, 1] = 1, 1

    def share() -> float:
        grid = dense(observed)[:, :, TEXT:, :2].reshape(2, HEADS, FRAMES, ROWS, COLUMNS, 2)
        return (grid[:, :, :, 0, 0].sum() / grid.sum()).item()

    before = share()
    for _ in range(20):
        total = sga({"a": observed}, {"a": SITE}, weights, wanted, ALIGNER).total()
        gradients = torch.autograd.grad(total, (observed.q, observed.k))
        with torch.no_grad():
            observed.q.sub_(gradients[0])
            observed.k.sub_(gradients[1])
    assert share() > before + 0.1


def test_weights_of_layers() -> None:
    calls = {"0": call(12), "1": call(13)}
    sites = {"0": SITE, "1": SITE}
    wanted = targets(51, 2)

    def loss(weights: dict[str, float], names: str = "01") -> Tensor:
        chosen = {name: sites[name] for name in names}
        return sga(
            calls, chosen, phrase_weights(), wanted, ALIGNER, layer_weights=weights
        ).per_sample()

    one, two = loss({}, "0"), loss({}, "1")
    torch.testing.assert_close(loss({}), (one + two) / 2)
    torch.testing.assert_close(loss({"1": 3.0}), (one + 3 * two) / 4)
    found = sga(calls, sites, phrase_weights(), wanted, ALIGNER)
    assert set(found.maps_BRN) == {"0", "1"}
    assert not any(maps_BRN.requires_grad for maps_BRN in found.maps_BRN.values())


def test_a_term_without_gradient_is_an_error() -> None:
    observed = call(11)
    detached = Call(observed.q.detach(), observed.k.detach())
    for name, calls in (("sga", {"4/v2t": detached}), ("spa", {"4/v2t": detached})):
        objective, weights = (sga, phrase_weights()) if name == "sga" else (spa, region_weights())
        found = objective(calls, {"4/v2t": SITE}, weights, targets(50, 2), ALIGNER)
        with pytest.raises(
            MatrixError, match=rf"{name.upper()} loss has no gradient in layer 4/v2t"
        ):
            require_gradient(found, calls)
    calls = {"4/v2t": observed}
    good = sga(calls, {"4/v2t": SITE}, phrase_weights(), targets(50, 2), ALIGNER)
    require_gradient(good, calls)
    good.total().backward()  # the graph was kept
    assert observed.q.grad is not None
    observed.k.register_hook(lambda grad: grad / torch.zeros_like(grad))
    problem = r"gradient of the SGA loss in layer 4/v2t is not a number\. train in float32"
    with pytest.raises(MatrixError, match=problem):
        require_gradient(
            sga(calls, {"4/v2t": SITE}, phrase_weights(), targets(50, 2), ALIGNER), calls
        )


def test_a_term_without_a_map_is_zero() -> None:
    wanted = targets(51, 2)
    nothing = Targets(wanted.mask_BRTHW, wanted.known_BRT, torch.zeros_like(wanted.present_BR))
    calls = {"0": call(12)}
    found = sga(calls, {"0": SITE}, phrase_weights(), nothing, ALIGNER)
    assert found.total().item() == 0
    assert found.maps() == 0


def test_no_layer_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="no layer"):
        alignment_loss("sga", {}, targets(0, 2), ALIGNER)


def test_output_frames_follow_the_token_frames() -> None:
    causal = ((0,), (1, 2, 3, 4), (5, 6, 7, 8))
    assert token_ratio(causal) == 4
    assert output_frames(causal, 4) == tuple(range(9))
    padded = ((), (1, 2, 3, 4))  # a model's own padding shares the first token frame
    assert output_frames(padded, 4) == (None, 1, 2, 3, 4)
    assert output_frames(((0,), (1, 2)), 3) == (0, None, 1, 2)
    with pytest.raises(ValueError, match="token frame 1 holds 2 pixel frames, room for 1"):
        output_frames(((0,), (1, 2)), 1)

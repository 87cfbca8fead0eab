"""Capture and maps of a module that attends once for each sample, over its own valid text alone.

Shapes: B batch, A heads, N video tokens, L text tokens (padded), V valid ones of a sample, W width,
R rows of weights.
"""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matrix_video.attention.readout import v2t_maps, v2v_maps
from matrix_video.attention.site import Call, Captured, Site, parts
from matrix_video.attention.tap import Captures, tap
from matrix_video.services.errors import MatrixError

HEADS, WIDTH, VIDEO, TEXT = 2, 16, 6, 5
VALID = (3, 5, 1)
ENGINES: tuple[Literal["fast", "portable"], ...] = ("fast", "portable")


class PerSample(nn.Module):
    """Joint attention over [video, text], one call for each sample, as Mochi's."""

    def __init__(self) -> None:
        super().__init__()
        self.to_qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.skip = False

    def forward(self, video_BNW: Tensor, text_BLW: Tensor, valid: tuple[int, ...]) -> Tensor:
        if self.skip:
            return video_BNW
        found: list[Tensor] = []
        for video_NW, text_LW, count in zip(video_BNW, text_BLW, valid, strict=True):
            joint = self.to_qkv(torch.cat([video_NW, text_LW[:count]]))[None]
            q, k, v = joint.unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
            out = F.scaled_dot_product_attention(q, k, v)
            found.append(out.transpose(1, 2).flatten(2)[:, :VIDEO])
        return torch.cat(found)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = PerSample()

    def forward(self, video_BNW: Tensor, text_BLW: Tensor, valid: tuple[int, ...]) -> Tensor:
        return video_BNW + self.attn(video_BNW, text_BLW, valid)


SITE = Site(
    module="attn",
    num_queries=VIDEO + TEXT,
    num_keys=VIDEO + TEXT,
    video_start=0,
    num_video=VIDEO,
    text_start=VIDEO,
    num_text=TEXT,
    per_sample=True,
)


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model()


def inputs(valid: tuple[int, ...] = VALID) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    g = torch.Generator().manual_seed(1)
    video = torch.randn(len(VALID), VIDEO, WIDTH, generator=g)
    text = torch.randn(len(VALID), TEXT, WIDTH, generator=g)
    return video[: len(valid)], text[: len(valid)], valid


def weights(tokens: int, counts: tuple[int, ...]) -> Tensor:
    """Two rows of each sample on its first ``counts`` tokens, and a row of zeros."""
    found = torch.zeros(len(counts), 3, tokens)
    for b, count in enumerate(counts):
        found[b, 0, :count] = 1 / count
        found[b, 1, count - 1] = 1
    return found


def calls_of(captured: Captured) -> tuple[Call, ...]:
    assert isinstance(captured, tuple)
    return captured


def dense_maps(dense: Any, captured: Captured, kind: str, weights_BRX: Tensor) -> Tensor:
    """[B,A,R,N] in float64, sample by sample."""
    found: list[Tensor] = []
    for (call, own), row in zip(parts(captured, SITE), weights_BRX.split(1), strict=True):
        if kind == "v2v":
            found.append(dense.v2v(call, own, row))
        else:
            found.append(dense.v2t(call, own, row[..., : own.num_text]))
    return torch.cat(found)


@pytest.mark.parametrize("engine", ENGINES)
def test_maps_and_gradients_are_those_of_dense_softmax(
    dense: Any, model: Model, engine: Literal["fast", "portable"]
) -> None:
    plain = model(*inputs())
    text_BRL = weights(TEXT, VALID)
    video_BRN = weights(VIDEO, (2, 6, 4))
    with tap(model, {"site": SITE}, keep_output=True, engine=engine) as captures:
        assert torch.equal(model(*inputs()), plain)
    captured = captures["site"]
    calls = calls_of(captured)
    assert [call.k.shape[-2] for call in calls] == [VIDEO + count for count in VALID]
    assert [call.flash is not None for call in calls] == [engine == "fast"] * 3
    for call in calls:
        assert call.out is not None
        assert call.v is not None
        assert dense.error(call.out, dense.p(call) @ call.v.double()) < 1e-5
    trained = list(model.parameters())
    for kind, read, weight in (("v2t", v2t_maps, text_BRL), ("v2v", v2v_maps, video_BRN)):
        expected = dense_maps(dense, captured, kind, weight)
        per_head = read(captured, SITE, weight, per_head=True)
        assert dense.error(per_head, expected) < 1e-5
        found = read(captured, SITE, weight)
        assert found.shape == (3, 3, VIDEO)
        assert dense.error(found, expected.mean(1)) < 1e-5
        assert not found[:, 2].any()
        gradients, reference = (
            torch.autograd.grad((maps.double() - 0.1).square().sum(), trained, retain_graph=True)
            for maps in (found, expected.mean(1))
        )
        for mine, theirs in zip(gradients, reference, strict=True):
            assert dense.error(mine, theirs) < 1e-5


def test_logits(model: Model) -> None:
    with tap(model, {"site": SITE}) as captures:
        model(*inputs())
    text_BRL = weights(TEXT, VALID)
    found = v2t_maps(captures["site"], SITE, text_BRL, mode="logits")
    for b, (call, own) in enumerate(parts(captures["site"], SITE)):
        scores = (call.q @ call.k.transpose(-1, -2))[0, :, own.video, own.text].mean(0)
        expected = text_BRL[b, :, : own.num_text] @ scores.T / (WIDTH // HEADS) ** 0.5
        torch.testing.assert_close(found[b], expected)


def test_keep_takes_the_calls_of_its_samples(model: Model) -> None:
    """Guidance as [unconditional, conditional]: one site for each half."""
    sites = {
        "all": SITE,
        "last": Site(**{**vars(SITE), "keep": slice(1, None)}),
    }
    with tap(model, sites) as captures:
        model(*inputs())
    last = calls_of(captures["last"])
    assert [call.k.shape[-2] for call in last] == [VIDEO + count for count in VALID[1:]]
    text_BRL = weights(TEXT, VALID)
    whole = v2t_maps(captures["all"], SITE, text_BRL)
    assert torch.equal(v2t_maps(last, sites["last"], text_BRL[1:]), whole[1:])
    with pytest.raises(ValueError, match=r"weights \(3, 3, 5\), expected \[2, R, 5\]"):
        v2t_maps(last, sites["last"], text_BRL)


def test_a_weight_on_invalid_text_is_refused(model: Model) -> None:
    with tap(model, {"site": SITE}) as captures:
        model(*inputs())
    text_BRL = weights(TEXT, VALID)
    text_BRL[2, 0, 1] = 0.5
    with pytest.raises(ValueError, match="a weight on text beyond the sample's 1 valid tokens"):
        v2t_maps(captures["site"], SITE, text_BRL)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_caption_without_a_valid_token(
    dense: Any, model: Model, engine: Literal["fast", "portable"]
) -> None:
    """Its video attends to video alone; its V2T map is zero, and no weight is taken for it."""
    with tap(model, {"site": SITE}, engine=engine) as captures:
        model(*inputs((2, 0)))
    captured = captures["site"]
    text_BRL = torch.zeros(2, 3, TEXT)
    text_BRL[0, 0, 1] = 1
    for per_head, shape in ((False, (2, 3, VIDEO)), (True, (2, HEADS, 3, VIDEO))):
        found = v2t_maps(captured, SITE, text_BRL, per_head=per_head)
        assert found.shape == shape
        assert found[0].any()
        assert not found[1].any()
    video_BRN = weights(VIDEO, (2, 3))
    expected = dense_maps(dense, captured, "v2v", video_BRN).mean(1)
    assert dense.error(v2v_maps(captured, SITE, video_BRN), expected) < 1e-5
    text_BRL[1, 0, 0] = 1
    with pytest.raises(ValueError, match="beyond the sample's 0 valid tokens"):
        v2t_maps(captured, SITE, text_BRL)


def test_no_call_is_refused(model: Model) -> None:
    model.attn.skip = True
    with (
        tap(model, {"site": SITE}),
        pytest.raises(MatrixError, match=r"attn: 0 calls of scaled_dot_product_attention"),
    ):
        model(*inputs())


@pytest.mark.parametrize(
    ("num_video", "num_text", "message"),
    [
        (VIDEO, TEXT - 1, r"attention over 11 queries, expected 10"),
        (VIDEO + TEXT + 1, 0, r"attention over 9 queries, expected 12"),
    ],
)
def test_lengths_that_no_caption_explains(
    model: Model, num_video: int, num_text: int, message: str
) -> None:
    """More text than the longest possible, or less than the video alone."""
    length = num_video + num_text
    site = Site("attn", length, length, 0, num_video, num_video, num_text, per_sample=True)
    with tap(model, {"site": site}), pytest.raises(MatrixError, match=message):
        model(*inputs())


def test_a_missing_gradient_is_refused(model: Model) -> None:
    model.requires_grad_(False)
    captures: Captures
    with tap(model, {"site": SITE}, require_grad=True) as captures:
        with pytest.raises(MatrixError, match="carry no gradient"):
            model(*inputs())
        with torch.no_grad():
            model(*inputs())
        assert len(captures) == 1


def test_text_that_varies_stands_last() -> None:
    with pytest.raises(ValueError, match="text that varies in length must stand last"):
        Site("attn", 11, 11, video_start=5, num_video=6, num_text=5, per_sample=True)

"""The decoder: identity at the start, causal, resolution-free, small."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from matrix_video.alignment.decoder import DecoderConfig, MapDecoder, interpolate, seeded_decoder


def lift(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trained(config: DecoderConfig, seed: int = 0) -> MapDecoder:
    """A decoder in float64 whose last layer is no longer zero."""
    decoder = seeded_decoder(config, seed).double()
    with torch.no_grad():
        decoder.last.weight.copy_(lift(seed, *decoder.last.weight.shape))
    return decoder


def bilinear(grid: Tensor, up: int) -> Tensor:
    """Half-pixel bilinear up-sampling with clamped borders, by the definition."""
    rows, columns = grid.shape
    fine = torch.empty(rows * up, columns * up, dtype=grid.dtype)
    for i in range(rows * up):
        for j in range(columns * up):
            y = min(max((i + 0.5) / up - 0.5, 0.0), rows - 1)
            x = min(max((j + 0.5) / up - 0.5, 0.0), columns - 1)
            y0, x0 = math.floor(y), math.floor(x)
            y1, x1 = min(y0 + 1, rows - 1), min(x0 + 1, columns - 1)
            a, b = y - y0, x - x0
            top = grid[y0, x0] * (1 - b) + grid[y0, x1] * b
            bottom = grid[y1, x0] * (1 - b) + grid[y1, x1] * b
            fine[i, j] = top * (1 - a) + bottom * a
    return fine


@pytest.mark.parametrize(("ratio", "up"), [(4, 2), (1, 1), (8, 4)])
def test_start_is_the_interpolated_log_lift(ratio: int, up: int) -> None:
    x = lift(1, 2, 2, 3, 3, 2)
    logits = seeded_decoder(DecoderConfig(ratio=ratio, up=up), seed=3).double()(x)
    assert logits.shape == (2, 2, 1 + ratio * 2, 3 * up, 2 * up)
    for b in range(2):
        for r in range(2):
            for t in range(1 + ratio * 2):
                expected = bilinear(x[b, r, math.ceil(t / ratio)], up)
                torch.testing.assert_close(logits[b, r, t], expected, atol=1e-12, rtol=0)
    assert torch.equal(logits, interpolate(x, ratio, up))


@settings(max_examples=25)
@given(st.integers(1, 5), st.integers(1, 4), st.data())
def test_no_output_frame_sees_a_later_token_frame(
    ratio: int, frames: int, data: st.DataObject
) -> None:
    changed = data.draw(st.integers(0, frames - 1))
    decoder = trained(DecoderConfig(ratio=ratio, up=2, channels=3))
    x = lift(2, 1, 1, frames, 3, 3)
    other = x.clone()
    other[:, :, changed] += 1.0
    before, after = decoder(x), decoder(other)
    for t in range(1 + ratio * (frames - 1)):
        if math.ceil(t / ratio) < changed:
            assert torch.equal(before[:, :, t], after[:, :, t])
        elif math.ceil(t / ratio) == changed:
            assert not torch.equal(before[:, :, t], after[:, :, t])


def test_every_map_is_decoded_by_itself() -> None:
    decoder = trained(DecoderConfig())
    x = lift(4, 2, 3, 3, 4, 5)
    whole = decoder(x)
    for b in range(2):
        for r in range(3):
            torch.testing.assert_close(whole[b, r], decoder(x[b : b + 1, r : r + 1])[0, 0])


def test_frames_of_one_token_frame_can_differ() -> None:
    logits = trained(DecoderConfig(ratio=4, up=1))(lift(5, 1, 1, 2, 3, 3))
    group = logits[0, 0, 1:5]
    assert len({tuple(frame.flatten().tolist()) for frame in group}) == 4


@given(st.floats(0.1, 5), st.integers(0, 50))
def test_the_change_is_bounded(bound: float, seed: int) -> None:
    decoder = trained(DecoderConfig(ratio=2, channels=2, bound=bound), seed)
    with torch.no_grad():
        decoder.last.weight.mul_(1000)
    x = lift(seed, 1, 1, 2, 2, 2)
    change = (decoder(x) - interpolate(x, 2, 2)).abs().max()
    assert bound / 2 < change <= bound * (1 + 1e-9)


def test_size_and_seed() -> None:
    decoder = seeded_decoder(DecoderConfig(), seed=7)
    assert sum(p.numel() for p in decoder.parameters()) <= 20_000
    state = torch.random.get_rng_state()
    again = seeded_decoder(DecoderConfig(), seed=7)
    assert torch.equal(torch.random.get_rng_state(), state)
    for a, b in zip(decoder.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    other = seeded_decoder(DecoderConfig(), seed=8)
    assert not torch.equal(other.inner.conv.weight, decoder.inner.conv.weight)


def test_gradients() -> None:
    decoder = trained(DecoderConfig(ratio=2, up=2, channels=2))
    x = lift(6, 1, 1, 2, 2, 2).requires_grad_()
    parameters: list[nn.Parameter] = list(decoder.parameters())
    assert torch.autograd.gradcheck(lambda y, *_: decoder(y), (x, *parameters))

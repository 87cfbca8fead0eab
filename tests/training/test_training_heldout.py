"""The held-out score against dense attention, and when a run counts as absorbed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from matrix_video.attention.tap import tap
from matrix_video.backbones.loading import backbone_for
from matrix_video.training.batches import EncodedSet
from matrix_video.training.config import TrainConfig
from matrix_video.training.encode import Encoded
from matrix_video.training.heldout import decoder_absorbed, heldout_aas
from matrix_video.training.student import Layers, make_student


def dense_aas(p_text: torch.Tensor, one: Encoded, after: int = -1) -> list[float]:
    """Per phrase, from maps [P,F,h,w]."""
    found: list[float] = []
    for row in range(len(one.phrase_PL)):
        shares = [
            float((p_text[row, f] * one.tokens_PFhw[row, f]).sum() / p_text[row, f].sum())
            for f in range(3)
            if f > after and one.visible_PF[row, f]
        ]
        found.append(sum(shares) / len(shares))
    return found


def test_equals_dense_attention(
    pipe: Any,
    config: Callable[..., TrainConfig],
    encoded: list[Encoded],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    student = make_student(backbone_for(pipe), config(), Layers((1,), (0,)), (9, 32, 32))
    samples = EncodedSet(["a", "b"], lambda i: encoded[i])
    expected: dict[str, list[float]] = {"0/v2v": [], "1/v2t": []}
    with tap(student.backbone.transformer, student.view((9, 32, 32)).sites) as calls:
        found = heldout_aas(student, samples, lambda _: calls, seed=3, levels=2)
        again = heldout_aas(student, samples, lambda _: calls, seed=3, levels=2)
        other = heldout_aas(student, samples, lambda _: calls, seed=4, levels=2)
        for index in range(2):
            for level in range(2):
                # One sample and one level at a time, so the captures are those of that forward.
                single = EncodedSet(["x"], lambda i, index=index: encoded[index])
                chosen = torch.tensor([[250], [750]])[level]
                monkeypatch.setattr(student.backbone, "noise_levels", lambda _, t=chosen: t)
                heldout_aas(student, single, lambda _: calls, seed=3, levels=1)
                one = encoded[index]
                for name, expectation in expected.items():
                    call = calls[name]
                    size = call.q.shape[-1] ** 0.5
                    logits = call.q.double() @ call.k.double().transpose(-1, -2) / size
                    p = logits.softmax(dim=-1)[0].mean(dim=0)
                    if name == "1/v2t":
                        maps = (p[32:, :32] @ one.phrase_PL.double().T).T
                        expectation += dense_aas(maps.reshape(-1, 3, 4, 4), one)
                    else:
                        maps = one.region_PN.double() @ p[32:, 32:]
                        expectation += dense_aas(maps.reshape(-1, 3, 4, 4), one, after=0)
    for name, values in expected.items():
        assert found[f"heldout_aas/{name}"] == pytest.approx(sum(values) / len(values), rel=1e-4)
    assert found == again
    assert found != other
    assert set(found) == {"heldout_aas/1/v2t", "heldout_aas/0/v2v"}


def test_nothing_to_score(pipe: Any, config: Callable[..., TrainConfig]) -> None:
    student = make_student(backbone_for(pipe), config(), Layers((1,), (0,)), (9, 32, 32))
    with tap(student.backbone.transformer, student.view((9, 32, 32)).sites) as calls:
        empty = EncodedSet([], lambda i: pytest.fail("never asked"))
        assert heldout_aas(student, empty, lambda _: calls, seed=0, levels=2) == {}


def rows(losses: list[float], scores: list[float]) -> list[dict[str, float]]:
    found: list[dict[str, float]] = [{"step": 0, "heldout_aas/1/v2t": scores[0]}]
    found += [{"step": i + 1, "sga": x, "spa": x / 2} for i, x in enumerate(losses)]
    found[-1] |= {f"heldout_aas/{i}/v2t": scores[1] for i in (1, 2)}
    return found


@pytest.mark.parametrize(
    ("losses", "scores", "expected"),
    [
        ([2.0] * 10 + [1.0] * 10, [0.2, 0.2], True),
        ([2.0] * 10 + [1.0] * 10, [0.2, 0.1], True),
        ([2.0] * 10 + [1.0] * 10, [0.2, 0.3], False),
        ([2.0] * 10 + [1.95] * 10, [0.2, 0.1], False),
        ([2.0], [0.2, 0.1], None),
    ],
)
def test_decoder_absorbed(losses: list[float], scores: list[float], expected: bool | None) -> None:
    assert decoder_absorbed(rows(losses, scores)) is expected


def test_absorbed_needs_both_measurements() -> None:
    assert decoder_absorbed([]) is None
    assert decoder_absorbed([{"step": i, "loss": 1.0} for i in range(5)]) is None
    assert decoder_absorbed([{"step": i, "sga": 1.0 / (i + 1)} for i in range(5)]) is None

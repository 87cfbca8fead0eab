"""Which precision ``auto`` is, and what autocast does with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from matrix_video.backbones.precision import autocast, resolved


@pytest.mark.parametrize(
    ("capability", "expected"),
    [("amx_bf16", "bf16"), ("avx512_bf16", "bf16"), ("bf16", "bf16"), ("avx2", "no")],
)
def test_auto_is_bfloat16_where_the_cpu_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, capability: str, expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True})
    assert resolved("cpu", "auto") == expected
    product: Any = torch.ones(2, 2)
    with autocast("cpu", "auto"):
        product = product @ product
    assert product.dtype == (torch.bfloat16 if expected == "bf16" else torch.float32)


def test_what_is_asked_for_is_done_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert resolved("cpu", "bf16") == "bf16"
    assert resolved("cpu", "no") == "no"
    assert resolved("meta", "auto") == "no"

"""Encoded captions as one thing."""

from __future__ import annotations

import torch

from matrix_video.backbones.text import Text


def test_all_tensors_go_together() -> None:
    one = Text(torch.ones(1, 3, 2), {"mask": torch.ones(1, 3), "pooled": torch.zeros(1, 4)})
    two = Text(torch.zeros(2, 3, 2), {"mask": torch.zeros(2, 3), "pooled": torch.ones(2, 4)})
    both = Text.cat([one, two])
    assert len(both) == 3
    assert both.embeds_BLE[:, 0, 0].tolist() == [1, 0, 0]
    assert both.extra["mask"].shape == (3, 3)
    assert both.extra["pooled"].sum() == 8
    many = one.expand(5)
    assert len(many) == len(many.extra["pooled"]) == 5
    assert many.embeds_BLE.untyped_storage().data_ptr() == one.embeds_BLE.data_ptr()
    assert Text(torch.ones(2, 3, 2)).to("meta").embeds_BLE.device.type == "meta"
    assert both.to("meta").extra["mask"].device.type == "meta"

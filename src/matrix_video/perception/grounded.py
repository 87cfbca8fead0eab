"""Phrases → regions of a photograph: GroundingDINO's boxes, SAM 2's masks, through transformers.

Shapes: H rows, W columns, 3 channels; Q queries, L text tokens, D detections. Boxes are
left, top, right, bottom.

The paper's tools; models and box threshold (0.35) are those of the authors' evaluation code. Each
phrase is asked for by itself: with several in one prompt the detector is known to lose all but one
(our choice). SAM 2's picture is made ready here, since transformers' own processor for it needs
torchvision.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoTokenizer,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessorPil,
    Sam2Model,
)

from matrix_video.perception.locate import Proposal
from matrix_video.services.errors import MatrixError

_MEAN: Final = (0.485, 0.456, 0.406)
_DEVIATION: Final = (0.229, 0.224, 0.225)
_SAME_BOX: Final = 0.7


class GroundedFinder:
    """`Finder` for photographs."""

    def __init__(
        self, tokenizer: Any, detector: Any, segmenter: Any, *, threshold: float = 0.35
    ) -> None:
        self.tokenizer = tokenizer
        self.detector = detector.eval()
        self.segmenter = segmenter.eval()
        self.threshold = threshold
        self._processor: Any = GroundingDinoImageProcessorPil()

    @classmethod
    def load(
        cls,
        detector: str,
        segmenter: str,
        *,
        threshold: float = 0.35,
        device: str | torch.device | None = None,
    ) -> Self:
        """From folders or hub ids, safetensors alone, on ``device`` (None: the GPU, if there is).

        Raises `MatrixError` naming the model that could not be read.
        """
        place = ("cuda" if torch.cuda.is_available() else "cpu") if device is None else device
        tokenizer = _read(AutoTokenizer, detector, "detector")
        boxes = _weights(GroundingDinoForObjectDetection, detector, "detector")
        masks = _weights(Sam2Model, segmenter, "segmenter")
        return cls(tokenizer, boxes.to(place), masks.to(place), threshold=threshold)

    @torch.inference_mode()
    def propose(self, frame_HW3: NDArray[np.uint8], phrases: Sequence[str]) -> list[list[Proposal]]:
        """A mask for each box that scores ``threshold`` or more; scores are the detector's."""
        picture = self._processor(frame_HW3, input_data_format="channels_last", return_tensors="pt")
        picture = picture.to(self.detector.device)
        detections = [self._detect(picture, phrase) for phrase in phrases]
        boxes_D4 = torch.cat([boxes for boxes, _ in detections])
        if len(boxes_D4) == 0:
            return [[] for _ in phrases]
        masks_DHW = self._segment(frame_HW3, boxes_D4)
        found: list[list[Proposal]] = []
        start = 0
        for boxes, scores in detections:
            each = masks_DHW[start : start + len(boxes)]
            found.append([Proposal(m, s) for m, s in zip(each, scores.tolist(), strict=True)])
            start += len(boxes)
        return found

    def _detect(self, picture: Any, phrase: str) -> tuple[Tensor, Tensor]:
        """Boxes [D,4] as shares of the sides, and scores [D], the best first."""
        # The detector cuts its text at these: within a phrase they would part its words.
        words = " ".join(re.sub(r"[.?]", " ", phrase.lower()).split())
        given = self.tokenizer(
            f"{words}.",
            return_tensors="pt",
            return_offsets_mapping=True,
            truncation=True,
            max_length=self.detector.config.max_text_len,
        )
        spans_L2 = given.pop("offset_mapping")[0]
        # Neither the special tokens (whose spans are empty) nor the full stop stand for the phrase
        # (transformers' own post-processing takes them too; ours is the stricter reading).
        means_L = (spans_L2[:, 1] > spans_L2[:, 0]) & (spans_L2[:, 1] <= len(words))
        if not bool(means_L.any()):
            device = self.detector.device
            return torch.zeros(0, 4, device=device), torch.zeros(0, device=device)
        out = self.detector(**picture, **given.to(self.detector.device))
        logits_QL = out.logits[0, :, : len(means_L)]
        scores_Q = logits_QL[:, means_L.to(logits_QL.device)].sigmoid().amax(dim=1)
        order = scores_Q.argsort(descending=True, stable=True)
        order = order[scores_Q[order] >= self.threshold]
        x, y, w, h = out.pred_boxes[0, order].unbind(dim=1)
        edges_D4 = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], dim=1).clamp(0, 1)
        keep = _suppressed(edges_D4)
        return edges_D4[keep], scores_Q[order][keep]

    def _segment(self, frame_HW3: NDArray[np.uint8], boxes_D4: Tensor) -> NDArray[np.bool_]:
        """Masks bool [D,H,W] of the boxes, in one call."""
        side: int = self.segmenter.config.prompt_encoder_config.image_size
        pixels_3HW = normalised(frame_HW3).to(self.segmenter.device)
        # SAM 2 takes the picture stretched to a square.
        square_13HW = F.interpolate(pixels_3HW[None], (side, side), mode="bilinear", antialias=True)
        out = self.segmenter(
            pixel_values=square_13HW,
            input_boxes=(boxes_D4.to(square_13HW) * side)[None],
            multimask_output=False,
        )
        logits_D1HW = out.pred_masks[0].float()
        whole_D1HW = F.interpolate(logits_D1HW, frame_HW3.shape[:2], mode="bilinear")
        return (whole_D1HW[:, 0] > 0).cpu().numpy()


def normalised(frame_HW3: NDArray[np.uint8]) -> Tensor:
    """Float32 [3,H,W] with the mean and deviation of ImageNet, as SAM 2 expects."""
    pixels_3HW = torch.from_numpy(np.ascontiguousarray(frame_HW3)).permute(2, 0, 1).float() / 255
    mean, deviation = (torch.tensor(part)[:, None, None] for part in (_MEAN, _DEVIATION))
    return (pixels_3HW - mean) / deviation


def _suppressed(boxes_D4: Tensor) -> list[int]:
    """Indices to keep: of boxes that overlap by `_SAME_BOX` the first alone; none without area."""
    area_D = (boxes_D4[:, 2:] - boxes_D4[:, :2]).clamp(min=0).prod(dim=1)
    kept: list[int] = []
    for index in area_D.nonzero()[:, 0].tolist():
        upper_D2 = torch.maximum(boxes_D4[kept, :2], boxes_D4[index, :2])
        lower_D2 = torch.minimum(boxes_D4[kept, 2:], boxes_D4[index, 2:])
        shared_D = (lower_D2 - upper_D2).clamp(min=0).prod(dim=1)
        union_D = area_D[kept] + area_D[index] - shared_D
        if not bool((shared_D >= _SAME_BOX * union_D).any()):
            kept.append(index)
    return kept


def _weights(kind: Any, name: str, field: str) -> Any:
    """In float32, every weight from the file: another model's folder would leave some random."""
    model, known = _read(
        kind, name, field, use_safetensors=True, dtype=torch.float32, output_loading_info=True
    )
    absent = sorted({*known["missing_keys"], *(key for key, *_ in known["mismatched_keys"])})
    if absent:
        raise MatrixError(
            f"{name!r} is no {kind.__name__}: {len(absent)} of its weights are missing, such as "
            f"{absent[0]}",
            remedy=f"give a folder or hub id of {kind.__name__}'s own",
            field=field,
        )
    return model


def _read(kind: Any, name: str, field: str, **options: Any) -> Any:
    try:
        return kind.from_pretrained(name, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0]
        raise MatrixError(
            f"{name!r} could not be read as a {field} ({first})",
            remedy="give a folder in transformers' format with safetensors, or a hub id that this "
            "machine can reach",
            field=field,
        ) from error

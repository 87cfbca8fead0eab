"""From captured queries and keys to the maps of a clip's phrases, whoever made the forward pass.

Shapes: P noise levels, R phrases of the clip, A attention heads, N = F·h·w video tokens, F token
frames, h w token rows and columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from matrix_video.analysis.probe import Reading
from matrix_video.analysis.records import KINDS
from matrix_video.analysis.sinks import Share, attention_shares
from matrix_video.analysis.targets import Target, region_weights, text_weights
from matrix_video.attention.readout import v2t_maps, v2v_maps
from matrix_video.attention.site import Captured, Kind, Site, parts
from matrix_video.backbones.base import Backbone
from matrix_video.data.clip import Clip
from matrix_video.services.errors import MatrixError

_WHOLE_BATCH = slice(None)


@dataclass(frozen=True)
class Place:
    """Where one layer's maps of one kind are read."""

    layer: int
    kind: Kind
    site: Site

    @property
    def name(self) -> str:
        """Its name among the captures."""
        return f"{self.layer} {self.kind}"


class Reader:
    """Reads the maps of one clip's phrases."""

    def __init__(
        self, backbone: Backbone, clip: Clip, targets: Sequence[Target], *, per_head: bool
    ) -> None:
        self.backbone, self.sample, self.per_head = backbone, clip.sample.id, per_head
        self.grid = backbone.clip_grid(clip)
        self._kinds = backbone.token_kinds(clip.sample.caption)
        self._weights: dict[Kind, Tensor] = {
            "v2t": text_weights(targets, backbone.num_text_tokens),
            "v2v": region_weights(targets, self.grid.num_tokens),
        }

    def places(self, layers: Sequence[int], keep: slice = _WHOLE_BATCH) -> tuple[Place, ...]:
        """What to read of ``layers``, in the part ``keep`` of a batch."""
        text = self.backbone.num_text_tokens
        return tuple(
            Place(i, kind, replace(self.backbone.site(i, kind, self.grid, text), keep=keep))
            for i in layers
            for kind in KINDS
        )

    def read(
        self,
        captures: Mapping[str, Captured],
        places: Sequence[Place],
        at: Sequence[str],
    ) -> Reading:
        """Maps and sinks at ``places`` from one forward.

        ``at`` says for each element of its batch (as kept) where the model was, for the
        `MatrixError` about queries or keys that are no numbers.
        """
        self._check_finite(captures, places, at)
        maps: dict[tuple[int, Kind], Tensor] = {}
        sinks: dict[int, tuple[Share, ...]] = {}
        for place in places:
            weights = self._weights[place.kind].expand(len(at), -1, -1)
            read = v2t_maps if place.kind == "v2t" else v2v_maps
            found = read(captures[place.name], place.site, weights, per_head=self.per_head)
            if self.per_head:  # phrases before heads
                found = found.transpose(1, 2)
            key = (place.layer, place.kind)
            maps[key] = found.float().cpu().unflatten(-1, self.grid.shape)
            if place.kind == "v2t":
                sinks[place.layer] = attention_shares(captures[place.name], place.site, self._kinds)
        return Reading(maps, sinks)

    def _check_finite(
        self, captures: Mapping[str, Captured], places: Sequence[Place], at: Sequence[str]
    ) -> None:
        """One pass over queries and keys, and one wait for the device, for all layers together."""
        by_module = {place.site.module: place for place in places}.values()
        calls = [call for p in by_module for call, _ in parts(captures[p.name], p.site)]
        if bool(torch.stack([_finite(x).all() for call in calls for x in (call.q, call.k)]).all()):
            return
        for place in by_module:
            found = parts(captures[place.name], place.site)
            fine_P = torch.cat([_finite(call.q) & _finite(call.k) for call, _ in found])
            for where, fine in zip(at, fine_P.tolist(), strict=True):
                if not fine:
                    raise MatrixError(
                        f"sample {self.sample}: queries or keys of layer {place.layer} "
                        f"({place.site.module}) are NaN or infinite at {where}",
                        remedy="Measure with --precision no; if that does not help, the "
                        "checkpoint's (or adapter's) weights are broken",
                        field=f"layer {place.layer}",
                    )


def _finite(x_BAND: Tensor) -> Tensor:
    """Bool [B]."""
    return torch.isfinite(x_BAND).flatten(1).all(dim=1)

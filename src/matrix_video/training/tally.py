"""Means of an update over its samples, whichever process and forward pass they were in.

Shapes: B samples of one forward pass.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from torch import Tensor

from matrix_video.training.batches import Batch
from matrix_video.training.heldout import batch_aas
from matrix_video.training.step import Losses
from matrix_video.training.student import View


class Tally:
    """Sums and counts by name."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, float] = defaultdict(float)

    def add(self, name: str, values: Tensor) -> None:
        """Count every finite entry of ``values``."""
        finite = values.detach().isfinite()
        if bool(finite.any()):
            self._sums[name] += float(values.detach()[finite].double().sum())
            self._counts[name] += int(finite.sum())

    def facts(self) -> dict[str, tuple[float, float]]:
        """What other processes need of it."""
        return {name: (total, self._counts[name]) for name, total in self._sums.items()}


def means(tallies: Iterable[Mapping[str, tuple[float, float]]]) -> dict[str, float]:
    """Means over several processes' `Tally.facts`."""
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, float] = defaultdict(float)
    for facts in tallies:
        for name, (total, count) in facts.items():
            sums[name] += total
            counts[name] += count
    return {name: sums[name] / counts[name] for name in sums}


def count_losses(tally: Tally, losses: Losses, view: View, batch: Batch, total: Tensor) -> None:
    """Everything that ``metrics.jsonl`` says of a forward pass.

    ``loss``, ``diffusion``, ``sga``, ``spa``, ``spa_skipped`` (regions a sample);
    ``<loss>/noise<k>``, the same for samples whose noise is nearest to the k-th of `BINS` levels,
    least noise first; ``<term>/<layer>/<kind>``, a layer's own loss; ``aas/<layer>/<kind>``, the
    score of the maps themselves, before the decoder. Terms are means over the samples at whose
    noise they act.
    """
    tally.add("loss", total.expand(len(batch.ids)))
    each = {"diffusion": losses.diffusion_B}
    acting_B = losses.acting_B
    each |= {
        term: _known(alignment.per_sample(), acting_B) for term, alignment in losses.terms.items()
    }
    for name, loss_B in each.items():
        tally.add(name, loss_B)
        for k in losses.bins_B.unique().tolist():
            tally.add(f"{name}/noise{k}", loss_B[losses.bins_B == k])
    for term, alignment in losses.terms.items():
        for layer, loss in alignment.layers.items():
            tally.add(f"{term}/{layer}", _known(loss.total_B, acting_B))
    if "spa" in losses.terms:
        acting = int(acting_B.sum())
        skipped = losses.terms["spa"].skipped / max(acting, 1)
        tally.add("spa_skipped", losses.diffusion_B.new_full((acting,), skipped))
    maps = {term: alignment.maps_BRN for term, alignment in losses.terms.items()}
    scores = batch_aas(view, batch, maps.get("sga", {}), maps.get("spa", {}))
    for name, scores_BP in scores.items():
        tally.add(f"aas/{name}", scores_BP)


def _known(loss_B: Tensor, acting_B: Tensor) -> Tensor:
    """NaN, which is not counted, where a term does not act."""
    return loss_B.detach().masked_fill(~acting_B, float("nan"))

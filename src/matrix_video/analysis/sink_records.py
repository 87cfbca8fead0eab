"""The table of attention sinks: one row a sample, layer, noise level and kind of token, as Parquet.

Columns of ``sinks.parquet``:

    sample             string   id of the sample
    layer              int32    index of the layer, from 0
    level              int32    index of the noise level, from 0 (least noise)
    timestep           float64  the model's own time at this level
    tokens             string   kind of the keys, see `analysis.sinks`
    count              int32    how many keys are of this kind
    share              float64  part of the video tokens' attention that they get together, in
                                [0, 1], mean over heads and video tokens

The attention is that of the V2T maps: in joint attention over text and video, in cross-attention
over text alone. The shares of a sample, layer and level sum to 1; a kind without a key has no row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from matrix_video.analysis.records import read_parquet, write_parquet
from matrix_video.analysis.sinks import TOKENS, Tokens


@dataclass(frozen=True, slots=True)
class SinkRow:
    """One measurement; the columns of the table in their order."""

    sample: str
    layer: int
    level: int
    timestep: float
    tokens: Tokens
    count: int
    share: float


SCHEMA: Final = pa.schema(
    [
        ("sample", pa.string()),
        ("layer", pa.int32()),
        ("level", pa.int32()),
        ("timestep", pa.float64()),
        ("tokens", pa.string()),
        ("count", pa.int32()),
        ("share", pa.float64()),
    ]
)


@dataclass(frozen=True)
class SinkTable:
    """The measurements in memory."""

    data: pa.Table

    def __len__(self) -> int:
        return self.data.num_rows

    def layer_shares(self, num_layers: int) -> dict[Tokens, NDArray[np.float64]]:
        """Mean share [L] over samples and noise levels of each kind that occurs, words first.

        A kind that a sample has no key of got nothing there, so that the means, too, sum to 1. NaN
        in layers that were not measured.
        """
        data = self.data
        layers = np.asarray(data.column("layer").to_numpy(), dtype=np.int64)
        shares = np.asarray(data.column("share").to_numpy(), dtype=np.float64)
        kinds = np.asarray(data.column("tokens").to_pylist(), dtype=np.str_)
        # Every forward pass has a row of words: a phrase was looked for.
        passes_L = np.bincount(layers[kinds == "word"], minlength=num_layers)
        found: dict[Tokens, NDArray[np.float64]] = {}
        for name in TOKENS:
            of_kind = kinds == name
            if of_kind.any():
                total_L = np.bincount(
                    layers[of_kind], weights=shares[of_kind], minlength=num_layers
                )
                found[name] = np.divide(
                    total_L, passes_L, out=np.full(num_layers, np.nan), where=passes_L > 0
                )
        return found

    def even_shares(self) -> dict[Tokens, float]:
        """Shares that attention to all keys alike would give, of the keys of all samples."""
        counts = np.asarray(self.data.column("count").to_numpy(), dtype=np.float64)
        kinds = np.asarray(self.data.column("tokens").to_pylist(), dtype=np.str_)
        return {
            name: float(counts[kinds == name].sum() / counts.sum())
            for name in TOKENS
            if (kinds == name).any()
        }


def to_sink_table(rows: Iterable[SinkRow]) -> SinkTable:
    """Rows in memory as a table."""
    return SinkTable(pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA))


def write_sinks(path: Path, table: SinkTable) -> None:
    """Write Parquet atomically."""
    write_parquet(path, table.data)


def read_sinks(path: Path) -> SinkTable:
    """Read what `write_sinks` wrote; errors as `records.read_table`."""
    return SinkTable(read_parquet(path, SCHEMA))


def join_sinks(tables: Sequence[SinkTable]) -> SinkTable:
    """One table under the other."""
    return SinkTable(pa.concat_tables([SCHEMA.empty_table(), *(table.data for table in tables)]))

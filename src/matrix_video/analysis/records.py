"""The table of measurements: one row a sample, layer, noise level and phrase, as Parquet.

Columns of ``attention.parquet``:

    sample             string   id of the sample
    layer              int32    index of the layer, from 0
    level              int32    index of the noise level, from 0 (least noise)
    timestep           float64  the model's own time at this level
    role               string   subject, object or verb
    kind               string   v2t (how the video looks at the phrase) or v2v (how the first-frame
                                region of the phrase's instances looks at the video)
    phrase             int32    index of the phrase in the sample
    instance           string   ids of the phrase's instances, joined by "+"
    head               int32    attention head; null: mean over heads
    aas, log_lift, mean_in_mask, average_precision, binding, area
                       float64  see `analysis.scores`; null where it could not be measured

A phrase whose instances are visible in no counted frame, or for v2v not in the first one, has no
rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from matrix_video.attention.site import Kind
from matrix_video.data.sample import Role
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import atomic_path

KINDS: Final[tuple[Kind, ...]] = ("v2t", "v2v")
Words = Literal["nouns", "verbs"]
WORDS: Final[tuple[Words, ...]] = ("nouns", "verbs")
Measure = Literal["aas", "log_lift", "mean_in_mask", "average_precision", "binding", "area"]


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement; the columns of the table in their order. NaN is written as null."""

    sample: str
    layer: int
    level: int
    timestep: float
    role: Role
    kind: Kind
    phrase: int
    instance: str
    head: int | None
    aas: float
    log_lift: float
    mean_in_mask: float
    average_precision: float
    binding: float
    area: float


def _schema() -> pa.Schema:
    types = {"str": pa.string(), "int": pa.int32(), "int | None": pa.int32(), "float": pa.float64()}
    texts = ("Role", "Kind")
    return pa.schema(
        [(f.name, pa.string() if f.type in texts else types[str(f.type)]) for f in fields(Row)]
    )


SCHEMA: Final = _schema()


@dataclass(frozen=True)
class Table:
    """The measurements in memory, columns of equal length; null numbers are NaN."""

    data: pa.Table

    def __len__(self) -> int:
        return self.data.num_rows

    def text(self, column: Literal["sample", "role", "kind", "instance"]) -> NDArray[np.str_]:
        return np.asarray(self.data.column(column).to_pylist(), dtype=np.str_)

    def index(self, column: Literal["layer", "level", "phrase", "head"]) -> NDArray[np.int64]:
        return np.asarray(self.data.column(column).to_numpy(), dtype=np.int64)

    def number(self, column: Measure | Literal["timestep"]) -> NDArray[np.float64]:
        return np.asarray(self.data.column(column).to_numpy(), dtype=np.float64)

    def of(self, kind: Kind, words: Words, *, heads: bool = False) -> Table:
        """The rows of one kind of map and one class of words: of whole layers, or of heads."""
        verb = pc.field("role") == "verb"
        whole = pc.field("head").is_null()
        chosen = (~whole if heads else whole) & (pc.field("kind") == kind)
        return Table(self.data.filter(chosen & (verb if words == "verbs" else ~verb)))

    def take(self, chosen: NDArray[np.bool_]) -> Table:
        """The rows that are ``chosen``."""
        return Table(self.data.filter(pa.array(chosen)))

    def means(
        self,
        measure: Measure,
        rows: NDArray[np.int64],
        columns: NDArray[np.int64],
        shape: tuple[int, int],
    ) -> NDArray[np.float64]:
        """Mean of a measure in each cell [shape], given each row's cell; NaN in empty cells."""
        values = self.number(measure)
        present = ~np.isnan(values)
        total, count = np.zeros(shape), np.zeros(shape)
        np.add.at(total, (rows[present], columns[present]), values[present])
        np.add.at(count, (rows[present], columns[present]), 1.0)
        return np.divide(total, count, out=np.full(shape, math.nan), where=count > 0)


def to_table(rows: Iterable[Row]) -> Table:
    """Rows in memory as a table."""
    listed = [asdict(row) for row in rows]
    for row in listed:
        for name, value in row.items():
            if isinstance(value, float) and math.isnan(value):
                row[name] = None
    return Table(pa.Table.from_pylist(listed, schema=SCHEMA))


def write_table(path: Path, table: Table) -> None:
    """Write Parquet atomically."""
    write_parquet(path, table.data)


def read_table(path: Path) -> Table:
    """Read what `write_table` wrote.

    Raises `MatrixError` when the file is missing, damaged, or has other columns.
    """
    return Table(read_parquet(path, SCHEMA))


def write_parquet(path: Path, data: pa.Table) -> None:
    """Write any table atomically."""
    with atomic_path(path) as temporary:
        pq.write_table(data, temporary)


def read_parquet(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a table of this schema; errors as `read_table`."""
    remedy = "Run matrix analyze again; it measures what is missing"
    if not path.is_file():
        raise MatrixError("there is no such table", remedy=remedy, file=path)
    try:
        data = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        problem = f"the table is damaged ({str(error).splitlines()[0]})"
        raise MatrixError(problem, remedy=remedy, file=path) from error
    if not data.schema.equals(schema):
        problem = f"its columns are {data.schema.names}, expected {schema.names}"
        raise MatrixError(problem, remedy=remedy, file=path)
    return data


def join_tables(tables: Sequence[Table]) -> Table:
    """One table under the other."""
    return Table(pa.concat_tables([SCHEMA.empty_table(), *(table.data for table in tables)]))

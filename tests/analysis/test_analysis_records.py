"""The Parquet table."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from matrix_video.analysis.records import (
    SCHEMA,
    Row,
    join_tables,
    read_table,
    to_table,
    write_table,
)
from matrix_video.services.errors import MatrixError

_ROW = Row("a", 1, 2, 500.0, "verb", "v2v", 3, "id1+id2", None, 0.5, 1.0, 0.1, 0.2, math.nan, 0.3)


def test_round_trip_keeps_values_and_nulls(tmp_path: Path) -> None:
    path = tmp_path / "attention.parquet"
    write_table(path, to_table([_ROW, replace(_ROW, head=4, binding=0.25)]))
    plain = pq.read_table(path)
    assert plain.schema.names == [field.name for field in fields(Row)]
    assert plain.column("head").to_pylist() == [None, 4]
    assert plain.column("binding").to_pylist() == [None, 0.25]
    table = read_table(path)
    np.testing.assert_equal(table.number("binding"), [math.nan, 0.25])
    assert table.text("instance").tolist() == ["id1+id2"] * 2
    assert table.index("layer").tolist() == [1, 1]
    assert (len(table.of("v2v", "verbs")), len(table.of("v2t", "verbs"))) == (1, 0)
    assert len(table.of("v2v", "nouns")) == 0


def test_tables_join_and_may_be_empty() -> None:
    joined = join_tables([to_table([]), to_table([_ROW]), to_table([_ROW])])
    assert len(joined) == 2
    assert len(join_tables([])) == 0
    assert join_tables([]).data.schema.equals(SCHEMA)


def test_broken_tables_are_named(tmp_path: Path) -> None:
    path = tmp_path / "attention.parquet"
    with pytest.raises(MatrixError, match=r"attention.parquet: there is no such table"):
        read_table(path)
    path.write_bytes(b"PAR1 cut off")
    with pytest.raises(MatrixError, match="the table is damaged"):
        read_table(path)
    pq.write_table(to_table([_ROW]).data.drop_columns(["aas"]), path)
    with pytest.raises(MatrixError, match="its columns are"):
        read_table(path)

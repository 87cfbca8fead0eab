"""What ``docs/analysis.md`` says of the files is so."""

from __future__ import annotations

from pathlib import Path

from matrix_video.analysis import caveats, records, sink_records, stability
from matrix_video.analysis.dominance import ENOUGH, MINIMUM
from matrix_video.analysis.overlays import GIF_WIDTH
from matrix_video.analysis.sinks import TOKENS
from matrix_video.attention.scores import LIMIT

_TEXT = (Path(__file__).parents[2] / "docs/analysis.md").read_text()


def _section(title: str) -> str:
    return _TEXT.split(f"## {title}\n")[1].split("\n## ")[0]


def test_every_column_and_kind_of_token_is_explained() -> None:
    measures = _section("Read the measures")
    names = [field.name for schema in (records.SCHEMA, sink_records.SCHEMA) for field in schema]
    for name in (*names, *TOKENS):
        assert f"`{name}`" in measures, name


def test_numbers_are_those_of_the_code() -> None:
    warnings, choice = _section("Heed the warnings"), _section("Read the choice")
    assert f"fewer than {caveats.FEW_SAMPLES}:" in warnings
    assert f"fewer than {stability.LEAST}:" in warnings
    assert f"correlate below {stability.LOW} and share less than" in warnings
    assert f"{100 * stability.SETTLED:g} % of the top k" in warnings
    assert f"fewer than {MINIMUM} successes or {MINIMUM} failures" in warnings
    assert f"fewer than {ENOUGH} of one" in warnings
    assert f"more than {caveats.SINK:.0%} of the attention" in warnings
    assert f"{stability.SPLITS} times" in choice
    assert f"not below -{LIMIT:g}" in _section("Read the measures")
    assert f"at most {GIF_WIDTH} pixels" in _section("Read the pictures")

"""What stays of a row with one training seed: a small JSON file, refused under other settings.

<results>/<split>[-<fraction>]/<row>-<seed>.json
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ablation.rows import Pair, settings_hash
from ablation.settings import Settings, Split
from matrix_video.evaluation.scores import REPLY_LETTERS, Metric, Numbers, VideoScore
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import write_atomic
from matrix_video.services.records import read_record

FOLDER: Final = Path(__file__).with_name("results")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class PromptScore(_Part):
    """One prompt's video; a value is None where nothing could be scored."""

    id: str
    kisa_raw: float | None
    sgi_raw: float | None
    spi: float | None
    role_gap: float | None = None
    verb_gap: float | None = None
    answers: tuple[str, ...] = ()
    """A letter a question for each interaction: yes, no, implausible, unscored; none of null rows.
    """

    @classmethod
    def of(cls, video: Numbers) -> Self:
        interactions = video.interactions if isinstance(video, VideoScore) else ()
        answers = tuple(
            "".join(REPLY_LETTERS[answer.answer] for answer in one.answers) for one in interactions
        )
        return cls(
            id=video.id,
            kisa_raw=video.kisa_raw,
            sgi_raw=video.sgi_raw,
            spi=video.spi,
            role_gap=video.role_gap,
            verb_gap=video.verb_gap,
            answers=answers,
        )

    def value(self, metric: Metric) -> float:
        """NaN where it could not be scored."""
        found = {"kisa_raw": self.kisa_raw, "sgi_raw": self.sgi_raw, "spi": self.spi}
        kisa, sgi, spi = (np.nan if value is None else value for value in found.values())
        values: dict[Metric, float] = {"kisa_raw": kisa, "sgi_raw": sgi, "spi": spi}
        values |= {"kisa": kisa * spi, "sgi": sgi * spi, "if": (kisa + sgi) / 2 * spi}
        gaps = (self.role_gap, self.verb_gap)
        values["role_gap"], values["verb_gap"] = (np.nan if v is None else v for v in gaps)
        return float(values[metric])


class Spent(_Part):
    """Seconds of one stage, over all its sittings that were not killed."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Of the process, its threads together."""


class Result(_Part):
    """Contents of the file."""

    format: Literal[1] = 1
    row: str
    seed: int
    """Of the training."""
    settings: str
    """`settings_hash`."""
    updates: int
    parameters: dict[str, int]
    """Trained numbers by file of the adapter."""
    heldout_aas: dict[str, float]
    """At the end, without the decoder, by "<layer>/<kind>" of the row's own layers."""
    losses: dict[str, float]
    """Means over the last tenth of the updates."""
    spent: dict[Literal["train", "generate", "evaluate"], Spent]
    environment: dict[str, Any]
    """Versions and machine."""
    source: str | None
    """Commit of the code; None outside a repository."""
    references: dict[str, tuple[PromptScore, ...]] = {}
    """Null rows and ceiling, which are the prompts' own; the base's file has them."""
    prompts: tuple[PromptScore, ...]

    @property
    def pair(self) -> Pair:
        return Pair(self.seed, self.row)


def folder(root: Path, split: Split, fraction: float) -> Path:
    """Results of a pilot lie beside those of the whole."""
    return root / (split if fraction == 1 else f"{split}-{fraction:g}")


def write_result(where: Path, result: Result) -> Path:
    """One line a prompt, so that a change can be read."""
    fields = result.model_dump(mode="json")
    lists = {"prompts": fields.pop("prompts")} | fields.pop("references")
    parts = [f'"{name}": [\n  {_lines(rows)}\n ]' for name, rows in lists.items()]
    own, others = parts[0], ",\n ".join(parts[1:])
    head = json.dumps(fields, indent=1)[:-2]
    file = where / f"{result.pair.name}.json"
    write_atomic(file, f'{head},\n "references": {{{others}}},\n {own}\n}}\n')
    return file


def _lines(rows: Sequence[dict[str, Any]]) -> str:
    return ",\n  ".join(json.dumps(row) for row in rows)


def read_results(where: Path, settings: Settings, pairs: Sequence[Pair]) -> dict[Pair, Result]:
    """What there is of ``pairs``. `MatrixError` for a result of other settings."""
    found: dict[Pair, Result] = {}
    for pair in pairs:
        file = where / f"{pair.name}.json"
        if not file.exists():
            continue
        remedy = "Restore the file, or delete it to have the row made again"
        result = read_record(file, Result, what="a result of the ablation", remedy=remedy)
        wanted = settings_hash(settings, pair.row)
        if result.settings != wanted:
            raise MatrixError(
                f"the result was made with other settings (hash {result.settings}, those of now "
                f"have {wanted}); rows of different settings make no table",
                remedy="Restore settings.json and rows.py as they were, or move the folder away to "
                "begin anew",
                file=file,
                field="settings",
            )
        found[pair] = result
    return found


def scores(results: Sequence[Result], metric: Metric, ids: Sequence[str]) -> NDArray[np.float64]:
    """Values [S,P] of one row's training seeds, NaN where a prompt has none."""
    tables = [{one.id: one.value(metric) for one in result.prompts} for result in results]
    return np.array([[table.get(name, np.nan) for name in ids] for table in tables])

"""Results → the table, as markdown and JSON, with the paper's numbers beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ablation.intervals import Interval, detectable, interval
from ablation.results import PromptScore, Result, scores
from ablation.rows import (
    BASE,
    CONTRASTS,
    HEADLINES,
    PROBE_CONTRASTS,
    PROBES,
    REFERENCE,
    TITLES,
    Pair,
)
from ablation.settings import GROUPS, Settings, Split
from matrix_video.evaluation.estimates import FOR_VERDICT, holm, judged
from matrix_video.evaluation.references import CEILING, NULLS
from matrix_video.evaluation.scores import METRIC_NAMES, METRICS, Metric
from matrix_video.report.scores import reference_name
from matrix_video.report.wording import duration, number, signed

PAPER: Final[dict[str, tuple[float, float, float]]] = {
    BASE: (0.406, 0.491, 0.449),
    "all-rank": (0.445, 0.526, 0.486),
    REFERENCE: (0.490, 0.594, 0.542),
    "spa": (0.451, 0.540, 0.496),
    "sga": (0.509, 0.592, 0.550),
    "matrix": (0.546, 0.641, 0.593),
}
"""KISA, SGI and IF of the paper's ablation (CogVideoX-5B-I2V)."""
_NAMES: Final = TITLES | PROBES
SHOWN: Final[tuple[Metric, ...]] = ("if", "kisa_raw", "sgi_raw", "spi")
"""Metrics of a contrast."""


def group_of(id: str) -> str:
    """The split that a prompt's id begins with: "test-iid-0-000003" is of "test-iid"."""
    return id.rsplit("-", 2)[0]


def row_summary(results: Sequence[Result], split: Split) -> dict[str, Interval | None]:
    """Means of one row by metric, and of IF by group of prompts."""
    ids = [one.id for one in results[0].prompts]
    found: dict[str, Interval | None] = {
        metric: _estimate(scores(results, metric, ids)) for metric in METRICS
    }
    for group in GROUPS[split]:
        found[f"if {group}"] = _estimate(
            scores(results, "if", [i for i in ids if group_of(i) == group])
        )
    return found


def contrast(left: Sequence[Result], right: Sequence[Result], metric: Metric) -> Interval | None:
    """Paired difference over the training seeds and prompts that both have; the base, which has no
    training, stands against every seed. None where they have nothing in common."""
    lefts, rights = _by_seed(left, right), _by_seed(right, left)
    common = sorted({*lefts} & {*rights})
    if not common:
        return None
    ids = [one.id for one in left[0].prompts]
    return _estimate(
        scores([lefts[seed] for seed in common], metric, ids)
        - scores([rights[seed] for seed in common], metric, ids)
    )


def _by_seed(results: Sequence[Result], others: Sequence[Result]) -> dict[int, Result]:
    if results[0].row == BASE:
        return dict.fromkeys((one.seed for one in others), results[0])
    return {one.seed: one for one in results}


def _estimate(scores_SP: NDArray[np.float64]) -> Interval | None:
    """Over the prompts that have a value with every seed."""
    whole_SP = scores_SP[:, ~np.isnan(scores_SP).any(axis=0)]
    return interval(whole_SP) if whole_SP.size else None


def _reference(rows: Sequence[PromptScore]) -> dict[str, float | None]:
    """Means of a null row or the ceiling."""
    found: dict[str, float | None] = {}
    for metric in METRICS:
        values = [value for one in rows if not math.isnan(value := one.value(metric))]
        found[metric] = sum(values) / len(values) if values else None
    return found


def make_table(
    results: Mapping[Pair, Result], settings: Settings, split: Split, fraction: float
) -> dict[str, Any]:
    """Everything that the table says, as it goes into ``table.json``."""
    rows = {
        name: [results[pair] for pair in sorted(results) if pair.row == name] for name in _NAMES
    }
    rows = {name: found for name, found in rows.items() if found}
    seeds = training_seeds(settings, split)
    resolves = resolvable(settings, seeds).values()
    contrasts = _corrected(
        [
            _contrast(settings, rows[left], rows[right])
            for left, right in (*CONTRASTS, *PROBE_CONTRASTS)
            if left in rows and right in rows
        ]
    )
    references = rows[BASE][0].references if BASE in rows else {}
    return {
        "format": 1,
        "split": split,
        "fraction": fraction,
        "seeds": seeds,
        "settings": settings.model_dump(mode="json"),
        "detectable": [round(value, 4) for value in (min(resolves), max(resolves))],
        "rows": {
            name: {
                "seeds": [one.seed for one in found],
                "paper": PAPER.get(name),
                "scores": {k: _plain(v) for k, v in row_summary(found, split).items()},
                "heldout_aas": _mean([one.heldout_aas for one in found]),
                "losses": _mean([one.losses for one in found]),
                "parameters": found[0].parameters,
                "seconds": _mean([_seconds(one) for one in found]),
                "devices": sorted({str(one.environment["device"]) for one in found}),
            }
            for name, found in rows.items()
        },
        "references": {name: _reference(one) for name, one in references.items()},
        "contrasts": contrasts,
    }


def _contrast(
    settings: Settings, left: Sequence[Result], right: Sequence[Result]
) -> dict[str, Any]:
    """Differences by metric, and the least of IF that they can resolve with the seeds there are."""
    found = {metric: contrast(left, right, metric) for metric in SHOWN}
    own = found["if"]
    least = None if own is None else min(resolvable(settings, own.seeds).values())
    return {
        "left": left[0].row,
        "right": right[0].row,
        "headline": (left[0].row, right[0].row) in HEADLINES,
        "least": least if least is None else round(least, 4),
        **{metric: _plain(one) for metric, one in found.items()},
    }


def _corrected(contrasts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With which contrasts of IF stay resolved: the first headline alone, the others among each
    other."""
    names = [(one["left"], one["right"]) for one in contrasts]
    p_values = {
        name: one["if"]["p"]
        for name, one in zip(names, contrasts, strict=True)
        if name != HEADLINES[0] and one["if"] is not None and one["if"]["p"] is not None
    }
    kept = holm(p_values)
    return [
        {**one, "stays": kept.get(name, True), "among": len(p_values)}
        for name, one in zip(names, contrasts, strict=True)
    ]


def training_seeds(settings: Settings, split: Split) -> int:
    """On val every row has one."""
    return 1 if split == "val" else settings.seeds


def resolvable(settings: Settings, seeds: int) -> dict[tuple[float, float], float]:
    """Detectable differences of IF with so many training seeds, by deviation and repeated share
    (see `intervals.detectable`), neither of which is known before a run."""
    prior, prompts = settings.prior, settings.prompts
    return {
        (deviation, repeated): detectable(
            deviation, prior.seed_deviation, repeated, seeds=seeds, prompts=prompts
        )
        for deviation in prior.deviations
        for repeated in (0.0, 0.5, 1.0)
    }


def _plain(found: Interval | None) -> dict[str, Any] | None:
    return None if found is None else asdict(found)


def _mean(dicts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = [name for name in dicts[0] if all(name in one for one in dicts)]
    return {name: round(sum(one[name] for one in dicts) / len(dicts), 5) for name in names}


def _seconds(result: Result) -> dict[str, float]:
    wall = {stage: spent.seconds for stage, spent in result.spent.items()}
    cpu = {f"{stage} cpu": spent.cpu_seconds for stage, spent in result.spent.items()}
    return {**wall, **cpu}


def markdown(table: Mapping[str, Any]) -> str:
    """The tables as they go into the log."""
    settings, groups = table["settings"], GROUPS[table["split"]]
    low, high = table["detectable"]
    shown = _before_if(table)
    parts = [
        f"Split `{table['split']}`, {settings['prompts']} prompts, training seeds: "
        f"{table['seeds']}, {settings['training']['steps']} updates, "
        f"{settings['sampling']['steps']} sampling steps. A true difference of IF of {low:.3f} to "
        f"{high:.3f} is found with a power of 80 % (stated before the run, docs/log.md). "
        "Intervals: 95 %, over training seeds and prompts, by the spread seen between seeds and "
        "between prompts with a t quantile; with one training seed over prompts alone. The first "
        "contrast is the headline; the verdicts on the others are corrected for their number "
        "(Holm).",
        _grid(
            ["row", "seeds", *(METRIC_NAMES[m] for m in shown)]
            + [f"IF `{group}`" for group in groups if len(groups) > 1]
            + ["IF", "paper: KISA", "SGI", "IF"],
            [_score_row(name, row, groups, shown) for name, row in table["rows"].items()]
            + [
                _reference_row(name, row, shown, len(groups) if len(groups) > 1 else 0)
                for name, row in table["references"].items()
            ],
        ),
        _grid(
            ["difference", *(METRIC_NAMES[metric] for metric in SHOWN), "IF is"],
            [_contrast_row(one) for one in table["contrasts"]],
        ),
        _grid(
            [
                "row",
                "parameters",
                "own loss",
                "held-out AAS",
                "training",
                "sampling",
                "judge",
                "on",
            ],
            [_compute_row(name, row) for name, row in table["rows"].items()],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def short(table: Mapping[str, Any]) -> str:
    """The table of the README: the rows that the headlines compare with the base, the strongest
    null row and the ceiling; then the headlines."""
    rows, metrics = table["rows"], ("kisa_raw", "sgi_raw", "spi")
    wanted = [n for n in TITLES if n == BASE or n in {name for pair in HEADLINES for name in pair}]
    lines = [
        [
            *(TITLES[name], str(len(rows[name]["seeds"])) if name in rows else "–"),
            _with_interval(rows[name]["scores"]["if"], sign=False) if name in rows else "–",
            *(_value(rows[name]["scores"][m]) if name in rows else "–" for m in metrics),
        ]
        for name in wanted
    ]
    known = {name: row for name, row in table["references"].items() if row["if"] is not None}
    nulls = [name for name in known if name in NULLS]
    shown = sorted(nulls, key=lambda name: known[name]["if"])[-1:]
    lines += [
        [reference_name(name), "–", *(number(known[name][m] or 0.0) for m in ("if", *metrics))]
        for name in (*shown, *(name for name in known if name == CEILING))
    ]
    names = [METRIC_NAMES[m] for m in metrics]
    verdicts = [_contrast_row(one) for one in table["contrasts"] if one["headline"]]
    parts = [
        _grid(["row", "training seeds", "IF", *names], lines),
        _grid(["difference of IF", "mean", "is"], [[row[0], row[1], row[-1]] for row in verdicts]),
    ]
    return "\n\n".join(parts) + "\n"


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _before_if(table: Mapping[str, Any]) -> list[Metric]:
    """Metrics whose columns stand before IF: rows of before the gaps have none."""
    found = [row["scores"] for row in table["rows"].values()]
    return [m for m in METRICS if m != "if" and any(one[m] is not None for one in found)]


def _score_row(
    name: str, row: Mapping[str, Any], groups: Sequence[str], shown: Sequence[Metric]
) -> list[str]:
    found = row["scores"]
    means = [
        _with_interval(found[m], sign=False) if m in SHOWN else _value(found[m]) for m in shown
    ]
    means += [_value(found[f"if {group}"]) for group in groups if len(groups) > 1]
    paper = ["–"] * 3 if row["paper"] is None else [number(value) for value in row["paper"]]
    title = f"**{_NAMES[name]}**" if name in {left for left, _ in HEADLINES} else _NAMES[name]
    return [title, str(len(row["seeds"])), *means, _with_interval(found["if"], sign=False), *paper]


def _reference_row(
    name: str, row: Mapping[str, Any], shown: Sequence[Metric], blanks: int
) -> list[str]:
    """A null row or the ceiling, with so many empty cells before IF."""
    means = ["–" if row[m] is None else number(row[m]) for m in (*shown, "if")]
    return [reference_name(name), "–", *means[:-1], *[""] * blanks, means[-1], *[""] * 3]


def _contrast_row(one: Mapping[str, Any]) -> list[str]:
    names = f"{_NAMES[one['left']]} − {_NAMES[one['right']]}"
    cells = [_with_interval(one[metric], sign=True) for metric in SHOWN]
    bold = f"**{names}**" if one["headline"] else names
    return [bold, *cells, _verdict(one)]


def _verdict(one: Mapping[str, Any]) -> str:
    """What a difference is; ``least`` is the smallest that the run was planned to find."""
    found, least = one["if"], one["least"]
    if found is None:
        return "not measured"
    if found["prompts"] < FOR_VERDICT or found["low"] is None:
        return f"too few prompts for a verdict ({found['prompts']} of {FOR_VERDICT})"
    standing = judged(found["mean"], found["low"], found["high"], least)
    if standing == "not resolved":
        return "not resolved"
    if not one["stays"]:
        return f"not resolved among {one['among']} contrasts"
    side = "higher" if found["mean"] > 0 else "lower"
    if standing == "smaller than planned":
        return f"{side}: resolved; smaller than the run was planned to find ({least:.3f})"
    return f"{side}: resolved"


def _compute_row(name: str, row: Mapping[str, Any]) -> list[str]:
    seconds = row["seconds"]
    spent = [
        f"{duration(seconds.get(stage))} ({duration(seconds.get(f'{stage} cpu'))})"
        for stage in ("train", "generate", "evaluate")
    ]
    counts = ", ".join(f"{k.removeprefix('matrix_')} {v:,}" for k, v in row["parameters"].items())
    aas = ", ".join(f"{k} {number(v)}" for k, v in row["heldout_aas"].items())
    loss = row["losses"].get("diffusion")
    own = "–" if loss is None else number(loss, 4)
    return [_NAMES[name], counts or "–", own, aas or "–", *spent, "; ".join(row["devices"])]


def _value(found: Mapping[str, Any] | None) -> str:
    return "–" if found is None else number(found["mean"])


def _with_interval(found: Mapping[str, Any] | None, *, sign: bool) -> str:
    if found is None:
        return "–"
    write = signed if sign else number
    if found["low"] is None:
        return write(found["mean"])
    return f"{write(found['mean'])} [{write(found['low'])}, {write(found['high'])}]"

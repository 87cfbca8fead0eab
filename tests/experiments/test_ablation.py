"""The ablation's tool: rows, intervals, what stays on disk, and a small run from end to end."""

import importlib
import json
import subprocess
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from matrix_video.backbones.fingerprint import fingerprint
from matrix_video.backbones.loading import backbone_for, load_pipeline
from matrix_video.backbones.tiny import tiny_pipeline
from matrix_video.data.dataset import Dataset
from matrix_video.data.writer import DatasetWriter
from matrix_video.evaluation.references import NULLS
from matrix_video.evaluation.scores import Numbers
from matrix_video.recipes.settings import tiny
from matrix_video.services.errors import MatrixError
from matrix_video.training.config import TrainConfig
from matrix_video.training.student import Layers, make_student
from matrix_video.world.captions import vocabulary
from matrix_video.world.write import write_split

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
PARTS = ("settings", "rows", "intervals", "results", "work", "table", "courses", "__main__")
NOWHERE = {"data": Path("d"), "out": Path("o"), "cache": Path("c")}


@pytest.fixture(scope="module")
def lab() -> Generator[Any]:
    """The modules of ``experiments/ablation``, by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS)
        found = {name: importlib.import_module(f"ablation.{name}") for name in PARTS}
        yield SimpleNamespace(**found)


def configs(lab: Any) -> dict[str, dict[str, Any]]:
    """All trained rows' settings, of training seed 1."""
    settings = lab.settings.read_settings()
    made = {
        pair.row: lab.rows.train_config(settings, pair, **NOWHERE)
        for pair in lab.rows.pairs(settings)
        if pair.seed == 1
    }
    return {row: config.model_dump() for row, config in made.items()}


def differences(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    return {key: left[key] for key in left if left[key] != right[key]}


# -- rows ------------------------------------------------------------------------------------


def test_rows_differ_from_the_reference_in_what_they_claim_alone(lab: Any) -> None:
    found = configs(lab)
    reference = found.pop("selected")
    assert (reference["sga"], reference["spa"], reference["id_map"]) == (0, 0, True)
    assert (reference["lora_layers"], reference["v2t"], reference["v2v"]) == (
        *("selected", (2, 7)),
        (1, 0),
    )
    both = {"sga": 0.02, "spa": 0.01}
    assert {row: differences(one, reference) for row, one in found.items()} == {
        "all-rank": {"lora_layers": "all", "id_map": False},
        "all-size": {
            "lora_layers": "all",
            "id_map": False,
            "lora_rank": 8,
            "lora_alpha": 8.0,
        },
        "selected-no-id": {"id_map": False},
        "spa": {"spa": 0.01},
        "sga": {"sga": 0.02},
        "matrix": both,
        "shuffled": {**both, "shuffle_masks": True},
        "other-layers": {**both, "v2t": (4, 5), "v2v": (6, 3)},
        "no-decoder": {**both, "decoder": False},
    }
    assert set(found) | {"selected", "base"} == set(lab.rows.TITLES)


def test_probes_change_what_they_claim_alone_and_never_meet_test(lab: Any, tmp_path: Path) -> None:
    settings = lab.settings.read_settings()

    def config(row: str) -> dict[str, Any]:
        pair = lab.rows.Pair(0, row)
        return lab.rows.train_config(settings, pair, **NOWHERE).model_dump()

    long = {"steps": 3 * settings.training["steps"]}
    assert differences(config("long-selected"), config("selected")) == long
    assert differences(config("long"), config("matrix")) == long
    assert differences(config("strong"), config("matrix")) == {"sga": 0.1, "spa": 0.05}
    alone = {"v2t": (2,), "v2v": (2,)}
    assert differences(config("dominant-lora"), config("selected")) == alone
    assert differences(config("dominant"), config("matrix")) == alone
    assert differences(config("noisy"), config("matrix")) == {"align_noise": (3, 4)}
    assert differences(config("all-id"), config("selected")) == {"lora_layers": "all"}
    assert differences(config("free"), config("matrix")) == {"lora_layers": "all"}
    assert differences(config("qk-lora"), config("selected")) == {"lora_projections": "qk"}
    assert differences(config("qk"), config("matrix")) == {"lora_projections": "qk"}
    on_val = {*lab.rows.pairs(settings, "val")} - {*lab.rows.pairs(settings)}
    assert on_val == {lab.rows.Pair(0, row) for row in lab.rows.PROBES}
    asked = lab.__main__.Run(split="test", rows=("long",), results=tmp_path)
    with pytest.raises(MatrixError, match=r"rows: there is no row 'long' on test"):
        lab.__main__.run(asked)
    pilot = lab.__main__.Run(results=tmp_path)
    assert not {pair.row for pair in lab.__main__.missing(pilot)} & {*lab.rows.PROBES}


def test_the_control_has_other_layers_and_as_many(lab: Any) -> None:
    settings = lab.settings.read_settings()
    chosen, control = (
        {*layers.v2t, *layers.v2v} for layers in (settings.selected, settings.others)
    )
    assert not chosen & control
    assert len(chosen) == len(control) == 4


def test_training_is_that_of_the_tiny_recipe(lab: Any) -> None:
    recipe = tiny(data=Path("d"), out=Path("o"), layers=Path("l"), cache=Path("c"), seed=1)
    changed = differences(configs(lab)["matrix"], recipe.model_dump())
    # Layers by number, float32 on every machine, and how often it is scored and saved.
    assert set(changed) <= {
        *("layers", "v2t", "v2v", "precision", "limit"),
        *("steps", "heldout_every", "checkpoint_every"),
    }


def test_settings_are_frozen_for_the_shipped_base(lab: Any) -> None:
    settings = lab.settings.read_settings()
    found = fingerprint(load_pipeline(settings.model).transformer)
    assert found.weights == settings.weights


def test_all_layers_at_a_lower_rank_have_as_many_parameters(lab: Any) -> None:
    backbone = backbone_for(tiny_pipeline(layers=8))
    counts: dict[str, int] = {}
    for row in ("selected-no-id", "all-size", "all-rank"):
        config = TrainConfig(**{**configs(lab)[row], "cache": None})
        student = make_student(backbone, config, Layers(config.v2t, config.v2v), (9, 32, 32))
        counts[row] = sum(p.numel() for p in student.parameters.values())
        student.detach()
    assert counts["all-size"] == pytest.approx(counts["selected-no-id"], rel=0.02)
    assert counts["all-rank"] == 2 * counts["selected-no-id"]


def test_what_says_most_is_made_first_and_the_base_once(lab: Any) -> None:
    settings = lab.settings.read_settings()
    names = [pair.name for pair in lab.rows.pairs(settings)]
    assert names[:4] == ["selected-0", "matrix-0", "shuffled-0", "base-0"]
    assert len(names) == len(set(names)) == 10 * 3 + 1
    assert names[11:13] == ["selected-1", "matrix-1"]
    pilot = settings.scaled(0.1)
    assert {pair.seed for pair in lab.rows.pairs(pilot)} == {0}
    assert pilot.prompts == 40
    assert pilot.training["steps"] == round(0.1 * settings.training["steps"])
    with pytest.raises(MatrixError, match=r"fraction: a fraction of 0 of the ablation"):
        settings.scaled(0)


# -- intervals -------------------------------------------------------------------------------


@pytest.mark.parametrize("repeated", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("of_seeds", [0.0, 0.005, 0.02])
def test_where_there_is_no_difference_one_in_twenty_is_found(
    lab: Any, repeated: float, of_seeds: float
) -> None:
    random, found = np.random.default_rng(2), []
    for _ in range(800):
        one = lab.intervals.interval(drawn(random, 0.0, of_seeds, repeated))
        found.append(one.low > 0 or one.high < 0)
        assert (one.p < 0.05) == found[-1]
    assert np.mean(found) <= 0.08


def drawn(
    random: np.random.Generator, true: float, of_seeds: float, repeated: float, prompts: int = 100
) -> np.ndarray:
    """Differences of three training seeds, which have ``repeated`` of what prompts differ by in
    common."""
    return (
        true
        + random.normal(0, of_seeds, (3, 1))
        + random.normal(0, 0.15 * np.sqrt(repeated), (1, prompts))
        + random.normal(0, 0.15 * np.sqrt(1 - repeated), (3, prompts))
    )


@pytest.mark.parametrize("repeated", [0.5, 1.0])
def test_a_detectable_difference_is_found_four_times_in_five(lab: Any, repeated: float) -> None:
    true = lab.intervals.detectable(0.15, 0.003, repeated, seeds=3, prompts=100)
    random = np.random.default_rng(2)
    found = [
        lab.intervals.interval(drawn(random, true, 0.003, repeated)).low > 0 for _ in range(800)
    ]
    assert np.mean(found) == pytest.approx(0.8, abs=0.05)


def test_with_one_training_seed_the_interval_is_over_prompts(lab: Any) -> None:
    scores_P = np.random.default_rng(1).normal(0.1, 0.15, size=400)
    found = lab.intervals.interval(scores_P[None])
    half = 1.9659 * scores_P.std(ddof=1) / 20
    assert (found.seeds, found.prompts) == (1, 400)
    assert (found.low, found.high) == pytest.approx(
        (scores_P.mean() - half, scores_P.mean() + half), rel=1e-4
    )


def test_few_prompts_and_no_spread_at_all(lab: Any) -> None:
    assert lab.intervals.interval(np.ones((3, 4))) == lab.intervals.Interval(1, None, None, 3, 4)
    assert lab.intervals.interval(np.ones((3, 5))) == lab.intervals.Interval(1, 1, 1, 3, 5, 0)


# -- results and table -----------------------------------------------------------------------


def made(lab: Any, settings: Any, row: str, seed: int, gain: float, split: str = "val") -> Any:
    """A result whose IF is ``gain`` higher than another one's of gain 0, for every prompt."""
    groups = lab.settings.GROUPS[split]
    share = settings.prompts // len(groups)
    prompts = [
        lab.results.PromptScore(
            id=f"{group}-0-{i:06d}",
            kisa_raw=0.3 + 0.4 * (i % 2) + gain,
            sgi_raw=0.3 + 0.4 * (i % 2) + gain,
            spi=1.0,
            answers=("yynnynyynn",),
        )
        for group in groups
        for i in range(share)
    ]
    return lab.results.Result(
        row=row,
        seed=seed,
        settings=lab.rows.settings_hash(settings, row),
        updates=10,
        parameters={} if row == "base" else {"lora": 1000, "matrix_cond": 20},
        heldout_aas={"2/v2t": 0.25 + seed / 4},
        losses={"diffusion": 0.03},
        spent={"generate": {"seconds": 90.0, "cpu_seconds": 150.0}},
        environment={"device": "a machine"},
        source=None,
        references={"ceiling": tuple(prompts)} if row == "base" else {},
        prompts=tuple(prompts),
    )


def test_results_come_back_as_they_were(lab: Any, tmp_path: Path) -> None:
    settings = lab.settings.read_settings().scaled(0.02)
    kept = {
        one.pair: one
        for one in (made(lab, settings, "base", 0, 0.0), made(lab, settings, "matrix", 0, 0.1))
    }
    for one in kept.values():
        file = lab.results.write_result(tmp_path, one)
        assert len(file.read_text().splitlines()) > settings.prompts  # a line a prompt
    assert lab.results.read_results(tmp_path, settings, lab.rows.pairs(settings)) == kept


def test_results_of_other_settings_are_refused(lab: Any, tmp_path: Path) -> None:
    settings = lab.settings.read_settings().scaled(0.02)
    lab.results.write_result(tmp_path, made(lab, settings, "matrix", 0, 0.1))
    heavier = settings.model_copy(update={"sga": 0.1})
    with pytest.raises(MatrixError) as caught:
        lab.results.read_results(tmp_path, heavier, lab.rows.pairs(settings))
    text = str(caught.value)
    assert text.startswith(
        f"{tmp_path / 'matrix-0.json'}: settings: the result was made with other"
    )
    assert lab.rows.settings_hash(heavier, "matrix") in text
    assert "Restore settings.json" in text


def test_a_prompts_score_is_the_judges_own(lab: Any) -> None:
    video = Numbers(id="v", kisa_raw=0.5, sgi_raw=0.25, spi=0.8, role_gap=0.1)
    score = lab.results.PromptScore.of(video)
    assert score.value("if") == pytest.approx((0.5 * 0.8 + 0.25 * 0.8) / 2)
    assert score.value("role_gap") == 0.1
    assert np.isnan(score.value("verb_gap"))
    assert np.isnan(score.model_copy(update={"sgi_raw": None}).value("if"))


def test_table_has_rows_contrasts_and_the_papers_numbers(lab: Any) -> None:
    settings = lab.settings.read_settings().scaled(0.1).model_copy(update={"seeds": 2})
    gains = {"base": 0.0, "selected": 0.1, "matrix": 0.1, "shuffled": 0.2}
    results = [
        made(lab, settings, row, seed, gain, split="test")
        for row, gain in gains.items()
        for seed in ((0,) if row == "base" else (0, 1))
    ]
    # One training seed of the placebo is still to come.
    results = [one for one in results if one.pair.name != "shuffled-1"]
    table = lab.table.make_table({one.pair: one for one in results}, settings, "test", 1.0)
    by_pair = {(one["left"], one["right"]): one for one in table["contrasts"]}
    equal, lower = by_pair["matrix", "selected"], by_pair["matrix", "shuffled"]
    assert (equal["headline"], equal["if"]["mean"], equal["if"]["seeds"]) == (True, 0, 2)
    assert (lower["if"]["seeds"], lower["stays"], lower["among"]) == (1, True, 3)
    assert lower["if"]["mean"] == pytest.approx(-0.1)
    assert by_pair["base", "selected"]["if"]["seeds"] == 2  # the base stands against each
    assert ("sga", "selected") not in by_pair
    assert table["references"]["ceiling"]["if"] == pytest.approx(0.5)
    low, high = table["detectable"]
    assert 0.03 < low < high < 0.09  # of 40 prompts and 2 training seeds
    text = lab.table.markdown(table)
    for line in (
        "| LoRA, selected layers, id map | 2 | 0.600 [0.535, 0.665] | 0.600 [0.535, 0.665] | "
        "1.000 [1.000, 1.000] | 0.600 | 0.600 | 0.600 | 0.600 | 0.600 [0.535, 0.665] | "
        "0.490 | 0.594 | 0.542 |",
        "| ground truth through the VAE | – | 0.500 | 0.500 | 1.000 | 0.500 | 0.500 |  |  | "
        "0.500 |  |  |  |",
        "IF `test-iid` | IF `test-composition` | IF | paper: KISA | SGI | IF |",
        "| lora 1,000, cond 20 | 0.0300 | 2/v2t 0.375 | – (–) | 1 min 30 s (2 min 30 s) | – (–) | "
        "a machine |",
    ):
        assert line in text
    headlines = [
        line for line in text.splitlines() if line.startswith("| **+ SPA + SGA (MATRIX) −")
    ]
    assert [line.split("| ")[-1] for line in headlines] == ["not resolved |", "lower: resolved |"]
    assert lab.table.short(table).splitlines()[:7] == [
        "| row | training seeds | IF | KISA_raw | SGI_raw | SPI |",
        "| --- | --- | --- | --- | --- | --- |",
        "| base | 1 | 0.500 [0.435, 0.565] | 0.500 | 0.500 | 1.000 |",
        "| LoRA, selected layers, id map | 2 | 0.600 [0.535, 0.665] | 0.600 | 0.600 | 1.000 |",
        "| + SPA + SGA (MATRIX) | 2 | 0.600 [0.535, 0.665] | 0.600 | 0.600 | 1.000 |",
        "| both, shuffled masks | 1 | 0.700 [0.635, 0.765] | 0.700 | 0.700 | 1.000 |",
        "| ground truth through the VAE | – | 0.500 | 0.500 | 0.500 | 1.000 |",
    ]


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        (-0.02, "lower: resolved; smaller than the run was planned to find (0.053)"),
        (0.02, "higher: resolved; smaller than the run was planned to find (0.053)"),
        (0.06, "higher: resolved"),
        (0.0, "not resolved"),
    ],
)
def test_a_resolved_difference_below_the_planned_one_says_so(
    lab: Any, gain: float, verdict: str
) -> None:
    """The difference is the same for every prompt, so that its interval is narrow."""
    settings = lab.settings.read_settings().scaled(0.1).model_copy(update={"seeds": 2})
    results = [
        made(lab, settings, row, seed, 0.1 + extra, split="test")
        for row, extra in (("selected", 0.0), ("matrix", gain))
        for seed in (0, 1)
    ]
    table = lab.table.make_table({one.pair: one for one in results}, settings, "test", 1.0)
    (line,) = (one for one in lab.table.short(table).splitlines() if "MATRIX) −" in one)
    assert line.endswith(f"] | {verdict} |")


def test_on_val_the_detectable_difference_is_that_of_one_training_seed(lab: Any) -> None:
    settings = lab.settings.read_settings()
    result = made(lab, settings, "matrix", 0, 0.0)
    on_val = lab.table.make_table({result.pair: result}, settings, "val", 1.0)
    on_test = lab.table.make_table({result.pair: result}, settings, "test", 1.0)
    assert on_test["detectable"] == [0.0161, 0.0222]  # docs/log.md, 2026-11-25
    assert on_val["seeds"] == 1
    assert on_val["detectable"][0] > on_test["detectable"][0]
    assert "training seeds: 1, " in lab.table.markdown(on_val)


def test_the_readme_has_the_table_of_the_results(lab: Any) -> None:
    """Otherwise: `runs/ablation-tiny.sh table --split test`, then copy its short.md."""
    settings = lab.settings.read_settings()
    where = lab.results.folder(lab.results.FOLDER, "test", 1.0)
    results = lab.results.read_results(where, settings, lab.rows.pairs(settings))
    found = lab.table.short(lab.table.make_table(results, settings, "test", 1.0))
    assert (where / "short.md").read_text() == found
    assert found in (EXPERIMENTS.parent / "README.md").read_text()
    # The paper's own numbers and the other rows are one click away.
    whole = (where / "table.md").read_text()
    assert "| 0.406 | 0.491 | 0.449 |" in whole
    assert all(title in whole for title in lab.rows.TITLES.values())


# -- courses ---------------------------------------------------------------------------------


def test_courses_know_how_far_a_video_strays(
    lab: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_split(tmp_path / "prompts", 3, seed=0, split="val")
    prompts = Dataset(tmp_path / "prompts")
    out = tmp_path / "out"
    for row in ("frozen", "moved"):
        with DatasetWriter(out / f"val/{row}-0/videos-val/dataset") as writer:
            for i in range(3):
                video = prompts.video(i)
                frames_THWC = np.repeat(video.frames_THWC[:1], len(video), axis=0)
                if row == "moved":  # everything two pixels to the right after the first frame
                    frames_THWC = video.frames_THWC.copy()
                    frames_THWC[1:, :, 2:] = video.frames_THWC[1:, :, :-2]
                writer.add(prompts.sample(i), frames_THWC, video.fps, {}, lossless=True)
    moved, frozen = (out / f"val/{row}-0/videos-val/dataset" for row in ("moved", "frozen"))
    aside = lab.courses.measure(moved, prompts, 3)
    still = lab.courses.measure(frozen, prompts, 3)
    assert np.median(aside["error subject"]) == pytest.approx(2, abs=0.5)
    assert np.nanmin(still["error subject"]) > 1  # whoever acts moves
    gap = lab.courses.differences([still], [aside])["error subject"]
    assert gap["mean"] == pytest.approx(np.mean(still["error subject"] - aside["error subject"]))
    (tmp_path / "out/data").mkdir()
    (tmp_path / "prompts").rename(tmp_path / "out/data/val")
    common = {"out": out, "prompts": 3, "results": tmp_path}
    for contrast in ("frozen,moved", "moved,frozen"):
        lab.courses.main(lab.courses.Options((contrast,), **common))
        capsys.readouterr()
    kept = json.loads((tmp_path / "val/courses.json").read_text())["differences"]
    assert [*kept] == ["frozen − moved", "moved − frozen"]
    assert kept["frozen − moved"]["error subject"]["mean"] == pytest.approx(gap["mean"])
    with pytest.raises(MatrixError, match=r"contrasts: 'moved' is no contrast"):
        lab.courses.main(lab.courses.Options(("moved",), **common))
    with pytest.raises(MatrixError, match=r"dataset: prompt val-0-000003 has no video"):
        write_split(tmp_path / "more", 4, seed=0, split="val")
        lab.courses.measure(frozen, Dataset(tmp_path / "more"), 4)


# -- the run ---------------------------------------------------------------------------------


def test_test_prompts_are_for_the_whole_alone(lab: Any, tmp_path: Path) -> None:
    with pytest.raises(MatrixError, match=r"fraction of 0\.5 on the test prompts.*pilots on val"):
        lab.__main__.Run(split="test", fraction=0.5, results=tmp_path)


def test_the_next_missing_row_is_taken_that_nobody_works_on(lab: Any, tmp_path: Path) -> None:
    options = lab.__main__.Run(fraction=0.02, results=tmp_path / "results", out=tmp_path / "out")
    settings = options.scaled
    lab.results.write_result(options.where, made(lab, settings, "selected", 0, 0.0))
    with lab.work.held(tmp_path / "out/val-0.02/matrix-0", wait=False) as ours:
        assert ours
        taken = []
        for pair, _ in lab.__main__.claimed(options):
            taken.append(pair.name)
            lab.results.write_result(options.where, made(lab, settings, pair.row, 0, 0.0))
    assert taken[:2] == ["shuffled-0", "base-0"]
    assert {*taken} == {f"{row}-0" for row in lab.rows.TITLES} - {"selected-0", "matrix-0"}
    assert [pair.name for pair in lab.__main__.missing(options)] == ["matrix-0"]


@pytest.fixture
def small(lab: Any, tmp_path: Path) -> Path:
    """Settings of a random pipeline of three layers."""
    folder = tmp_path / "tiny"
    pipe = tiny_pipeline(layers=3, size=64, num_frames=17, vocab=vocabulary())
    pipe.save_pretrained(folder)
    stored = json.loads(lab.settings.FILE.read_text())
    stored |= {
        "model": str(folder),
        "weights": fingerprint(pipe.transformer).weights,
        "num_layers": 3,
        "selected": {"v2t": [0], "v2v": [1]},
        "others": {"v2t": [2], "v2v": [0]},
        "seeds": 1,
        "clips": 6,
        "prompts": 2,
        "sampling": {"steps": 1, "guidance": 6.0, "seed": 0, "batch": 2},
    }
    stored["training"] |= {"steps": 2, "batch": 2, "warmup": 0, "heldout_samples": 1}
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(stored))
    return file


def test_a_small_run_trains_scores_commits_and_goes_on(
    lab: Any,
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "A")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "a@b.c")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    common = {"settings": small, "results": tmp_path / "results", "out": tmp_path / "out"}
    one = lab.__main__.Run(**common, rows=("shuffled", "base"), seconds=0.0, commit=True)
    lab.__main__.run(one)  # the budget is used up after the first row
    assert [pair.name for pair in lab.__main__.missing(one)] == ["base-0"]
    assert "1 to be made" in capsys.readouterr().out
    lab.__main__.run(one)
    printed = capsys.readouterr().out
    assert "shuffled-0" not in printed  # scored once
    assert "base-0: done" in printed
    results = one.known()
    trained, base = (results[lab.rows.Pair(0, row)] for row in ("shuffled", "base"))
    assert len(trained.prompts) == len(base.prompts) == 2
    assert set(base.references) == {*NULLS, "ground_truth", "ceiling"}
    assert set(trained.parameters) == {"lora", "matrix_cond", "matrix_decoder"}
    assert set(trained.losses) == {"diffusion", "sga", "spa"}
    assert set(trained.spent) == {"train", "generate", "evaluate"}
    log = subprocess.run(
        ["git", "-C", str(tmp_path), "log", "--format=", "--name-only"],
        capture_output=True,
        text=True,
        check=True,
    )
    files = ["results/val/base-0.json", "results/val/shuffled-0.json"]
    assert log.stdout.split() == files  # a row a commit, the newest first, and nothing else
    assert (tmp_path / "results/val/table.md").read_text() in printed
    monkeypatch.setattr(lab.work.Workshop, "make", None)  # nothing is left to be made
    lab.__main__.run(one)


def test_another_base_than_the_frozen_one_is_refused(lab: Any, small: Path, tmp_path: Path) -> None:
    stored = json.loads(small.read_text()) | {"weights": "0123456789abcdef"}
    small.write_text(json.dumps(stored))
    settings = lab.settings.read_settings(small)
    with pytest.raises(
        MatrixError, match=r"weights: the model .* the settings name 0123456789abcdef"
    ):
        lab.work.Workshop(tmp_path / "out", settings, "val")

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS)
        return importlib.import_module("planted_layers")


def record(arm: str, planted: list[int], log_lift: list[float], error: float) -> dict[str, Any]:
    group = {"log_lift": log_lift, "error": [error] * len(log_lift)}
    best = sorted(range(len(log_lift)), key=lambda i: -log_lift[i])[:2]
    return {
        "arm": arm,
        "planted": {"v2t": planted, "v2v": planted},
        "chosen": {"v2t": best, "v2v": best},
        "unwarned": {"v2t": best, "v2v": best},
        "dominant": {"v2t": [], "v2v": [best[0]]},
        "alarms": [[False, True, False, False]],
        "evidence": {
            f"{kind} {words}": group for kind in ("v2t", "v2v") for words in ("nouns", "verbs")
        },
    }


def test_layers_are_drawn_apart_for_each_kind_and_again_alike(script: ModuleType) -> None:
    config = script.PlantedTest(out=Path("unused"))
    jobs = script.make_jobs(config)
    assert jobs == script.make_jobs(config)
    assert len({job.name for job in jobs}) == len({job.seed for job in jobs}) == len(jobs)
    sizes = {
        arm: {len(job.planted[kind]) for job in jobs if job.arm == arm for kind in ("v2t", "v2v")}
        for arm in ("planted", "few", "weak", "chance", "untrained")
    }
    assert sizes == {"planted": {3}, "few": {1, 2}, "weak": {3}, "chance": {0}, "untrained": {0}}
    sets = [job.planted["v2t"] for job in jobs if job.arm == "planted"]
    assert len(set(sets)) > 10
    assert any(job.planted["v2t"] != job.planted["v2v"] for job in jobs)


def test_displaced_tracks_leave_the_instances_after_the_first_frame(script: ModuleType) -> None:
    clip = script.world_clip("analysis", 0)
    moved = script.displaced(clip)
    for name, track in clip.tracks.items():
        before, after = track.masks(), moved.tracks[name].masks()
        assert np.array_equal(before[0], after[0])
        assert (before.sum(axis=(1, 2)) == after.sum(axis=(1, 2))).all()
        assert not (before & after)[1:].any()


def test_a_layer_that_is_chosen_counts_only_well_above_chance(script: ModuleType) -> None:
    clear = record("planted", [1], [0.0, 0.5, 0.02, 0.0], error=0.01)
    assert clear["chosen"]["v2t"] == [1, 2]
    assert script.above_chance(clear, "v2t") == [1]
    assert script.above_chance(record("planted", [1], [0.0, 0.5], error=0.3), "v2t") == []


def test_the_summary_pools_layers_over_the_sets_of_an_arm(script: ModuleType) -> None:
    records = [
        record("planted", [1], [0.0, 0.5, 0.02, 0.0], error=0.01),
        record("planted", [1, 3], [0.0, 0.5, 0.02, 0.0], error=0.01),
        record("chance", [], [0.0, 0.01, 0.02, 0.0], error=0.01),
    ]
    arms = script.summarise(records)
    chosen, above = (arms["planted"][rule]["v2t"] for rule in ("chosen", "above chance"))
    assert (chosen["precision"], chosen["recall"], chosen["exact"]) == (2 / 4, 2 / 3, 0)
    assert (above["precision"], above["recall"], above["exact"]) == (1.0, 2 / 3, 1)
    assert arms["chance"]["chosen"]["v2v"]["precision"] == 0
    assert arms["chance"]["above chance"]["v2v"]["precision"] is None
    assert arms["planted"]["alarms"] == {"tests": 8, "dominant": 2}
    assert arms["planted"]["log_lift"]["v2t"] == {
        "planted": [0.0, 0.5, 0.5],
        "other": [0.0, 0.0, 0.02],
    }
    assert "planted" not in arms["chance"]["log_lift"]["v2t"]
    assert arms["planted"]["dominant above chance"]["v2v"]["hits"] == 2


def test_results_are_whole_and_short(script: ModuleType, tmp_path: Path) -> None:
    records = [record("planted", [1], [0.0, 0.5, 0.02, 0.0], error=0.01) | {"name": "planted-00"}]
    config = script.PlantedTest(out=tmp_path)
    file = tmp_path / "results.json"
    assert script.write_results(file, config, records) == script.summarise(records)
    stored = json.loads(file.read_text())
    assert stored["arms"] == script.summarise(records)
    assert stored["settings"]["planting"]["steps"] == 25
    assert stored["models"][0]["above chance"]["v2t"] == [1]


@pytest.mark.slow
def test_the_analysis_names_planted_layers_and_nothing_else(
    script: ModuleType, tmp_path: Path
) -> None:
    settings = script.Settings(bases=2)
    config = script.PlantedTest(
        out=tmp_path, planted=2, few=0, weak=0, chance=1, untrained=0, planting=settings
    )
    planted_0, planted_1, chance = script.run(config)
    for found in (planted_0, planted_1):
        for kind in ("v2t", "v2v"):
            assert set(found["chosen"][kind]) == set(found["planted"][kind])
            assert set(script.above_chance(found, kind)) == set(found["planted"][kind])
            assert found["dominant"][kind], "at least one of three"
            assert set(found["dominant"][kind]) <= set(found["planted"][kind])
    assert not any(script.above_chance(chance, kind) for kind in ("v2t", "v2v"))
    assert script.run(config) == [planted_0, planted_1, chance], "the lines are read, not made"

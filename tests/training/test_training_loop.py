"""Runs of the loop: golden losses, splits of a batch, stops and resumptions."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from matrix_video.backbones.adapter import LORA_FILE
from matrix_video.data.sample import Sample
from matrix_video.data.video import Video, read_video
from matrix_video.evaluation.verdict import Answer, Propagation, Verdict
from matrix_video.recipes.watch import StudentVideos
from matrix_video.services.errors import MatrixError
from matrix_video.training.batches import make_batch
from matrix_video.training.config import TrainConfig
from matrix_video.training.heldout import heldout_aas
from matrix_video.training.run import train

Make = Callable[..., TrainConfig]
GOLDEN = Path(__file__).with_name("golden_losses.json")


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of an adapter folder."""
    return {
        f"{file.name}:{name}": tensor
        for file in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl without what a clock put there."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if "seconds" not in k} for line in lines]


def assert_same_adapter(left: Path, right: Path, tolerance: float = 0.0) -> None:
    ours, theirs = state_of(left / "adapter"), state_of(right / "adapter")
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        if tolerance:
            torch.testing.assert_close(value, theirs[name], atol=tolerance, rtol=0)
        else:
            assert torch.equal(value, theirs[name]), name


def test_golden_losses(pipe: Any, config: Make, tmp_path: Path) -> None:
    """Ten updates of everything at once. Stored by `MATRIX_GOLDEN=1 pytest` on one thread; the
    tolerance is for other processors' rounding."""
    train(config(steps=10, out=tmp_path / "run"), pipe)
    found = metrics(tmp_path / "run")
    if os.environ.get("MATRIX_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    expected = json.loads(GOLDEN.read_text())
    assert [set(line) for line in found] == [set(line) for line in expected]
    for line, wanted in zip(found, expected, strict=True):
        for name, value in wanted.items():
            assert line[name] == pytest.approx(value, rel=2e-3, abs=1e-6), (wanted["step"], name)


@pytest.mark.parametrize(
    ("changes", "files", "terms"),
    [
        ({"sga": 0, "spa": 0, "id_map": False}, set(), set()),
        ({"sga": 0, "spa": 0}, {"matrix_cond"}, set()),
        ({"id_map": False}, {"matrix_decoder"}, {"sga", "spa", "spa_skipped"}),
        ({}, {"matrix_cond", "matrix_decoder"}, {"sga", "spa", "spa_skipped"}),
        ({"spa": 0, "decoder": False}, {"matrix_cond"}, {"sga"}),
        ({"sga": 0, "lora_layers": "all", "map_mode": "logits"}, {"matrix_cond", "matrix_decoder"},
         {"spa", "spa_skipped"}),
        ({"lora_projections": "qk"}, {"matrix_cond", "matrix_decoder"},
         {"sga", "spa", "spa_skipped"}),
    ],
    ids=["lora", "lora+id", "matrix", "matrix+id", "sga alone", "spa alone", "q and k"],
)  # fmt: skip
def test_rows_of_the_experiment(
    pipe: Any, config: Make, changes: dict[str, Any], files: set[str], terms: set[str]
) -> None:
    settings = config(steps=2, **changes)
    result = train(settings, pipe)
    assert result.adapter == settings.out / "adapter"
    kept = {f.stem for f in result.adapter.glob("*.safetensors")}
    assert kept == files | {"pytorch_lora_weights"}
    line = metrics(settings.out)[1]
    plain = {name for name in line if "/" not in name}
    assert plain == {"step", "loss", "diffusion", "grad_norm", "lr"} | terms
    of = {name.partition("/")[0] for name in line if "/" in name}
    live = {"aas"} if terms else set()
    assert of == {"diffusion"} | (terms - {"spa_skipped"}) | live
    scores = {name for name in metrics(settings.out)[0] if name != "step"}
    assert scores == {"heldout_aas/0/v2t", "heldout_aas/1/v2t", "heldout_aas/1/v2v"}
    lora = {n: v for n, v in state_of(result.adapter).items() if "lora_B" in n}
    assert len(lora) == (4 if "lora_projections" in changes else 8)
    assert all(value.any() for value in lora.values())


@pytest.mark.parametrize("decoder", [False, True])
def test_attention_moves_into_the_masks(pipe: Any, config: Make, decoder: bool) -> None:
    """Alignment raises the score, which never sees the decoder, far above the base's."""
    settings = config(
        steps=40, sga=3.0, spa=3.0, lr=3e-2, lr_new=1e-3, clip_grad=10.0, decoder=decoder,
        heldout_every=40, caption_dropout=0.0, checkpoint_every=40,
    )  # fmt: skip
    result = train(settings, pipe)
    lines = metrics(settings.out)
    for name in ("heldout_aas/0/v2t", "heldout_aas/1/v2t", "heldout_aas/1/v2v"):
        assert lines[-1][name] > 1.25 * lines[0][name]
    for term in ("sga", "spa"):
        assert sum(u[term] for u in lines[-10:]) < 0.9 * sum(u[term] for u in lines[1:11])
    assert result.absorbed is (False if decoder else None)


def test_bfloat16_is_close(pipe: Any, config: Make, tmp_path: Path) -> None:
    plain, low = config(out=tmp_path / "a"), config(out=tmp_path / "b", precision="bf16")
    train(plain, pipe)
    train(low, pipe)
    for a, b in zip(metrics(plain.out), metrics(low.out), strict=True):
        for name, value in a.items():
            assert b[name] == pytest.approx(value, rel=0.05), name
    assert any(a != b for a, b in zip(metrics(plain.out), metrics(low.out), strict=True))


def test_smaller_forward_passes_are_the_same_update(
    pipe: Any, config: Make, tmp_path: Path
) -> None:
    whole = config(batch=4, out=tmp_path / "whole")
    parts = config(batch=4, micro_batch=1, out=tmp_path / "parts")
    train(whole, pipe)
    train(parts, pipe)
    for a, b in zip(metrics(whole.out), metrics(parts.out), strict=True):
        for name, value in a.items():
            if not name.startswith("grad_norm/"):  # of the first forward pass
                assert b[name] == pytest.approx(value, rel=1e-4), name
    assert_same_adapter(whole.out, parts.out, tolerance=2e-4)


def test_each_terms_own_gradient_is_measured_where_scores_are(
    pipe: Any, config: Make, tmp_path: Path
) -> None:
    """One forward pass, no decoder, no map but SGA's: the norms are those of separate runs."""
    common = {"steps": 2, "caption_dropout": 0.0, "clip_grad": 1e9, "spa": 0.0}
    both = config(**common, out=tmp_path / "a")
    train(both, pipe)
    first, scored = metrics(both.out)[1:]
    assert not [name for name in first if name.startswith("grad_norm/")]
    own = {n: v for n, v in scored.items() if n.startswith("grad_norm/")}
    assert set(own) == {"grad_norm/diffusion", "grad_norm/sga"}
    assert all(value > 0 for value in own.values())
    total, parts = scored["grad_norm"], sorted(own.values())
    assert parts[1] - parts[0] <= total <= sum(parts)
    plain = config(**{**common, "sga": 0.0, "steps": 1, "heldout_every": 1}, out=tmp_path / "b")
    train(plain, pipe)
    alone = metrics(plain.out)[1]
    assert alone["grad_norm/diffusion"] == pytest.approx(alone["grad_norm"], rel=1e-5)


def test_the_placebo_has_its_own_losses_and_the_same_diffusion(
    pipe: Any, config: Make, tmp_path: Path
) -> None:
    plain = config(steps=2, caption_dropout=0.0, out=tmp_path / "a")
    shuffled = config(steps=2, caption_dropout=0.0, out=tmp_path / "b", shuffle_masks=True)
    train(plain, pipe)
    train(shuffled, pipe)
    one, two = metrics(plain.out)[1], metrics(shuffled.out)[1]
    assert one["diffusion"] == two["diffusion"]
    assert one["sga"] != two["sga"]
    assert metrics(plain.out)[0] == metrics(shuffled.out)[0]  # held-out masks are the true ones


def test_the_moving_average_is_what_is_saved(pipe: Any, config: Make) -> None:
    settings = config(ema=0.9)
    train(settings, pipe)
    (file,) = (settings.out / "checkpoints").glob("step-*")
    stored, adapter = load_file(file), state_of(settings.out / "adapter")
    name = "conv.weight"
    average = stored[f"average/condition.{name}"]
    assert torch.equal(adapter[f"matrix_cond.safetensors:{name}"], average)
    assert not torch.equal(average, stored[f"parameter/condition.{name}"])


def test_scores_are_those_of_the_average_that_is_saved(
    pipe: Any, config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[dict[str, torch.Tensor]] = []

    def seen(student: Any, *arguments: Any, **options: Any) -> Any:
        scored.append({n: p.detach().clone() for n, p in student.lora.items()})
        return heldout_aas(student, *arguments, **options)

    monkeypatch.setattr("matrix_video.training.run.heldout_aas", seen)
    result = train(config(steps=4, ema=0.999, lr=0.02), pipe)
    assert result.adapter is not None
    saved = state_of(result.adapter)
    for name, value in scored[-1].items():
        key = f"{LORA_FILE}:transformer.{name.replace('.default', '')}"
        assert torch.equal(saved[key], value), name
    assert not torch.equal(scored[-1][name], scored[-2][name])


class SeesNothing:
    """A judge for frames of any size."""

    name, version, verbs = "nobody", "1", None

    def judge(self, video: Video, sample: Sample, first_masks: Mapping[str, Any]) -> Verdict:
        ten = tuple(Answer(number, "no") for number in range(1, 11))
        return Verdict((ten,) * len(sample.interactions), (Propagation(1, "no", "no"),))


def test_videos_of_the_student(pipe: Any, config: Make) -> None:
    """Before, in between and after; the run itself does not change."""
    watched = config(
        steps=4, sample_every=2, samples=1, sample_steps=2, sample_judge="oracle",
    )  # fmt: skip
    train(watched, pipe, StudentVideos(watched, SeesNothing()))
    folder = watched.out / "samples"
    videos = {p.parent.name: read_video(p).frames_THWC for p in folder.glob("*/*.mp4")}
    assert sorted(videos) == [f"step-{n:08d}" for n in (0, 2, 4)]
    assert not (videos["step-00000000"] == videos["step-00000004"]).all()
    lines = metrics(watched.out)
    assert [line["step"] for line in lines if "sample/spi" in line] == [0, 2, 4]
    plain = watched.model_copy(update={"sample_every": 0, "out": watched.out.parent / "plain"})
    train(plain, pipe)
    assert_same_adapter(plain.out, watched.out)
    with pytest.raises(MatrixError, match=r"no held-out sample to make videos of.*--val-data"):
        StudentVideos(config(heldout_samples=0, sample_every=2))


def test_batch_must_divide(pipe: Any, config: Make) -> None:
    with pytest.raises(MatrixError, match="batch of 4 does not divide into 1 processes with 3"):
        train(config(batch=4, micro_batch=3), pipe)


def interrupting(monkeypatch: pytest.MonkeyPatch, at: int, act: Callable[[], None]) -> None:
    """Do something in the middle of training update ``at`` (from 0)."""
    seen = 0

    def batch(*arguments: Any) -> Any:
        nonlocal seen
        if seen == at:
            act()
        seen += 1
        return make_batch(*arguments)

    monkeypatch.setattr("matrix_video.training.loop.make_batch", batch)


def killed(settings: TrainConfig, pipe: Any, at: int) -> None:
    """Begin or go on with the run, and die in its update ``at`` (of this process, from 0)."""

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        interrupting(patch, at, stop)
        with pytest.raises(KeyboardInterrupt):
            train(settings, pipe)


def test_an_interrupted_run_resumes(pipe: Any, config: Make, tmp_path: Path) -> None:
    straight, broken = config(steps=6, out=tmp_path / "a"), config(steps=6, out=tmp_path / "b")
    train(straight, pipe)
    for at in (1, 3, 1):  # before the first checkpoint, after it, after resuming
        killed(broken, pipe, at)
    assert not (broken.out / "adapter").exists()
    train(broken, pipe)
    assert_same_adapter(straight.out, broken.out)
    assert metrics(straight.out) == metrics(broken.out)


def test_a_run_goes_on_with_less_memory(pipe: Any, config: Make, tmp_path: Path) -> None:
    straight, broken = config(out=tmp_path / "a"), config(out=tmp_path / "b")
    train(straight, pipe)
    killed(broken, pipe, 3)
    less = {"micro_batch": 1, "gradient_checkpointing": True, "cache": tmp_path / "cache"}
    train(config(out=broken.out, **less), pipe)
    assert_same_adapter(straight.out, broken.out, 1e-4)
    assert yaml.safe_load((broken.out / "config.yaml").read_text())["micro_batch"] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_says_so(
    pipe: Any, config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    straight = config(out=tmp_path / "a", checkpoint_every=100)
    train(straight, pipe)
    settings = config(out=tmp_path / "b", checkpoint_every=100)
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        interrupting(patch, 1, lambda: os.kill(os.getpid(), number))
        if number == signal.SIGINT:
            with pytest.raises(
                KeyboardInterrupt, match="2 updates are saved; run the same command"
            ):
                train(settings, pipe)
        else:
            result = train(settings, pipe)
            assert result.adapter is None
            assert result.steps == 2  # the update that was running is finished
    assert signal.getsignal(number) is before
    assert train(settings, pipe).steps == 4
    assert_same_adapter(straight.out, settings.out)
    assert metrics(straight.out) == metrics(settings.out)


def test_noise_at_which_no_term_acts_is_no_fault_of_the_data(
    pipe: Any, config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chance may keep the first samples away from the wanted levels."""

    def least(_: Any, timesteps_B: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(timesteps_B, dtype=torch.long)

    monkeypatch.setattr("matrix_video.training.step.noise_bins", least)
    settings = config(align_noise=(4,), steps=3, batch=2)
    train(settings, pipe)
    lines = metrics(settings.out)
    assert all("diffusion" in line and "sga" not in line for line in lines if line["step"])


def test_a_term_that_reaches_nothing_stops_the_run(
    pipe: Any, config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_regions(*arguments: Any) -> Any:
        batch = make_batch(*arguments)
        batch.region_BPN.zero_()
        return batch

    monkeypatch.setattr("matrix_video.training.loop.make_batch", no_regions)
    with pytest.raises(MatrixError, match="SPA loss covers no token: none of the first 32 samples"):
        train(config(batch=4, steps=8), pipe)


def test_a_term_that_reaches_nothing_stops_the_resumed_run_too(
    pipe: Any, config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error leaves a checkpoint; going on from it shows the same again."""

    def dead(alignment: Any, _: Any) -> None:
        raise MatrixError("no gradient", remedy="mend it", field=alignment.term)

    settings = config(steps=3)
    monkeypatch.setattr("matrix_video.training.guards.require_gradient", dead)
    for _ in range(2):
        with pytest.raises(MatrixError, match="no gradient"):
            train(settings, pipe)
    assert (settings.out / "checkpoints").is_dir()


def test_losses_that_are_not_numbers_stop_the_run(
    pipe: Any, config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(*arguments: Any) -> Any:
        batch = make_batch(*arguments)
        batch.text.embeds_BLE[1, 0] = float("nan")
        return batch

    settings = config(caption_dropout=0.0)
    monkeypatch.setattr("matrix_video.training.loop.make_batch", poisoned)
    with pytest.raises(MatrixError, match=r"step 1: the diffusion loss of sample \d{4} is nan"):
        train(settings, pipe)
    assert not (settings.out / "adapter").exists()
    assert (settings.out / "checkpoints/step-00000000.safetensors").exists()


RUN = """
import sys
import torch
torch.set_num_threads(1)
from matrix_video.recipes.train import run
from matrix_video.training.config import TrainConfig
sys.exit(run(TrainConfig.model_validate_json({settings!r})))
"""


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[..., BaseProcess]]:
    """Starts runs in processes of their own, forked from one that has done the imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["matrix_video.training.run"])
    started: list[BaseProcess] = []

    def run(settings: TrainConfig) -> BaseProcess:
        code = RUN.format(settings=settings.model_dump_json())
        process = context.Process(target=exec, args=(code,))
        process.start()
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.join()


def test_a_killed_run_resumes_to_the_same_bits(
    config: Make, tmp_path: Path, model_path: str, start: Callable[..., BaseProcess]
) -> None:
    common = {"model": model_path, "steps": 40, "checkpoint_every": 3, "heldout_every": 10}
    killed, straight = config(**common, out=tmp_path / "k"), config(**common, out=tmp_path / "s")
    process = start(killed)
    deadline = time.monotonic() + 300
    after = random.randrange(4, 36)  # any update will do; the message names it
    lines = killed.out / "metrics.jsonl"
    while not lines.exists() or len(lines.read_text().splitlines()) <= after:
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (killed.out / "adapter").exists()
    written = metrics(killed.out)[-1]["step"]
    assert after <= written < 40, after
    result = train(killed)
    assert result.steps == 40
    train(straight)
    assert_same_adapter(straight.out, killed.out)
    assert metrics(straight.out) == metrics(killed.out)

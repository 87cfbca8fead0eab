"""Pretraining of the tiny pipeline: resume, schedules, encoding, export."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import CogVideoXImageToVideoPipeline
from PIL import Image
from torch import nn

from matrix_video.recipes.pretrain_tiny import PretrainTiny, run
from matrix_video.services.errors import MatrixError
from matrix_video.training import pretrain_dit, pretrain_vae
from matrix_video.training.pretrain_dit import DitConfig, DitTrainer, EncodedClips, encode_clips
from matrix_video.training.pretrain_state import PretrainState
from matrix_video.training.pretrain_vae import VaeConfig, psnr, to_model, train_vae
from matrix_video.training.tiny_model import (
    LATENT_CHANNELS,
    TEXT_LENGTH,
    new_pipeline,
    new_tokenizer,
    new_vae,
)
from matrix_video.world.write import write_split

WORDS = ("a", "ball", "pushes", ",")


@pytest.fixture(scope="module")
def frames_NTHWC() -> np.ndarray:
    rng = np.random.default_rng(0)
    frames = np.full((4, 17, 64, 64, 3), 220, dtype=np.uint8)
    for clip in frames:
        row, column = rng.integers(0, 44, 2)
        clip[:, row : row + 20, column : column + 20] = rng.integers(0, 255, 3)
    return frames


def _step(state: PretrainState, model: nn.Linear, count: int) -> None:
    for _ in range(count):
        generator = torch.Generator().manual_seed(state.step)
        x = torch.randn(8, 4, generator=generator)
        state.update((model(x) - x[:, :2]).pow(2).mean(), 1.0)


def test_a_killed_run_resumes_to_the_same_weights(tmp_path: Path) -> None:
    def fresh() -> nn.Linear:
        torch.manual_seed(0)
        return nn.Linear(4, 2)

    whole = fresh()
    state = PretrainState(tmp_path / "whole", {"m": whole}, 1e-2, 0.9)
    _step(state, whole, 10)
    average = {key: value.clone() for key, value in state.average.items()}

    first = fresh()
    state = PretrainState(tmp_path / "cut", {"m": first}, 1e-2, 0.9)
    _step(state, first, 6)
    state.save({"seed": 0, "steps": 10})
    second = fresh()
    state = PretrainState(tmp_path / "cut", {"m": second}, 1e-2, 0.9)
    assert state.resume({"seed": 0, "steps": 12})
    assert state.step == 6
    _step(state, second, 4)
    for ours, theirs in zip(second.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for key, value in average.items():
        assert torch.equal(state.average[key], value)


def test_resume_refuses_other_settings(tmp_path: Path) -> None:
    model = nn.Linear(4, 2)
    state = PretrainState(tmp_path, {"m": model}, 1e-2, 0.9)
    _step(state, model, 1)
    state.save({"seed": 0})
    with pytest.raises(MatrixError, match=r"made with seed = 0, not 1.*another output folder"):
        state.resume({"seed": 1})


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    model = nn.Linear(4, 2)
    state = PretrainState(tmp_path, {"m": model}, 1e-2, 0.9)
    with pytest.raises(MatrixError, match=r"loss is nan at step 0.*lower the learning rate"):
        state.update(model.weight.sum() * float("nan"), 1.0)


def test_averaged_weights_are_lent_and_taken_back(tmp_path: Path) -> None:
    model = nn.Linear(4, 2)
    state = PretrainState(tmp_path, {"m": model}, 1e-2, 0.9)
    _step(state, model, 5)
    live = model.weight.detach().clone()
    with state.averaged():
        assert torch.equal(model.weight, state.average["m.weight"])
    assert torch.equal(model.weight, live)
    assert not torch.equal(live, state.average["m.weight"])


def test_rates_warm_up_and_fall() -> None:
    vae = VaeConfig(steps=100, warmup=10)
    rates = [pretrain_vae.rate(step, vae) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    dit = DitConfig(steps=1000, warmup=10, decay_share=0.2)
    assert pretrain_dit.rate(500, dit) == 1.0
    assert pretrain_dit.rate(900, dit) == pytest.approx(0.5)
    assert pretrain_dit.rate(999, dit) == pytest.approx(0.01)


def test_vae_trains_and_ends_with_unit_latents(tmp_path: Path, frames_NTHWC: np.ndarray) -> None:
    config = VaeConfig(steps=2, batch_size=2, checkpoint_every=1, log_every=1)
    vae = train_vae(frames_NTHWC, frames_NTHWC[:1], tmp_path, config)
    lines = [json.loads(line) for line in (tmp_path / "vae/metrics.jsonl").open()]
    assert [line["step"] for line in lines if "heldout_psnr" in line] == [1, 2]
    with torch.no_grad():
        latents = vae.encode(to_model(frames_NTHWC)).latent_dist.mode()
    assert float((latents * vae.config["scaling_factor"]).std()) == pytest.approx(1, rel=0.05)


def test_psnr_of_a_perfect_and_of_a_constant_error(frames_NTHWC: np.ndarray) -> None:
    class Off(nn.Module):
        """Stands in for a VAE: returns its input, five grey levels too bright."""

        def encode(self, video_BCTHW):
            return self

        latent_dist = property(lambda self: self)

        def mode(self):
            return self

        def decode(self, _):
            self.sample = to_model(np.minimum(frames_NTHWC, 250) + 5)
            return self

    clips = np.minimum(frames_NTHWC, 250)
    expected = 10 * np.log10(255**2 / 25)
    assert psnr(Off(), clips) == pytest.approx(expected, abs=1e-3)  # type: ignore[arg-type]


def _trainer(config: DitConfig) -> DitTrainer:
    torch.manual_seed(0)
    return DitTrainer(new_pipeline(new_vae(), WORDS, num_layers=2, heads=2), config)


def _clips(trainer: DitTrainer, count: int) -> EncodedClips:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(count, 5, LATENT_CHANNELS, 16, 16, generator=generator)
    tokens_NL = trainer.tokens(["a ball pushes a ball"] * count)
    return EncodedClips(latents.half(), latents[:, :1].half(), tokens_NL)


def _weights(trainer: DitTrainer) -> list[torch.Tensor]:
    modules = (trainer.pipe.transformer, trainer.pipe.text_encoder)
    return [p.detach().clone() for module in modules for p in module.parameters()]


def test_dit_learns_and_a_killed_run_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DitConfig(steps=6, batch_size=2, warmup=1, checkpoint_every=2, log_every=1)
    whole = _trainer(config)
    clips = _clips(whole, 2)
    before = whole.heldout_loss(clips)
    whole.train(clips, clips, tmp_path / "whole")
    assert whole.heldout_loss(clips) < before

    cut = _trainer(config)
    original = PretrainState.update

    def dying(state: PretrainState, loss: torch.Tensor, rate: float) -> None:
        if state.step == 5:
            raise KeyboardInterrupt
        original(state, loss, rate)

    with monkeypatch.context() as patch:
        patch.setattr(PretrainState, "update", dying)
        with pytest.raises(KeyboardInterrupt):
            cut.train(clips, clips, tmp_path / "cut")
    again = _trainer(config)
    again.train(clips, clips, tmp_path / "cut")
    for ours, theirs in zip(_weights(again), _weights(whole), strict=True):
        assert torch.equal(ours, theirs)


def test_another_recipe_does_not_resume(tmp_path: Path) -> None:
    config = DitConfig(steps=1, batch_size=1)
    trainer = _trainer(config)
    clips = _clips(trainer, 1)
    trainer.train(clips, clips, tmp_path)
    with pytest.raises(MatrixError, match="decay_share"):
        _trainer(replace(config, decay_share=0.5)).train(clips, clips, tmp_path)


def test_encoding_keeps_the_first_frame_apart(frames_NTHWC: np.ndarray) -> None:
    backbone = _trainer(DitConfig()).backbone
    changed = frames_NTHWC[:1].copy()
    changed[:, 1:] = 0
    latents, images = encode_clips(backbone, frames_NTHWC[:1])
    other_latents, other_images = encode_clips(backbone, changed)
    assert latents.shape == (1, 5, LATENT_CHANNELS, 16, 16)
    assert images.shape == (1, 1, LATENT_CHANNELS, 16, 16)
    assert torch.equal(images, other_images)
    assert not torch.equal(latents[:, 1:], other_latents[:, 1:])


def test_every_word_and_no_word_is_unknown() -> None:
    tokenizer = new_tokenizer(WORDS)
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("a ball, zebra").input_ids)
    assert pieces[:3] == ["▁a", "▁ball", ","]
    assert "".join(pieces[3:-1]) == "▁zebra"
    assert tokenizer.unk_token_id not in tokenizer("a zebra pushes 7 balls").input_ids
    assert tokenizer.model_max_length == TEXT_LENGTH


def test_the_recipe_ends_in_a_stock_pipeline_and_does_not_start_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_split(tmp_path / "base", 2, 0, "base")
    write_split(tmp_path / "val", 1, 0, "val")
    config = PretrainTiny(
        base=tmp_path / "base",
        val=tmp_path / "val",
        out=tmp_path / "out",
        vae=VaeConfig(steps=1, batch_size=1),
        dit=DitConfig(steps=1, batch_size=1),
        num_layers=2,
        heads=2,
        threads=1,
    )
    run(config)
    assert "held-out PSNR over 1 clips" in capsys.readouterr().out
    caches = sorted((tmp_path / "out").glob("latents-*"))
    assert len(caches) == 2
    stamps = [path.stat().st_mtime_ns for path in caches]
    run(config)
    assert "PSNR" not in capsys.readouterr().out
    assert [path.stat().st_mtime_ns for path in caches] == stamps
    # Other clips must not meet these latents.
    write_split(tmp_path / "more", 2, 1, "base")
    run(replace(config, base=tmp_path / "more"))
    assert len(list((tmp_path / "out").glob("latents-*"))) == 3

    pipe = CogVideoXImageToVideoPipeline.from_pretrained(tmp_path / "out/tiny")
    pipe.set_progress_bar_config(disable=True)
    frames = pipe(
        Image.new("RGB", (64, 64), (200, 30, 30)),
        "a ball pushes a ball",
        num_inference_steps=2,
        num_frames=17,
        height=64,
        width=64,
        max_sequence_length=TEXT_LENGTH,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).frames[0]
    assert frames.shape == (17, 64, 64, 3)
    assert np.isfinite(frames).all()

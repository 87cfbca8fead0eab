"""Pretraining of a tiny Wan: its parts are stock, its optimizer is torch's, its runs resume."""

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import WanImageToVideoPipeline
from torch import Tensor, nn

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
WORDS = ("a", "ball", "box", "pushes", "red", "blue")


@pytest.fixture(scope="module")
def tiny() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS)
        names = ("model", "muon", "state", "dit")
        return SimpleNamespace(**{n: importlib.import_module(f"tiny.{n}") for n in names})


@pytest.fixture(scope="module")
def pipe(tiny: Any) -> Any:
    torch.manual_seed(0)
    return tiny.model.new_pipeline(tiny.model.new_vae(), WORDS, num_layers=2, heads=2)


@pytest.mark.parametrize("shape", [(8, 8), (12, 5), (5, 12), (6, 4, 3, 3)])
def test_muon_steps_as_torchs_does(tiny: Any, shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    start, gradients = torch.randn(shape), torch.randn(3, *shape)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.flatten(1).clone())
    optimizer = tiny.muon.Muon([ours], lr=0.01, weight_decay=0.1)
    reference = torch.optim.Muon(
        [theirs], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    for gradient in gradients:
        ours.grad, theirs.grad = gradient.clone(), gradient.flatten(1).clone()
        optimizer.step()
        reference.step()
    moved = (theirs.detach() - start.flatten(1)).norm()
    # Theirs is rounded to bfloat16 within.
    assert (ours.detach().flatten(1) - theirs.detach()).norm() < 0.03 * moved


def test_the_pipeline_is_stock_and_keeps_words_in_their_tokens(
    tiny: Any, pipe: Any, tmp_path: Path
) -> None:
    tiny.model.export(tmp_path / "tiny", pipe, torch.float32)
    loaded: Any = WanImageToVideoPipeline.from_pretrained(tmp_path / "tiny")
    trainer = tiny.dit.DitTrainer(loaded, tiny.dit.DitConfig())
    tokens, mask = trainer.tokens(["a red ball pushes a blue box"])
    ours = trainer.text(tokens, mask, lexical=False)
    stock, _ = loaded.encode_prompt(
        "a red ball pushes a blue box", do_classifier_free_guidance=False, max_sequence_length=32
    )
    assert torch.equal(ours, stock)
    assert torch.allclose(trainer.text(tokens, mask, lexical=True), ours)
    length = int(mask.sum())
    assert not bool(ours[0, length:].any())
    assert bool(ours[0, :length].any(dim=1).all())


def _clips(tiny: Any, trainer: Any, count: int) -> Any:
    generator = torch.Generator().manual_seed(0)

    def some() -> Tensor:
        return torch.randn(count, 2, 16, 8, 8, generator=generator).half()

    return tiny.dit.EncodedClips(some(), some(), *trainer.tokens(["a red ball"] * count))


def test_a_stopped_training_resumes_to_the_same_bits(tiny: Any, tmp_path: Path) -> None:
    def trained(folder: Path, steps: int) -> dict[str, Tensor]:
        torch.manual_seed(0)
        fresh = tiny.model.new_pipeline(tiny.model.new_vae(), WORDS, num_layers=1, heads=1)
        config = tiny.dit.DitConfig(
            steps=steps, batch_size=2, checkpoint_every=2, decay_share=0.0, log_every=1
        )
        trainer = tiny.dit.DitTrainer(fresh, config)
        clips = _clips(tiny, trainer, 4)
        trainer.train(clips, clips, folder)
        return fresh.transformer.state_dict()

    whole = trained(tmp_path / "whole", 4)
    half = trained(tmp_path / "parted", 2)
    parted = trained(tmp_path / "parted", 4)
    assert all(torch.equal(whole[name], parted[name]) for name in whole)
    assert any(not torch.equal(whole[name], half[name]) for name in whole)

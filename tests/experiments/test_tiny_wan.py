"""Pretraining of a tiny Wan: its parts are stock, its optimizer is torch's, its runs resume."""

import importlib
import shutil
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanImageToVideoPipeline
from torch import Tensor, nn

from matrix_video.analysis.layers import GroupEvidence, LayerEvidence
from matrix_video.attention.site import Kind
from matrix_video.evaluation.estimates import Estimate
from matrix_video.services.errors import MatrixError
from matrix_video.world.captions import vocabulary

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
WORDS = ("a", "ball", "box", "pushes", "red", "blue")


@pytest.fixture(scope="module")
def tiny() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXPERIMENTS)
        names = ("model", "muon", "state", "dit", "vae", "gate")
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
        trainer.state(folder).keep(asdict(config))
        return fresh.transformer.state_dict()

    whole = trained(tmp_path / "whole", 4)
    half = trained(tmp_path / "parted", 2)
    parted = trained(tmp_path / "parted", 4)
    assert all(torch.equal(whole[name], parted[name]) for name in whole)
    assert any(not torch.equal(whole[name], half[name]) for name in whole)
    (tmp_path / "whole" / "checkpoint.safetensors").unlink()  # as on another machine
    kept = trained(tmp_path / "whole", 4)
    assert all(torch.allclose(whole[name], kept[name], atol=1e-3) for name in whole)
    assert trained(tmp_path / "whole", 5).keys() == whole.keys()
    assert len((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()) == 8


def test_the_decoder_learns_alone_and_resumes(tiny: Any, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 5, 16, 16, 3), dtype=np.uint8)

    def tuned(folder: Path, steps: int) -> Any:
        torch.manual_seed(0)
        vae = tiny.model.new_vae()
        latents = vae.encode(tiny.vae.to_model(frames)).latent_dist.mode().transpose(1, 2).detach()
        config = tiny.vae.DecoderConfig(steps=steps, checkpoint_every=1, batch_size=2)
        tiny.vae.tune_decoder(vae, latents, frames, frames[:1], folder, config)
        return vae.state_dict()

    start = tuned(tmp_path / "none", 0)
    whole = tuned(tmp_path / "whole", 2)
    tuned(tmp_path / "parted", 1)
    parted = tuned(tmp_path / "parted", 2)
    assert all(torch.equal(whole[name], parted[name]) for name in whole)
    changed = {name for name in whole if not torch.equal(whole[name], start[name])}
    assert changed
    assert all(name.startswith(("decoder.", "post_quant_conv.")) for name in changed)


def _group(kind: Kind, layers: list[tuple[float, float | None]], dominant: tuple[int, ...]) -> Any:
    return GroupEvidence(
        kind=kind,
        words="nouns",
        samples=9,
        k=1,
        order=tuple(range(len(layers))),
        influential=(0,),
        layers=tuple(
            LayerEvidence(layer=i, frequency=0.0, aas=0.0, log_lift=lift, binding=binding)
            for i, (lift, binding) in enumerate(layers)
        ),
        dominance="measured",
        reason=None,
        successes=4,
        failures=5,
        contrasts=(),
        dominant=dominant,
    )


@pytest.mark.parametrize(
    ("text", "video", "met"),
    [
        ([(0.8, 0.05), (0.7, 0.03), (-1.0, 0.0)], [(1.1, 0.0), (1.0, 0.0)], [True, True]),
        ([(0.8, 0.05), (0.9, 0.02), (0.9, None)], [(1.1, 0.0), (0.9, 0.0)], [False, False]),
    ],
)
def test_the_gate_asks_for_two_layers_of_each_kind(
    tiny: Any, text: Any, video: Any, met: list[bool]
) -> None:
    groups = (_group("v2t", text, (0,)), _group("v2v", video, ()))
    choice: Any = SimpleNamespace(evidence=SimpleNamespace(groups=groups))
    assert [one.met for one in tiny.gate.attention(choice)] == met
    separated = tiny.gate.separation(choice)
    assert separated.met
    assert "(4) from failure (5)" in separated.name


@pytest.mark.parametrize(
    ("fidelity", "roles", "met"),
    [
        ((0.40, 0.45), 0.2, [True, True]),
        ((0.3, 0.45), 0.4, [False, False]),
        (None, 0.2, [False, True]),  # too few videos for an interval
    ],
)
def test_the_gate_wants_videos_above_drift_and_room_for_roles(
    tiny: Any, fidelity: tuple[float, float] | None, roles: float, met: list[bool]
) -> None:
    def told(low: float, high: float) -> Estimate:
        return Estimate(mean=(low + high) / 2, low=low, high=high, n=9)

    gap = told(roles - 0.1, roles + 0.1)
    drift = SimpleNamespace(summary={"if": told(0.25, 0.37)})
    scores: Any = SimpleNamespace(
        summary={
            "if": told(*fidelity) if fidelity else Estimate(mean=0.9, n=3),
            "role_gap": gap,
            "verb_gap": gap,
        },
        references={"straight_drift": drift},
    )
    assert [one.met for one in tiny.gate.videos(scores)] == met


def test_what_is_kept_fits_the_parts_as_they_are(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "dit").mkdir()
    kept = EXPERIMENTS / "tiny" / "trained_dit" / "kept.safetensors"
    shutil.copy(kept, tmp_path / "dit")
    vae = AutoencoderKLWan.from_pretrained(EXPERIMENTS / "tiny" / "trained_vae")
    pipe = tiny.model.new_pipeline(vae, vocabulary())
    trainer = tiny.dit.DitTrainer(pipe, tiny.dit.DitConfig())
    with pytest.raises(MatrixError, match="no checkpoint and no kept weights are here"):
        trainer.trained(tmp_path / "elsewhere")
    state = trainer.trained(tmp_path / "dit")
    assert state.step >= 3500
    assert bool(pipe.transformer.proj_out.weight.any())  # zero in an untrained one

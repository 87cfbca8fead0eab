"""Train the shipped tiny pipeline from nothing: VAE, then text encoder and transformer.

Run by ``runs/train-tiny.sh`` on two tiny-world data sets. Not a command of its own: nobody needs it
who does not want to rebuild the model. Shapes: N clips, T frames.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import tyro
from diffusers import AutoencoderKLCogVideoX
from numpy.typing import NDArray
from safetensors.torch import load_file

from matrix_video.backbones.tensors import save_tensors
from matrix_video.data.dataset import Dataset
from matrix_video.services.files import atomic_dir, atomic_path, sha256_file, sha256_text
from matrix_video.services.progress import progress
from matrix_video.training.pretrain_dit import DitConfig, DitTrainer, EncodedClips, encode_clips
from matrix_video.training.pretrain_vae import VaeConfig, psnr, train_vae
from matrix_video.training.tiny_model import export, new_pipeline
from matrix_video.world.captions import vocabulary

_VAE = "vae_final"


@dataclass(frozen=True)
class PretrainTiny:
    """Train the tiny pipeline; a run that was stopped goes on where it was."""

    base: Path
    """Data set the model learns from (``matrix world --split base``)."""
    val: Path
    """Held-out data set: PSNR and loss are measured on its first clips."""
    out: Path
    """Folder for checkpoints; the pipeline ends up in ``out/tiny``."""
    vae: VaeConfig = field(default_factory=VaeConfig)
    """Settings of the VAE's training."""
    dit: DitConfig = field(default_factory=DitConfig)
    """Settings of the transformer's training."""
    num_layers: int = 8
    """Layers of the transformer."""
    heads: int = 5
    """Attention heads of 32 channels."""
    vae_clips: int = 4000
    """Clips of ``base`` that the VAE sees."""
    heldout_clips: int = 128
    """Clips of ``val`` that measure."""
    threads: int = 2
    """CPU threads of torch."""


def run(config: PretrainTiny) -> None:
    """VAE, transformer and text encoder, pipeline folder."""
    torch.set_num_threads(config.threads)
    if not (config.out / _VAE).is_dir():  # everything else is trained on its latents
        _train_vae(config)
    vae = AutoencoderKLCogVideoX.from_pretrained(config.out / _VAE)
    torch.manual_seed(config.dit.seed)
    pipe = new_pipeline(vae, vocabulary(), config.num_layers, config.heads)
    trainer = DitTrainer(pipe, config.dit)
    clips = _encoded(config, trainer, config.base, None)
    heldout = _encoded(config, trainer, config.val, config.heldout_clips)
    trainer.train(clips, heldout, config.out)
    with atomic_dir(config.out / "tiny") as folder:
        export(folder, pipe)


def frames_of(path: Path, count: int | None = None) -> NDArray[np.uint8]:
    """Pixels of the first clips, uint8 [N,T,H,W,3]."""
    dataset = Dataset(path)[:count]
    frames: list[NDArray[np.uint8]] = []
    with progress(f"reading {path.name}", len(dataset)) as advance:
        for row in range(len(dataset)):
            frames.append(dataset.video(row).frames_THWC)
            advance(1)
    return np.stack(frames)


def _train_vae(config: PretrainTiny) -> None:
    heldout = frames_of(config.val, config.heldout_clips)
    vae = train_vae(frames_of(config.base, config.vae_clips), heldout, config.out, config.vae)
    print(f"held-out PSNR over {len(heldout)} clips: {psnr(vae, heldout):.2f} dB")
    with atomic_dir(config.out / _VAE) as folder:
        vae.save_pretrained(folder)


def _encoded(
    config: PretrainTiny, trainer: DitTrainer, path: Path, count: int | None
) -> EncodedClips:
    """Latents and token ids of a data set, kept in one file beside the checkpoints."""
    samples = Dataset(path).samples[:count]
    # Named after all that it depends on: a new VAE or other clips must not meet old latents.
    made_of = [path / "metadata.jsonl", *sorted((config.out / _VAE).iterdir())]
    key = sha256_text(*map(sha256_file, made_of), str(len(samples)))[:16]
    cache = config.out / f"latents-{key}.safetensors"
    if not cache.exists():
        latents, images = encode_clips(trainer.backbone, frames_of(path, count))
        with atomic_path(cache) as temporary:
            save_tensors({"latents": latents, "images": images}, temporary, {})
    stored = load_file(cache)
    tokens_NL = trainer.tokens([sample.caption for sample in samples])
    return EncodedClips(stored["latents"], stored["images"], tokens_NL)


if __name__ == "__main__":
    run(tyro.cli(PretrainTiny))

"""Train the shipped tiny pipeline from nothing: VAE, then text encoder and transformer.

Run by ``runs/train-tiny.sh`` on two tiny-world data sets. Not a command of its own: nobody needs it
who does not want to rebuild the model. Shapes: N clips, T frames, L text tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import tyro

from matrix_video.data.dataset import Dataset
from matrix_video.services.files import atomic_path, sha256_file, sha256_text
from matrix_video.services.progress import progress
from matrix_video.training.pretrain_dit import DitConfig
from matrix_video.training.pretrain_vae import VaeConfig

if TYPE_CHECKING:
    from diffusers import AutoencoderKLCogVideoX
    from numpy.typing import NDArray

    from matrix_video.training.pretrain_dit import EncodedClips


@dataclass(frozen=True)
class PretrainTiny:
    """Train the tiny pipeline; every stage resumes where it was stopped."""

    base: Path
    """Data set the model learns from (``matrix world --split base``)."""
    val: Path
    """Held-out data set: PSNR and loss are measured on its first clips."""
    out: Path
    """Folder for checkpoints; the pipeline ends up in ``out/tiny``."""
    stages: tuple[Literal["vae", "dit", "export"], ...] = ("vae", "dit", "export")
    """Stages to run, in this order."""
    vae: VaeConfig = field(default_factory=VaeConfig)
    """Settings of the VAE's training."""
    dit: DitConfig = field(default_factory=DitConfig)
    """Settings of the transformer's training."""
    vae_clips: int = 4000
    """Clips of ``base`` that the VAE sees."""
    heldout_clips: int = 128
    """Clips of ``val`` that measure."""
    threads: int = 2
    """CPU threads of torch."""


def run(config: PretrainTiny) -> None:
    """All requested stages in order."""
    import torch

    torch.set_num_threads(config.threads)
    if "vae" in config.stages:
        _train_vae(config)
    if "dit" in config.stages or "export" in config.stages:
        _train_dit(config)


def frames_of(path: Path, count: int | None = None) -> NDArray[np.uint8]:
    """Pixels of the first clips, uint8 [N,T,H,W,3]."""
    dataset = Dataset(path)
    rows = range(len(dataset.samples) if count is None else min(count, len(dataset.samples)))
    frames: list[NDArray[np.uint8]] = []
    with progress(f"reading {path.name}", len(rows)) as advance:
        for row in rows:
            frames.append(dataset.video(row).frames_THWC)
            advance(1)
    return np.stack(frames)


def _vae_folder(config: PretrainTiny) -> Path:
    return config.out / "vae_final"


def _train_vae(config: PretrainTiny) -> None:
    from matrix_video.training.pretrain_vae import psnr, train_vae

    heldout = frames_of(config.val, config.heldout_clips)
    vae = train_vae(frames_of(config.base, config.vae_clips), heldout, config.out, config.vae)
    vae.save_pretrained(_vae_folder(config))
    print(f"held-out PSNR over {len(heldout)} clips: {psnr(vae, heldout):.2f} dB")


def _encoded(
    config: PretrainTiny, vae: AutoencoderKLCogVideoX, path: Path, count: int | None
) -> EncodedClips:
    """Latents and token ids of a data set, kept in one file beside the checkpoints."""
    import torch
    from safetensors.torch import load_file, save_file

    from matrix_video.training.pretrain_dit import EncodedClips, encode_clips
    from matrix_video.training.tiny_model import new_tokenizer
    from matrix_video.world.captions import vocabulary

    samples = Dataset(path).samples[:count]
    # Named after all that it depends on: a new VAE or other clips must not meet old latents.
    made_of = [path / "metadata.jsonl", *sorted(_vae_folder(config).iterdir())]
    key = sha256_text(*map(sha256_file, made_of), str(len(samples)))[:16]
    cache = config.out / f"latents-{key}.safetensors"
    if not cache.exists():
        latents, images = encode_clips(vae, frames_of(path, count))
        with atomic_path(cache) as temporary:
            save_file({"latents": latents, "images": images}, temporary)
    stored = load_file(cache)
    tokenizer = new_tokenizer(vocabulary())
    ids = tokenizer(
        [sample.caption for sample in samples],
        padding="max_length",
        truncation=True,
        return_tensors="pt",
    ).input_ids
    return EncodedClips(stored["latents"], stored["images"], torch.as_tensor(ids))


def _train_dit(config: PretrainTiny) -> None:
    from diffusers import AutoencoderKLCogVideoX

    from matrix_video.training.pretrain_dit import DitTrainer
    from matrix_video.training.tiny_model import export, new_tokenizer
    from matrix_video.world.captions import vocabulary

    vae = AutoencoderKLCogVideoX.from_pretrained(_vae_folder(config))
    tokenizer = new_tokenizer(vocabulary())
    empty_L = tokenizer("", padding="max_length", return_tensors="pt").input_ids[0]
    clips = _encoded(config, vae, config.base, None)
    heldout = _encoded(config, vae, config.val, config.heldout_clips)
    trainer = DitTrainer(clips, len(tokenizer), empty_L, config.dit)
    trainer.train(config.out, heldout)
    if "export" in config.stages:
        export(
            config.out / "tiny",
            vae=vae,
            tokenizer=tokenizer,
            text_encoder=trainer.text_encoder,
            transformer=trainer.transformer,
        )


if __name__ == "__main__":
    run(tyro.cli(PretrainTiny))

"""``python -m tiny``: clips, VAE, text encoder and transformer, pipeline; every stage resumes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from diffusers import AutoencoderKLWan
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from matrix_video.backbones.tensors import save_tensors
from matrix_video.backbones.wan import WanBackbone
from matrix_video.services.files import atomic_dir, atomic_path, sha256_file
from matrix_video.services.progress import progress
from matrix_video.world.captions import vocabulary
from matrix_video.world.clips import make_clip
from matrix_video.world.splits import Split
from tiny.dit import DitConfig, DitTrainer, EncodedClips
from tiny.model import export, new_pipeline
from tiny.vae import DecoderConfig, VaeConfig, psnr, train_vae, tune_decoder


@dataclass(frozen=True)
class Pretrain:
    """Train the tiny pipeline; a run that was stopped goes on where it was."""

    out: Path
    """Folder for checkpoints; the pipeline ends up in ``out/tiny``."""
    vae: VaeConfig = field(default_factory=VaeConfig)
    """Settings of the VAE's training."""
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    """Settings of the decoder's further training."""
    dit: DitConfig = field(default_factory=DitConfig)
    """Settings of the text encoder's and transformer's training."""
    name: str = "dit"
    """Folder of that training in ``out``: trials share the VAE and its latents."""
    clips: int = 6000
    """Clips of the base split that the transformer sees."""
    decoder_clips: int = 2000
    """Clips of the base split whose latents the decoder learns from."""
    num_layers: int = 8
    """Layers of the transformer."""
    heads: int = 5
    """Attention heads of 32 channels."""
    vae_clips: int = 3000
    """Clips of the base split that the VAE sees."""
    heldout_clips: int = 128
    """Clips of val that measure."""
    threads: int = 1
    """CPU threads of torch."""
    stage: Literal["all", "dit", "decoder", "export", "keep"] = "all"
    """One stage alone, from the newest checkpoints. ``dit`` and ``export`` end with the pipeline's
    folder, ``decoder`` with the VAE that it takes, ``keep`` with ``kept.safetensors``, from which a
    training goes on where its checkpoint is lost."""


def frames_of(split: Split, count: int) -> NDArray[np.uint8]:
    """Pixels of the first clips, uint8 [N,T,H,W,3]."""
    frames: list[NDArray[np.uint8]] = []
    with progress(f"render {split}", count) as advance:
        for index in range(count):
            frames.append(make_clip(0, split, index).frames_THWC)
            advance(1)
    return np.stack(frames)


def encoded(trainer: DitTrainer, out: Path, split: Split, count: int) -> EncodedClips:
    """Latents, image conditions and token ids of the first clips; latents are kept in ``out``.

    Stored in parts of 500 clips, under a name that says which VAE made them.
    """
    weights = out / "vae_final" / "diffusion_pytorch_model.safetensors"
    folder = out / f"latents-{sha256_file(weights)[:12]}"
    parts: list[dict[str, Tensor]] = []
    with progress(f"encode {split}", count) as advance:
        for start in range(0, count, _PART):
            end = min(start + _PART, count)
            stored = folder / f"{split}-{start:06d}-{end - start}.safetensors"
            if not stored.exists():
                with atomic_path(stored) as temporary:
                    save_tensors(_encode(trainer.backbone, split, start, end), temporary, {})
            parts.append(load_file(stored))
            advance(end - start)
    captions = [make_clip(0, split, index).sample.caption for index in range(count)]
    return EncodedClips(
        torch.cat([part["latents"] for part in parts]),
        torch.cat([part["images"] for part in parts]),
        *trainer.tokens(captions),
    )


_PART = 500


def _encode(backbone: WanBackbone, split: Split, start: int, end: int) -> dict[str, Tensor]:
    latents: list[Tensor] = []
    images: list[Tensor] = []
    for first in range(start, end, 4):
        frames = [make_clip(0, split, i).frames_THWC for i in range(first, min(first + 4, end))]
        clips_BTHWC = torch.from_numpy(np.stack(frames))
        latents.append(backbone.encode_video(clips_BTHWC).half())
        images.append(backbone.encode_image(clips_BTHWC[:, 0], clips_BTHWC.shape[1]).half())
    return {"latents": torch.cat(latents), "images": torch.cat(images)}


def run(config: Pretrain) -> None:
    """VAE, then decoder, text encoder and transformer, then the pipeline's folder."""
    torch.set_num_threads(config.threads)
    done = config.out / "vae_final"
    if not done.is_dir():  # everything else is trained on its latents
        heldout = frames_of("val", config.heldout_clips)
        vae = train_vae(frames_of("base", config.vae_clips), heldout, config.out, config.vae)
        print(f"held-out PSNR over {len(heldout)} clips: {psnr(vae, heldout):.2f} dB")
        with atomic_dir(done) as folder:
            vae.save_pretrained(folder)
    vae = AutoencoderKLWan.from_pretrained(done)
    torch.manual_seed(config.dit.seed)
    pipe = new_pipeline(vae, vocabulary(), config.num_layers, config.heads)
    trainer = DitTrainer(pipe, config.dit)
    folder = config.out / config.name
    tuned = config.out / "vae_tuned"
    if config.stage in ("all", "dit"):
        heldout = encoded(trainer, config.out, "val", config.heldout_clips)
        trainer.train(encoded(trainer, config.out, "base", config.clips), heldout, folder)
    if config.stage in ("all", "decoder"):
        latents = encoded(trainer, config.out, "base", config.decoder_clips).latents_NFChw
        frames, heldout = frames_of("base", len(latents)), frames_of("val", config.heldout_clips)
        tune_decoder(vae, latents, frames, heldout, config.out, config.decoder)
        print(f"held-out PSNR over {len(heldout)} clips: {psnr(vae, heldout):.2f} dB")
        with atomic_dir(tuned) as target:
            vae.save_pretrained(target)
    if config.stage in ("export", "keep"):
        state = trainer.trained(folder)
        if config.stage == "keep":
            print(state.keep(asdict(config.dit)))
    if config.stage in ("all", "dit", "export"):
        if tuned.is_dir():
            pipe.vae = AutoencoderKLWan.from_pretrained(tuned)
        with atomic_dir(folder / "tiny") as target:
            export(target, pipe)


if __name__ == "__main__":
    run(tyro.cli(Pretrain))

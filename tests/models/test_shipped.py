"""The shipped tiny pipeline: stock diffusers loads and runs it, with our LoRA too.

The script below never imports our package; that is the point.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from matrix_video.backbones.adapter import load_adapter
from matrix_video.backbones.loading import backbone_for, load_pipeline
from matrix_video.data.dataset import Dataset
from matrix_video.generation.sampler import Prompt, Sampling, sample
from matrix_video.training.config import TrainConfig
from matrix_video.training.run import train
from matrix_video.world.write import write_split

STOCK = """
import sys
import numpy as np, torch
from diffusers import CogVideoXImageToVideoPipeline
from PIL import Image

model, image, prompt, noise, out, adapter = sys.argv[1:]
pipe = CogVideoXImageToVideoPipeline.from_pretrained(model)
videos = []
for attach in (lambda: None, lambda: pipe.load_lora_weights(adapter)):
    attach()
    videos.append(pipe(
        Image.open(image), prompt, height=64, width=64, num_frames=17, num_inference_steps=3,
        latents=torch.from_numpy(np.load(noise)), generator=torch.Generator().manual_seed(0),
        max_sequence_length=pipe.tokenizer.model_max_length, output_type="np",
    ).frames[0])
assert not any(name.startswith("matrix_video") for name in sys.modules)
np.save(out, np.rint(np.stack(videos) * 255).astype(np.uint8))
"""


@pytest.fixture(scope="module")
def shipped() -> Path:
    from importlib.resources import files

    return Path(str(files("matrix_video") / "models/tiny"))


def test_it_is_small_and_safe(shipped: Path) -> None:
    found = [path for path in shipped.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in found) <= 15e6
    assert not [path for path in found if path.suffix in (".bin", ".pt", ".ckpt", ".pkl")]
    assert (shipped / "README.md").exists()
    assert {path.suffix for path in found if path.stat().st_size > 1e5} == {".safetensors"}


def test_stock_diffusers_runs_it_and_our_lora(shipped: Path, tmp_path: Path) -> None:
    write_split(tmp_path / "data", 6, 0, "train")
    trained = train(
        TrainConfig(
            data=tmp_path / "data",
            out=tmp_path / "run",
            v2t=(5,),
            v2v=(1,),
            steps=3,
            batch=2,
            lr=0.02,
            lora_alpha=8.0,
            heldout_samples=0,
        )
    )
    assert trained.adapter is not None
    data = Dataset(tmp_path / "data")
    first_HWC = data.video(0).frames_THWC[0]
    from PIL import Image

    Image.fromarray(first_HWC).save(tmp_path / "first.png")
    pipe = load_pipeline("tiny")
    backbone = backbone_for(pipe)
    shape = backbone.latent_shape(17, 64, 64)
    noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(7))
    np.save(tmp_path / "noise.npy", noise.numpy())

    out = tmp_path / "videos.npy"
    files = (shipped, tmp_path / "first.png", tmp_path / "noise.npy", out, trained.adapter)
    model, image, start, made, adapter = map(str, files)
    command = [model, image, data.samples[0].caption, start, made, adapter]
    subprocess.run([sys.executable, "-c", STOCK, *command], check=True, capture_output=True)
    plain, with_lora = np.load(out)
    assert plain.shape == (17, 64, 64, 3)
    assert np.abs(plain.astype(int) - with_lora.astype(int)).max() > 5  # the LoRA does something
    attached = load_adapter(pipe, trained.adapter)
    pipe.set_progress_bar_config(disable=True)
    ours = pipe(
        Image.open(tmp_path / "first.png"),
        data.samples[0].caption,
        height=64,
        width=64,
        num_frames=17,
        num_inference_steps=3,
        latents=noise,
        generator=torch.Generator().manual_seed(0),
        max_sequence_length=backbone.num_text_tokens,
        output_type="np",
    ).frames[0]
    attached.detach()
    assert np.abs(np.rint(ours * 255) - with_lora).max() <= 1


def test_it_makes_a_video_that_starts_with_the_first_frame(tmp_path: Path) -> None:
    write_split(tmp_path / "data", 2, 0, "val")
    data = Dataset(tmp_path / "data")
    backbone = backbone_for(load_pipeline("tiny"))
    prompts = [
        Prompt(s.id, s.caption, data.video(i).frames_THWC[0]) for i, s in enumerate(data.samples)
    ]
    videos = np.asarray(sample(backbone, prompts, 17, Sampling(steps=10)))
    for video, prompt in zip(videos, prompts, strict=True):
        error = (video[0].astype(float) - prompt.first_HWC).ravel()
        assert 10 * np.log10(255**2 / np.mean(error**2)) > 22
        assert np.abs(video[-1].astype(int) - video[0]).mean() > 0.5  # and it moves

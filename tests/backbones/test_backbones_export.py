"""Trained adapters of every family in stock diffusers, in a process that knows nothing of us."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL.Image import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from matrix_video.backbones.adapter import LORA_FILE, load_adapter
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.loading import backbone_for, families
from matrix_video.data.dataset import DatasetWriter
from matrix_video.plan.clips import stand_in
from matrix_video.training.config import TrainConfig
from matrix_video.training.run import train

from ..conftest import image_variant

CAPTION = "a small red ball pushes the blue box"
RANK, ALPHA = 2, 16  # unequal: an alpha that is lost would show

STOCK = """
import json, sys
from pathlib import Path
import torch
from diffusers import DiffusionPipeline
from peft import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)
for folder in sorted(Path(sys.argv[1]).iterdir()):
    arguments = json.loads((folder / "call.json").read_text())
    pictures = [Image.open(file).convert("RGB") for file in sorted(folder.glob("*.png"))]
    if pictures:
        arguments["image"] = pictures if arguments["image"] == "many" else pictures[0]
    noise = load_file(folder / "call.safetensors")
    pipe = DiffusionPipeline.from_pretrained(folder / "base", use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)

    def call():
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            return pipe(**arguments, **noise, generator=generator).frames.contiguous()

    base = call()
    pipe.load_lora_weights(folder / "adapter")
    save_file({"base": base, "found": call()}, folder / "found.safetensors")
    (name,) = pipe.transformer.peft_config
    lora = get_peft_model_state_dict(pipe.transformer, adapter_name=name)
    type(pipe).save_lora_weights(folder / "again", transformer_lora_layers=lora)
ours = [name for name in sys.modules if name.partition(".")[0] == "matrix_video"]
print("imported", json.dumps(ours))
"""


@dataclass
class Exported:
    """A family's adapter; what our own model makes of it, and stock diffusers with and without."""

    adapter: Path
    again: Path
    """Saved once more by stock diffusers."""
    ours: Tensor
    stock: Tensor
    base: Tensor


def data_of(path: Path, size: tuple[int, int, int]) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    with DatasetWriter(path) as writer:
        for index in range(2):
            clip = stand_in(size, 2 + index, 0.3)
            known = {"id": f"{index}", "file_name": f"videos/{index}.mp4"}
            sample = clip.sample.model_copy(update=known)
            writer.add(sample, pixels, 8.0, clip.tracks, lossless=True)
    return path


def call_arguments(backbone: Backbone) -> dict[str, Any]:
    """Of a whole call of the stock pipeline that ends with latents."""
    g = torch.Generator().manual_seed(0)
    frames, height, width = backbone.tiny_clip
    noise = torch.randn(1, *backbone.latent_shape(frames, height, width), generator=g)
    first = torch.randint(0, 256, (1, height, width, 3), generator=g, dtype=torch.uint8)
    arguments = backbone.call_arguments(
        noise, backbone.tiny_clip, first if backbone.takes_image else None
    )
    steps = {"num_inference_steps": 2, "guidance_scale": 3.0}
    return {**arguments, **steps, "prompt": CAPTION, "output_type": "latent"}


def write_call(folder: Path, arguments: dict[str, Any]) -> None:
    """Tensors, pictures and the rest, each as a file that needs no class of ours."""
    tensors = {n: v.contiguous() for n, v in arguments.items() if isinstance(v, Tensor)}
    save_file(tensors, folder / "call.safetensors")
    rest = {n: v for n, v in arguments.items() if n not in tensors}
    image: Image | list[Image] | None = rest.pop("image", None)
    if image is not None:
        rest["image"] = "many" if isinstance(image, list) else "one"
        for index, picture in enumerate(image if isinstance(image, list) else [image]):
            picture.save(folder / f"{index}.png")
    (folder / "call.json").write_text(json.dumps(rest))


def export(name: str, root: Path, data: Path) -> Tensor:
    """Train, and run our own model with the id map absent: latents of a whole call.

    The variant is one that takes an image, so that there is an id map to be absent, if any does.
    """
    cls: Any = families()[name].load()
    pipe: Any = cls.tiny(image_variant(cls.variants))
    backbone = backbone_for(pipe)
    folder = root / name
    pipe.save_pretrained(folder / "base")
    ends = (0, backbone.num_layers - 1)
    run = folder.parent.parent / "runs" / name
    config = TrainConfig(
        data=data_of(data / name, backbone.tiny_clip), out=run, v2t=ends, v2v=ends, steps=2,
        batch=2, lr=3e-2, warmup=0, lora_rank=RANK, lora_alpha=ALPHA, id_map=backbone.takes_image,
        heldout_samples=0,
    )  # fmt: skip
    adapter = train(config, pipe).adapter
    assert adapter is not None
    adapter.rename(folder / "adapter")
    arguments = call_arguments(backbone)
    write_call(folder, arguments)
    loaded = load_adapter(pipe, folder / "adapter")
    assert (loaded.condition is not None) == backbone.takes_image
    with torch.no_grad():
        return pipe(**arguments, generator=torch.Generator().manual_seed(0)).frames


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    """One process for all families, since its imports take longer than its work."""
    place = tmp_path_factory.mktemp("export")
    root = place / "families"
    ours = {name: export(name, root, place / "data") for name in families()}
    command = [sys.executable, "-c", STOCK, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported []"
    found: dict[str, Exported] = {}
    for name, latents in ours.items():
        folder = root / name
        stock = load_file(folder / "found.safetensors")
        found[name] = Exported(
            folder / "adapter", folder / "again", latents, stock["found"], stock["base"]
        )
    return found


@pytest.mark.parametrize("family", families())
def test_stock_diffusers_makes_the_same_latents(
    exported: dict[str, Exported], family: str, dense: Any
) -> None:
    """As our model with the id map absent, scale (alpha over rank) included."""
    case = exported[family]
    assert dense.error(case.stock, case.ours) < 1e-6
    assert dense.error(case.base, case.ours) > 1e-3


@pytest.mark.parametrize("family", families())
def test_keys_are_those_that_diffusers_writes(exported: dict[str, Exported], family: str) -> None:
    case = exported[family]
    state, again = load_file(case.adapter / LORA_FILE), load_file(case.again / LORA_FILE)
    assert state.keys() <= again.keys()
    for name, value in again.items():
        # For Wan image-to-video diffusers adds LoRA of zeros on the projections of image tokens.
        assert torch.equal(value, state.get(name, torch.zeros_like(value))), name
    assert {name.rpartition(".lora_")[2] for name in state} == {"A.weight", "B.weight"}
    with safe_open(case.adapter / LORA_FILE, framework="pt") as opened:
        packed = json.loads(opened.metadata()["lora_adapter_metadata"])
    assert (packed["transformer.r"], packed["transformer.lora_alpha"]) == (RANK, ALPHA)

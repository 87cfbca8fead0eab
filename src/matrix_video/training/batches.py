"""Encoded samples, kept in memory or on disk, and the batches made of them.

Shapes: B batch, P phrases (padded to the longest of the batch), and those of `training.encode`.

Whatever is random about a sample is keyed by (seed, sample id, epoch) and purpose, so neither the
batch size, nor the number of processes, nor a flag that adds a condition changes the noise it gets.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from matrix_video.alignment.targets import Targets
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.condition import paint_ids
from matrix_video.backbones.seeds import keyed_generator
from matrix_video.backbones.tensors import digest, save_tensors
from matrix_video.backbones.text import Text
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import atomic_path
from matrix_video.training.encode import Encoded

_TEXT, _IMAGE = "text/", "image/"


class EncodedSet:
    """Encoded samples by position, made when first asked for.

    With a ``folder``, each sample is one safetensors file named after ``keys[i]``, a hash of all
    that it depends on, so runs that agree share it and runs that differ never do.
    """

    def __init__(
        self, keys: Sequence[str], encode: Callable[[int], Encoded], folder: Path | None = None
    ) -> None:
        self._keys, self._encode, self._folder = keys, encode, folder
        self._memory: dict[int, Encoded] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def ensure(self, index: int) -> None:
        """Encode the sample unless that was done before."""
        if self._folder is None:
            if index not in self._memory:
                self._memory[index] = self._encode(index)
        elif not self._file(index).exists():
            write_encoded(self._file(index), self._encode(index))

    def __getitem__(self, index: int) -> Encoded:
        self.ensure(index)
        return self._memory[index] if self._folder is None else read_encoded(self._file(index))

    def clip(self, index: int) -> tuple[int, int, int]:
        """Pixel frames, rows and columns of the sample."""
        self.ensure(index)
        if self._folder is None:
            return self._memory[index].clip
        with _reading(self._file(index)), safe_open(self._file(index), framework="pt") as opened:
            return _clip(opened.metadata())

    def _file(self, index: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{self._keys[index]}.safetensors"


def write_encoded(file: Path, encoded: Encoded) -> None:
    """Atomically; a file that exists is complete."""
    tensors = {
        field.name: value
        for field in fields(encoded)
        if isinstance(value := getattr(encoded, field.name), Tensor)
    }
    tensors |= {f"{_TEXT}{name}": value for name, value in encoded.text.extra.items()}
    tensors |= {f"{_IMAGE}{name}": value for name, value in encoded.image_extra.items()}
    tensors[_TEXT] = encoded.text.embeds_BLE
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(file) as temporary:
        facts = {"id": encoded.id, "clip": json.dumps(encoded.clip), "sha256": digest(tensors)}
        save_tensors(tensors, temporary, facts)


def read_encoded(file: Path) -> Encoded:
    """Inverse of `write_encoded`; `MatrixError` for a file that is none of ours, or was changed."""
    with _reading(file):
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata()
            tensors = {name: opened.get_tensor(name) for name in sorted(opened.keys())}
        if digest(tensors) != metadata["sha256"]:
            raise ValueError("its contents are not those that were written")
        image = tensors.pop("image_FCHW", None)
        of_text, of_image = (_under(prefix, tensors) for prefix in (_TEXT, _IMAGE))
        return Encoded(
            id=metadata["id"],
            clip=_clip(metadata),
            text=Text(of_text.pop(""), of_text),
            image_FCHW=image,
            image_extra=of_image,
            **tensors,
        )


@contextmanager
def _reading(file: Path) -> Generator[None]:
    try:
        yield
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise MatrixError(
            f"not a cached sample ({error})", remedy="delete the file; it is made again", file=file
        ) from error


def _clip(metadata: Mapping[str, str]) -> tuple[int, int, int]:
    frames, height, width = json.loads(metadata["clip"])
    return frames, height, width


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take out what is named ``prefix``..., by the rest of the names."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name) for name in names}


@dataclass(frozen=True)
class Batch:
    """One forward pass, on the model's device."""

    ids: tuple[str, ...]
    latents_BFCHW: Tensor
    noise_BFCHW: Tensor
    timesteps_B: Tensor
    text: Text
    image_BFCHW: Tensor | None
    id_map_BFCHW: Tensor | None
    """Latents of the id map; zeros where it was dropped. None: a run without id map."""
    phrase_BPL: Tensor
    """Zeros where the caption was dropped."""
    region_BPN: Tensor
    phrase_targets: Targets
    """For SGA: absent in samples whose caption was dropped."""
    region_targets: Targets
    """For SPA: each set of instances once."""
    tokens_BPFhw: Tensor
    """Masks on the token grid."""
    visible_BPF: Tensor


@dataclass(frozen=True)
class Draw:
    """Settings of what is random in a batch."""

    seed: int
    id_map: bool
    id_drop: float
    caption_dropout: float
    roles: tuple[float, ...] | None = None
    """How much the phrases of each of `encode.ROLES` count; None: alike."""


def make_batch(
    backbone: Backbone,
    samples: Sequence[Encoded],
    epochs: Sequence[int],
    empty: Text,
    draw: Draw,
) -> Batch:
    """The batch of ``samples``, of one shape, each in its epoch; ``empty`` is the empty caption."""
    device = next(backbone.transformer.parameters()).device

    def generators(purpose: str) -> list[torch.Generator]:
        keys = zip(samples, epochs, strict=True)
        return [keyed_generator(draw.seed, sample.id, epoch, purpose) for sample, epoch in keys]

    def dropped(purpose: str, share: float) -> list[bool]:
        return [torch.rand((), generator=g).item() < share for g in generators(purpose)]

    silent = dropped("caption", draw.caption_dropout)
    spoken = [empty if q else s.text for s, q in zip(samples, silent, strict=True)]
    # What a first frame adds stays where the caption is dropped.
    text = Text.cat([t.given(s.image_extra) for t, s in zip(spoken, samples, strict=True)])
    shape = samples[0].latents_FCHW.shape
    noise = [torch.randn(shape, generator=g) for g in generators("noise")]
    timesteps = [backbone.sample_timesteps(1, g) for g in generators("timestep")]
    images = [s.image_FCHW for s in samples if s.image_FCHW is not None]
    present_BP = _padded([torch.ones(len(s.phrase_PL), dtype=torch.bool) for s in samples])
    spoken_BP = present_BP & ~torch.tensor(silent)[:, None]
    # An empty caption has no phrases: its tokens may be fewer, and the words' indices past them.
    phrase_BPL = _padded([s.phrase_PL for s in samples]) * spoken_BP[:, :, None]
    once_BP = present_BP & ~_padded([s.repeated_P for s in samples])
    target = _padded([s.target_PTHW for s in samples]).to(device)
    known = _padded([s.known_PT for s in samples]).to(device)
    weight = None
    if draw.roles is not None:
        weight = torch.tensor(draw.roles)[_padded([s.role_P for s in samples])].to(device)
    id_map = None
    if draw.id_map:
        coloured = zip(samples, generators("colours"), strict=True)
        painted = [torch.from_numpy(paint_ids(s.ids_IHW.numpy(), g, s.id)) for s, g in coloured]
        frames = samples[0].target_PTHW.shape[1]
        with torch.no_grad():
            id_map = backbone.encode_id_map(torch.stack(painted), frames)
        hidden = torch.tensor(dropped("id map", draw.id_drop), device=id_map.device)
        id_map = id_map.masked_fill(hidden[:, None, None, None, None], 0)
    return Batch(
        ids=tuple(s.id for s in samples),
        latents_BFCHW=torch.stack([s.latents_FCHW for s in samples]).to(device),
        noise_BFCHW=torch.stack(noise).to(device),
        timesteps_B=torch.cat(timesteps).to(device),
        text=text.to(device),
        image_BFCHW=torch.stack(images).to(device) if images else None,
        id_map_BFCHW=id_map,
        phrase_BPL=phrase_BPL.to(device),
        region_BPN=_padded([s.region_PN for s in samples]).to(device),
        phrase_targets=Targets(target, known, spoken_BP.to(device), weight),
        region_targets=Targets(target, known, once_BP.to(device), weight),
        tokens_BPFhw=_padded([s.tokens_PFhw for s in samples]).to(device),
        visible_BPF=_padded([s.visible_PF for s in samples]).to(device),
    )


def _padded(tensors: Sequence[Tensor]) -> Tensor:
    """Stacked along a new first axis, the next one padded with zeros to its longest, at least 1."""
    longest = max(1, *(len(tensor) for tensor in tensors))
    out = tensors[0].new_zeros(len(tensors), longest, *tensors[0].shape[1:])
    for row, tensor in zip(out, tensors, strict=True):
        row[: len(tensor)] = tensor
    return out

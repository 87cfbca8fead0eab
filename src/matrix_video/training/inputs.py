"""What a run starts from: the chosen layers, the clips, and their encodings."""

from __future__ import annotations

import warnings

from torch import nn

from matrix_video.analysis.layers import read_choice
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.fingerprint import fingerprint
from matrix_video.data.dataset import Dataset
from matrix_video.data.spans import phrases
from matrix_video.data.transform import ClipTransform
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import sha256_file, sha256_text
from matrix_video.services.progress import progress
from matrix_video.training.batches import EncodedSet
from matrix_video.training.config import TrainConfig
from matrix_video.training.encode import encode_clip
from matrix_video.training.student import Layers

FORMAT = 1
"""Of cached samples; raised when their contents change meaning."""


def chosen_layers(config: TrainConfig, backbone: Backbone) -> Layers:
    """The layers that the config names, checked against the model.

    Raises `MatrixError` for none, for both ways of naming them, for one that is out of range, and
    for a ``layers.json`` of another architecture; other weights are only warned about.
    """
    named = bool(config.v2t or config.v2v)
    if named == (config.layers is not None):
        raise MatrixError(
            "the layers to train are given twice" if named else "no layer to train is given",
            remedy="give either --layers with the layers.json of `matrix analyze`, or layer "
            "numbers with --v2t and --v2v",
            field="layers",
        )
    if config.layers is None:
        layers = Layers(config.v2t, config.v2v)
    else:
        choice = read_choice(config.layers)
        model, here = choice.model, backbone.transformer
        if (model.transformer, model.num_layers) != (type(here).__name__, backbone.num_layers):
            raise MatrixError(
                f"the layers were chosen on another architecture ({model.name}, "
                f"{model.transformer} with {model.num_layers} layers)",
                remedy=f"run `matrix analyze --model {config.model}`",
                file=config.layers,
                field="model",
            )
        if model.fingerprint != backbone.fingerprint():
            warnings.warn(
                f"{config.layers}: chosen on other weights of this architecture", stacklevel=2
            )
        layers = Layers(choice.v2t, choice.v2v)
    for layer in layers.union:
        backbone.check_layer(layer)
    for term, weight, chosen in (("sga", config.sga, layers.v2t), ("spa", config.spa, layers.v2v)):
        if weight and not chosen:
            kind = "v2t" if term == "sga" else "v2v"
            raise MatrixError(
                f"{term.upper()} has weight {weight:g} but no {kind} layer to act on",
                remedy=f"name layers with --{kind}, or train with --{term} 0",
                field=kind,
            )
    return layers


def encoded_set(backbone: Backbone, data: Dataset, config: TrainConfig, title: str) -> EncodedSet:
    """All clips of ``data`` encoded, now, into memory or the cache folder."""
    keys = _cache_keys(backbone, data, config) if config.cache else [s.id for s in data.samples]
    found = EncodedSet(
        keys,
        lambda i: encode_clip(backbone, data[i], mentions=config.mentions, up=config.up),
        config.cache,
    )
    with progress(title, len(data)) as advance:
        for index in range(len(data)):
            found.ensure(index)
            advance(1)
    return found


def _cache_keys(backbone: Backbone, data: Dataset, config: TrainConfig) -> list[str]:
    parts = [str(FORMAT), config.mentions, str(config.up), data.transform.key()]
    for name in ("vae", "text_encoder"):
        module = backbone.pipe.components.get(name)
        if isinstance(module, nn.Module):
            parts += list(fingerprint(module).model_dump().values())
            parts.append(str(next(module.parameters()).dtype))
    # The transformer's shape decides the token grid, its dtype nothing of what is stored.
    parts.append(fingerprint(backbone.transformer).architecture)
    return [
        sha256_text(
            *parts,
            sample.model_dump_json(),
            sha256_file(data.video_path(i)),
            sha256_file(data.track_path(i)) if sample.instances else "",
        )
        for i, sample in enumerate(data.samples)
    ]


def clip_transform(config: TrainConfig) -> ClipTransform:
    """The transform that the config asks for; `MatrixError` for half a size."""
    if (config.height is None) != (config.width is None):
        raise MatrixError(
            "only one of height and width is given",
            remedy="give both, or none",
            field="height" if config.height is None else "width",
        )
    size = None if config.height is None or config.width is None else (config.height, config.width)
    return ClipTransform(fps=config.fps, num_frames=config.num_frames, size=size)


def read_clips(config: TrainConfig, transform: ClipTransform) -> tuple[Dataset, Dataset]:
    """Clips to train on, and held-out clips. Raises `MatrixError` where none is left, or no
    caption has a phrase for SGA."""
    data = Dataset(config.data, transform)
    if config.limit is not None:
        data = data[: config.limit]
    count = config.heldout_samples
    if config.val_data is not None:
        held = Dataset(config.val_data, transform)[:count]
    else:
        rest = max(0, len(data) - count)
        data, held = data[:rest], data[rest:]
    if not len(data):
        raise MatrixError(
            f"no sample is left to train on ({count} are kept for the held-out score)",
            remedy="give more samples, or fewer --heldout-samples",
            file=config.data,
            field="heldout_samples",
        )
    if config.sga and not any(phrases(sample, config.mentions) for sample in data.samples):
        raise MatrixError(
            "the SGA loss covers no token: no caption has a phrase tied to an interaction",
            remedy="add spans to metadata.jsonl, or train with --sga 0",
            file=config.data,
            field="sga",
        )
    return data, held

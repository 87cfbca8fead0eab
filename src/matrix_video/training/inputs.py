"""What a run starts from: the chosen layers, the clips, and their encodings."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from matrix_video.analysis.layers import read_choice
from matrix_video.analysis.targets import phrase_tokens
from matrix_video.backbones.base import Backbone
from matrix_video.backbones.condition import check_ids
from matrix_video.backbones.fingerprint import fingerprint
from matrix_video.data.dataset import Dataset, fitting, open_clips
from matrix_video.data.sample import Sample
from matrix_video.data.spans import phrases
from matrix_video.data.tracks import State
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import sha256_text
from matrix_video.services.progress import progress
from matrix_video.training.batches import EncodedSet
from matrix_video.training.config import TrainConfig
from matrix_video.training.encode import Encoded, encode_clip
from matrix_video.training.student import Layers

FORMAT = 4
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
        model, here = choice.model, fingerprint(backbone.transformer)
        if model.fingerprint.architecture != here.architecture:
            raise MatrixError(
                f"the layers were chosen on another architecture ({model.name}, "
                f"{model.fingerprint.name} with {model.num_layers} layers)",
                remedy=f"run `matrix analyze --model {config.model}`",
                file=config.layers,
                field="model",
            )
        if model.fingerprint.other_weights(here):
            warnings.warn(
                f"{config.layers}: chosen on other weights of this architecture", stacklevel=2
            )
        layers = Layers(choice.v2t, choice.v2v)
    for layer in layers.union:
        backbone.check_layer(layer)
    _check_layer_weights(config, layers)
    for term, weight, chosen in (("sga", config.sga, layers.v2t), ("spa", config.spa, layers.v2v)):
        if weight and not chosen:
            kind = "v2t" if term == "sga" else "v2v"
            raise MatrixError(
                f"{term.upper()} has weight {weight:g} but no {kind} layer to act on",
                remedy=f"name layers with --{kind}, or train with --{term} 0",
                field=kind,
            )
    return layers


def _check_layer_weights(config: TrainConfig, layers: Layers) -> None:
    known = {f"{i}/v2t" for i in layers.v2t} | {f"{i}/v2v" for i in layers.v2v}
    for name, weight in config.layer_weights.items():
        if name not in known:
            raise MatrixError(
                f"a weight is given for {name!r}, which is none of the aligned layers",
                remedy=f"name one of {', '.join(sorted(known))}",
                field="layer_weights",
            )
        if not 0 < weight < float("inf"):
            raise MatrixError(
                f"the weight of {name} is {weight:g}, not a positive number",
                remedy="leave a layer out of --v2t or --v2v to give it none",
                field="layer_weights",
            )


def encoded_set(
    backbone: Backbone,
    data: Dataset,
    config: TrainConfig,
    title: str,
    *,
    process: int = 0,
    processes: int = 1,
) -> EncodedSet:
    """All clips of ``data`` encoded, now, into memory or the cache folder.

    Several processes with one cache begin at places of their own and go round, so that each finds
    most of the work done; nobody waits for anybody. Without a cache each encodes all.

    Raises `MatrixError` naming the sample for a clip that the model does not take.
    """
    cut = [_cut(backbone, sample, config) for sample in data.samples]
    keys = [s.id for s in data.samples]
    if config.cache:
        keys = _cache_keys(backbone, data, config, cut)

    def encode(index: int) -> Encoded:
        found = encode_clip(
            backbone, data[index], mentions=config.mentions, up=config.up, aligned=not cut[index]
        )
        if config.id_map:  # now, and not when it is first drawn
            check_ids(len(found.ids_IHW), f"sample {found.id}")
        return found

    found = EncodedSet(keys, encode, config.cache)
    with progress(title, len(data)) as advance:
        first = len(data) * process // processes
        for index in range(len(data)):
            found.ensure((first + index) % len(data))
            advance(1)
    return found


def check_regions(encoded: EncodedSet, config: TrainConfig) -> None:
    """`MatrixError` where SPA can never act: no instance is visible in its clip's first frame."""
    if config.spa and not any(bool(encoded[i].region_PN.any()) for i in range(len(encoded))):
        raise MatrixError(
            "the SPA loss covers no token: no sample has an instance in its first frame",
            remedy="look at the data set with `matrix check`, or train with --spa 0",
            file=config.data,
            field="spa",
        )


def trainable(backbone: Backbone, data: Dataset, config: TrainConfig) -> Dataset:
    """The clips that the model takes; errors and warnings as `data.dataset.fitting`."""

    def check(index: int) -> None:
        sample, shape = data.samples[index], data.shape(index)
        backbone.grid(shape.num_frames, shape.height, shape.width)
        if config.spa and shape.num_frames == 1:
            raise MatrixError(
                "it has one frame, in which SPA has nothing to follow",
                remedy="train with --spa 0",
                field="spa",
            )
        if config.aligned:
            phrase_tokens(backbone, sample, phrases(sample, config.mentions))
        if config.aligned or config.id_map:
            tracks = data.stored_tracks(index)
            if config.id_map:
                check_ids(sum(t.states[0] is State.VISIBLE for t in tracks.values()), "it")

    return fitting(data, check, "trained on", leave_out=config.leave_out)


def _cut(backbone: Backbone, sample: Sample, config: TrainConfig) -> bool:
    """Whether a phrase of the sample cannot be found among its text tokens."""
    try:
        phrase_tokens(backbone, sample, phrases(sample, config.mentions))
    except MatrixError:
        return True
    return False


def _cache_keys(
    backbone: Backbone, data: Dataset, config: TrainConfig, cut: Sequence[bool]
) -> list[str]:
    # The transformer's shape decides the token grid, its weights nothing of what is stored.
    shape = fingerprint(backbone.transformer).architecture
    kind = type(backbone.pipe).__name__  # whether a clip has a first frame's latents
    settings = (str(FORMAT), config.mentions, str(config.up), shape, kind, backbone.encoders_key())
    without = [("without phrases",) if one else () for one in cut]
    return [sha256_text(*settings, data.content_key(i), *w) for i, w in enumerate(without)]


def read_clips(config: TrainConfig) -> tuple[Dataset, Dataset]:
    """Clips to train on, and held-out clips. Raises `MatrixError` where none is left, or no
    caption has a phrase for SGA."""
    data = open_clips(config.data, config.transform(), config.limit, leave_out=config.leave_out)
    count = config.heldout_samples
    if config.val_data is not None:
        held = open_clips(config.val_data, config.transform(), count, leave_out=config.leave_out)
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

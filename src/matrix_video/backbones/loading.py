"""From a model's name to a pipeline, and from a pipeline to its backbone.

A family registers by the class name of its transformer: ours below, others through the entry-point
group ``matrix_video.backbones`` (name: transformer class, value: ``module:BackboneClass``).
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from pathlib import Path
from threading import Thread
from typing import Any, Final, cast
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from huggingface_hub import constants, try_to_load_from_cache

from matrix_video.backbones.base import Backbone
from matrix_video.backbones.quantize import Quantize, follow_autocast, is_quantized, quantization
from matrix_video.services.errors import MatrixError

GROUP: Final = "matrix_video.backbones"
TINY: Final = "tiny"

_HUB_ID: Final = re.compile(r"[\w.-]+(/[\w.-]+)?")
_PATIENCE: Final = 3.0
"""Seconds to wait for the hub."""

_OURS: Final = (
    EntryPoint(
        "CogVideoXTransformer3DModel", "matrix_video.backbones.cogvideox:CogVideoXBackbone", GROUP
    ),
    EntryPoint("WanTransformer3DModel", "matrix_video.backbones.wan:WanBackbone", GROUP),
    EntryPoint(
        "HunyuanVideoTransformer3DModel",
        "matrix_video.backbones.hunyuan:HunyuanVideoBackbone",
        GROUP,
    ),
    EntryPoint("LTXVideoTransformer3DModel", "matrix_video.backbones.ltx:LTXBackbone", GROUP),
    EntryPoint("MochiTransformer3DModel", "matrix_video.backbones.mochi:MochiBackbone", GROUP),
)


_REFUSED: Final = {
    "SanaVideoTransformer3DModel": "its self-attention is linear: there is no softmax, so no "
    "attention from one video token to another that could be measured or aligned",
}
"""Transformers that no backbone could serve, with the reason."""


def families() -> dict[str, EntryPoint]:
    """Known families by the class name of their transformer."""
    return {point.name: point for point in (*entry_points(group=GROUP), *_OURS)}


def backbone_for(pipe: DiffusionPipeline) -> Backbone:
    """The backbone of a loaded pipeline. `MatrixError` for a family that is not known."""
    name = type(pipe.components.get("transformer")).__name__
    return _family(name, type(pipe).__name__)(pipe)


def load_pipeline(
    model: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
    quantize: Quantize = "none",
) -> DiffusionPipeline:
    """The pipeline ``model``: "tiny" (shipped), a folder in diffusers' format, or a hub id.

    Only safetensors are read and no code of a checkpoint runs. Weights are converted to ``dtype``,
    on ``device`` (None: the GPU, where there is one); those of the transformer's linear layers to
    ``quantize``, one after another, so that they are never all there in ``dtype``.
    Raises `MatrixError` when there is no such model, when it is not complete, when its family is
    not known, or when what ``quantize`` needs is not installed; all but the second before any
    weight is loaded.
    """
    stored = quantization(quantize)
    source = shipped() if model == TINY else model
    check_there(source)
    index = cast("Any", DiffusionPipeline)
    try:
        config = index.load_config(source)
        pipeline, (_, transformer) = config["_class_name"], config["transformer"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _not_loaded(model, source, error) from error
    _family(str(transformer), str(pipeline))
    try:
        pipe = index.from_pretrained(
            source, use_safetensors=True, dtype=dtype, quantization_config=stored
        )
    except (OSError, ValueError) as error:
        raise _not_loaded(model, source, error) from error
    if stored is not None:
        follow_autocast(pipe.transformer)
    place = ("cuda" if torch.cuda.is_available() else "cpu") if device is None else device
    return cast("DiffusionPipeline", pipe.to(place))


def check_there(source: str) -> None:
    """`MatrixError` at once where ``source`` is no folder and cannot be fetched: without a network
    the hub's client tries again for most of a minute."""
    if Path(source).exists():
        return
    looked = f"no folder {Path(source).absolute()}"
    if _HUB_ID.fullmatch(source) is None:
        looked += ", and no name on the hub is like this"
    else:
        if isinstance(try_to_load_from_cache(source, "model_index.json"), str):
            return
        looked += f", nothing of {source} in the cache {constants.HF_HUB_CACHE}"
        if constants.HF_HUB_OFFLINE:
            looked += ", and HF_HUB_OFFLINE forbids to ask the hub"
        elif _reachable(constants.ENDPOINT):
            return
        else:
            looked += f", and no answer from {constants.ENDPOINT} in {_PATIENCE:g} s"
    raise MatrixError(
        f"the model {source!r} was not found: there is {looked}",
        remedy="check the name; without a network, download it elsewhere and give its folder, or "
        "use --model tiny",
        field="model",
    )


def _reachable(endpoint: str) -> bool:
    """Whether the hub answers; behind a proxy only its own client can tell."""
    if getproxies():
        return True
    place = urlsplit(endpoint)
    address = (place.hostname or "", place.port or (80 if place.scheme == "http" else 443))

    found: list[bool] = []

    def connect() -> None:
        with suppress(OSError), socket.create_connection(address, timeout=_PATIENCE):
            found.append(True)

    # In a thread, since looking up a name knows no timeout.
    thread = Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return bool(found)


def held_as(backbone: Backbone) -> str:
    """How the transformer's weights are held: "float32", "bfloat16", "int8"."""
    if is_quantized(backbone.transformer):
        return "int8"
    # Some families keep norms in float32.
    patch = backbone.transformer.get_submodule(backbone.condition_site())
    return str(next(patch.parameters()).dtype).removeprefix("torch.")


def _family(transformer: str, pipeline: str) -> Callable[[DiffusionPipeline], Backbone]:
    known = families()
    if transformer in _REFUSED and transformer not in known:
        raise MatrixError(
            f"{pipeline} cannot be used ({transformer}): {_REFUSED[transformer]}",
            remedy=f"use a model with one of {', '.join(sorted(known))}",
        )
    if transformer not in known:
        raise MatrixError(
            f"{pipeline} has a transformer of an unknown family ({transformer})",
            remedy=f"use a model with one of {', '.join(sorted(known))}, or register a backbone "
            f"under the entry-point group {GROUP!r}",
        )
    return known[transformer].load()


def shipped() -> str:
    """The folder of the pipeline "tiny"."""
    folder = Path(str(files("matrix_video"))) / "models" / TINY
    if not (folder / "model_index.json").is_file():
        raise MatrixError(
            "the tiny pipeline is not in this installation",
            remedy="install the package again, or give the folder of a trained one",
            file=folder,
        )
    return str(folder)


def _not_loaded(model: str, source: str, error: Exception) -> MatrixError:
    reason = " ".join(str(error).split())
    reason = reason if len(reason) <= 300 else f"{reason[:300]} ..."
    if Path(source).exists():
        return MatrixError(
            f"not a complete pipeline in diffusers' format with safetensors weights ({reason})",
            remedy="the folder needs model_index.json and one sub-folder with *.safetensors for "
            "each part; save it again with pipe.save_pretrained(folder)",
            file=source,
        )
    return MatrixError(
        f"the model {model!r} is neither a folder here nor could it be fetched ({reason})",
        remedy="check the name; without a network, download it elsewhere and give its folder, or "
        "use --model tiny",
        field="model",
    )

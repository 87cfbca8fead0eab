"""Pipelines from their configuration files alone: every part the stock class, no weight read.

A blueprint is what a folder in diffusers' format, or a hub repository, says of itself in JSON.
``models/configs`` holds these files for a few published models, so that a run can be planned
without a download; each names the source of its values.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, cast

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import nn
from transformers import PreTrainedModel

from matrix_video.backbones.loading import TINY, check_there, families
from matrix_video.backbones.tiny import tiny_tokenizer
from matrix_video.services.errors import MatrixError
from matrix_video.services.files import read_json

_LIBRARIES: Final = ("diffusers", "transformers")
"""Where parts may come from: no other module is imported at a model's word."""
_TINY_CLIP: Final = (17, 64, 64)

Reader = Callable[[str], dict[str, Any]]
"""A JSON file of the model by its path within it; ``OSError`` where it has none."""


@dataclass(frozen=True)
class Blueprint:
    """A pipeline that can be built; ``clip`` is what it is made for, where that is known."""

    model: str
    source: str
    """Where its configuration comes from, for people."""
    clip: tuple[int, int, int] | None
    """Frames, rows, columns."""
    read: Reader
    place: str | None = None
    """Folder or hub id that tokenizers are read from; None: stand-ins of the same length."""
    transformer: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What replaces settings of the transformer, such as its number of layers."""

    def build(self, dtype: torch.dtype, text_tokens: int | None = None) -> DiffusionPipeline:
        """The pipeline with all parameters and buffers on the meta device, in ``dtype``.

        ``text_tokens``: another length for the tokenizers. Raises `MatrixError` for a family that
        is not known and for files that are not there.
        """
        index = self._read("model_index.json")
        transformer = _pair(index.get("transformer"))
        if transformer is None or transformer[1] not in families():
            raise MatrixError(
                f"{self.model} has a transformer of an unknown family "
                f"({transformer[1] if transformer else 'none'})",
                remedy=f"use a model with one of {', '.join(sorted(families()))}",
                field="model",
            )
        arguments: dict[str, Any] = {}
        for name, value in index.items():
            pair = _pair(value)
            if name.startswith("_"):
                continue
            if pair is not None:
                arguments[name] = self._part(name, *pair, dtype, text_tokens)
            elif not isinstance(value, list):  # a setting; [null, null] is a part left out
                arguments[name] = value
        pipe = _class("diffusers", str(index["_class_name"]))(**arguments)
        pipe.set_progress_bar_config(disable=True)
        return cast("DiffusionPipeline", pipe)

    def _part(
        self, name: str, library: str, kind: str, dtype: torch.dtype, text_tokens: int | None
    ) -> Any:
        cls = _class(library, kind)
        if "Tokenizer" in kind:
            facts = self._read(f"{name}/tokenizer_config.json")
            if self.place is None:
                return tiny_tokenizer(text_length=text_tokens or int(facts["model_max_length"]))
            tokenizer = cls.from_pretrained(self.place, subfolder=name)
            tokenizer.model_max_length = text_tokens or tokenizer.model_max_length
            return tokenizer
        if issubclass(cls, nn.Module):
            config = self._read(f"{name}/config.json")
            config |= self.transformer if name == "transformer" else {}
            with torch.device("meta"):
                if issubclass(cls, PreTrainedModel):
                    known: Any = cls.config_class
                    part: Any = cls(known.from_dict(config))
                else:
                    part = cast("Any", cls).from_config(config)
            return _in_dtype(part, dtype).eval()
        if issubclass(cls, ConfigMixin):
            return cast("Any", cls).from_config(self._read(f"{name}/scheduler_config.json"))
        return cls(**self._read(f"{name}/preprocessor_config.json"))

    def _read(self, path: str) -> dict[str, Any]:
        try:
            return dict(self.read(path))
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise MatrixError(
                f"no {path} of the model {self.model!r} was found ({reason})",
                remedy=_choices(),
                field="model",
            ) from error


def blueprint(model: str) -> Blueprint:
    """The blueprint of "tiny", of a preset (by its name or hub id), of a folder or of a hub id."""
    shipped = Path(str(files("matrix_video"))) / "models"
    if model == TINY:
        place = str(shipped / TINY)
        return Blueprint(model, "the shipped pipeline", _TINY_CLIP, _on_disk(place), place)
    known = presets()
    for name, file in known.items():
        facts = read_json(file)
        if not Path(model).is_dir() and model.lower() in (name, facts["hub"].lower()):
            frames, height, width = facts["clip"]
            read = cast("Reader", facts["files"].__getitem__)
            return Blueprint(model, facts["source"], (frames, height, width), read)
    try:
        check_there(model)
    except MatrixError as error:
        raise MatrixError(error.problem, remedy=_choices(), field=error.field) from error
    source = f"its own files ({model})"
    return Blueprint(model, source, None, _on_disk(model), model)


def presets() -> dict[str, Path]:
    """Published models whose configuration is in the package, by name."""
    folder = Path(str(files("matrix_video"))) / "models/configs"
    return {file.stem: file for file in sorted(folder.glob("*.json"))}


def _choices() -> str:
    names = ", ".join((TINY, *presets()))
    return f"give one of {names}, a folder in diffusers' format, or a hub id that can be fetched"


def _on_disk(source: str) -> Reader:
    """Reads a folder, or fetches from the hub; diffusers knows how to do both for one file."""

    def read(path: str) -> dict[str, Any]:
        folder, _, name = path.rpartition("/")
        if Path(source).is_dir():
            return cast("dict[str, Any]", read_json(Path(source) / path))
        reader: Any = type("_Json", (ConfigMixin,), {"config_name": name})
        with warnings.catch_warnings():  # diffusers' call names an argument that the hub has not
            warnings.filterwarnings("ignore", "The `local_dir_use_symlinks`")
            return dict(reader.load_config(source, subfolder=folder or None))

    return read


def _in_dtype(part: Any, dtype: torch.dtype) -> nn.Module:
    """As diffusers loads it: a few small modules of some families stay in float32."""
    kept = getattr(type(part), "_keep_in_fp32_modules", None) or ()
    kept = kept if isinstance(part, ModelMixin) else ()
    for name, tensor in (*part.named_parameters(), *part.named_buffers()):
        if tensor.is_floating_point() and not set(kept) & {*name.split(".")}:
            tensor.data = tensor.data.to(dtype)
    return cast("nn.Module", part)


def _pair(value: object) -> tuple[str, str] | None:
    """Library and class of a part in ``model_index.json``; None where it is none."""
    if isinstance(value, list | tuple):
        found = [str(part) for part in cast("list[object]", value) if part is not None]
        if len(found) == 2:
            return found[0], found[1]
    return None


def _class(library: str, name: str) -> Any:
    found = getattr(import_module(library), name, None) if library in _LIBRARIES else None
    if found is None:
        raise MatrixError(
            f"a part of the model is of class {library}.{name}, which is not known",
            remedy=f"plan for a model whose parts are classes of {' and '.join(_LIBRARIES)}",
            field="model",
        )
    return found

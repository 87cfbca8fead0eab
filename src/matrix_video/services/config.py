"""Settings of a run on disk, and what a folder is by the files that it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, cast

import yaml

from matrix_video.services.errors import MatrixError
from matrix_video.services.files import read_bounded, writing

CONFIG: Final = "config.yaml"
_LARGEST: Final = 2**20
"""Bytes of a config.yaml."""


class _Dumper(yaml.SafeDumper):
    """YAML without aliases, which the reader refuses."""

    def ignore_aliases(self, data: object) -> bool:
        return True


class _Loader(yaml.SafeLoader):
    """YAML without aliases: a few of them make gigabytes of some hundred bytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has aliases (*name)")
        return super().compose_node(parent, index)


def dump_config(settings: Mapping[str, Any]) -> str:
    """The text of a config.yaml."""
    return yaml.dump(dict(settings), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read_config(folder: Path) -> dict[str, Any]:
    """Settings that a run folder holds; empty when it is no run. `MatrixError` for broken YAML."""
    path = folder / CONFIG
    if not path.is_file():
        return {}
    try:
        text = read_bounded(path, _LARGEST).decode()
        stored: object = yaml.load(text, Loader=_Loader)
        stored = {} if stored is None else stored  # an empty file
        if not isinstance(stored, dict):
            raise ValueError("no names with values")
        json.dumps(stored)  # neither dates and sets nor numbers without end ("1:30:30:...")
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OSError) as error:
        raise MatrixError(
            f"this is not valid YAML of settings ({' '.join(str(error).split())})",
            remedy="restore the file, or choose another output folder",
            file=path,
        ) from error
    return cast("dict[str, Any]", stored)


def check_free(folder: Path, allowed: Literal["", "a data set", "a report"] = "") -> None:
    """`MatrixError` where a folder is a run, or something else of ours than is ``allowed``."""
    marks = {
        "a data set": ("metadata.jsonl", "metadata.partial.jsonl", "metadata.csv"),
        "a report": ("index.html",),
    }
    with writing(folder):
        command = read_config(folder).get("command")
        kinds = [k for k, names in marks.items() if any((folder / n).is_file() for n in names)]
    if command is not None:
        found = f"a run of {command!r}"
    else:
        found = "" if allowed in kinds else next(iter(kinds), "")
    if found:
        raise MatrixError(
            f"the folder is {found} already",
            remedy="choose another output folder",
            file=folder,
        )

"""Tensors into a safetensors file, with errors as any other file's; and what tells them apart."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from matrix_video.services.files import temporary_prefix

_CODE: Final = re.compile(r"\(os error (\d+)\)")


def save_tensors(tensors: Mapping[str, Tensor], file: Path, metadata: Mapping[str, str]) -> None:
    """Write ``file``, whole or not at all; tensors are stored contiguous, from wherever they are.

    Raises `OSError` for a full disk and the like, which safetensors tells as an error of its own
    kind, in words; `services.files.atomic_path` and `atomic_dir` make a `MatrixError` of it.
    """
    # safetensors writes under a random name beside the file: in a folder of ours, so that what a
    # killed process leaves is known by its name.
    with TemporaryDirectory(prefix=temporary_prefix(), dir=file.parent) as folder:
        whole = Path(folder) / file.name
        stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        try:
            save_file(stored, whole, dict(metadata))
        except SafetensorError as error:
            code = _CODE.search(str(error))
            if code is None:
                raise
            number = int(code.group(1))
            raise OSError(number, os.strerror(number), str(file)) from error
        # safetensors makes files that nobody else may read; adapters and caches are shared.
        (Path(folder) / "plain").touch()
        whole.chmod((Path(folder) / "plain").stat().st_mode)
        os.replace(whole, file)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Hex SHA-256 of tensors on the CPU: names, dtypes, shapes and bytes."""
    found = sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        found.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()

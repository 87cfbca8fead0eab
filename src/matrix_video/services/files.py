"""Files that are either whole or not there.

Everything is written under a temporary name in the same folder and renamed when complete, so a
killed or full-disk run leaves no partial file under a final name.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matrix_video.services.errors import MatrixError

TEMPORARY = ".partial-"
"""Prefix of temporary names; anything that starts so may be deleted."""


def _out_of_disk(error: OSError, path: Path) -> MatrixError:
    return MatrixError(
        f"no space is left on the device ({error.strerror})",
        remedy="free some space or choose another output folder, then run the same command again: "
        "it goes on where it stopped",
        file=path,
    )


def _is_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _temporary(path: Path) -> Path:
    # The suffix is kept: encoders and savers choose their format by it.
    return path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` (same suffix); rename it there on success.

    On any error the temporary file is removed. A full disk becomes a ``MatrixError``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if _is_full(error):
            assert isinstance(error, OSError)
            raise _out_of_disk(error, path) from error
        raise


@contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """The same for a whole folder; an existing folder of that name is replaced on success."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if _is_full(error):
            assert isinstance(error, OSError)
            raise _out_of_disk(error, path) from error
        raise


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write the whole content at once (text as UTF-8)."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def read_json(path: Path) -> Any:
    """Parsed JSON; a missing or broken file is a ``MatrixError`` that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MatrixError(
            "the file does not exist", remedy="check the path, or make it first", file=path
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise MatrixError(
            f"this is not valid JSON ({error})",
            remedy="restore the file, or delete it and run the command that wrote it",
            file=path,
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with a final newline."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_text(*parts: str) -> str:
    """Hex digest of the parts; their boundaries count."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()

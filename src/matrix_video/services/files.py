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
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from matrix_video.services.errors import MatrixError

TEMPORARY: Final = ".partial-"
"""Prefix of temporary names; anything that starts so may be deleted."""

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
_OCCUPIED: Final = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR)


def _unwritable(error: OSError, path: Path) -> MatrixError | None:
    """What to tell the user about a failed write to ``path``; None if it is no such failure."""
    if error.errno in _FULL:
        return MatrixError(
            f"no space is left on the device ({error.strerror})",
            remedy="free some space or choose another output folder, then run the same command "
            "again: it goes on where it stopped",
            file=path,
        )
    if error.errno in _FORBIDDEN:
        return MatrixError(
            f"it cannot be written ({error.strerror})",
            remedy="choose another output folder, or change the permissions of this one",
            file=path,
        )
    if error.errno in _OCCUPIED:
        return MatrixError(
            f"a file stands where a folder belongs, or a folder where a file belongs "
            f"({error.strerror}: {error.filename})",
            remedy="move it away, or choose another output folder",
            file=path,
        )
    return None


def _temporary(path: Path) -> Path:
    # The suffix is kept: encoders and savers choose their format by it.
    return path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")


@contextmanager
def writing(path: Path, temporary: Path | None = None) -> Generator[None]:
    """Turn failed writes to ``path`` within into a ``MatrixError`` about it.

    With ``temporary``, the name under which it is written, the body may read other files too: of
    their errors only a full disk is told as one of ours.
    """
    try:
        yield
    except OSError as error:
        if temporary is None or error.errno in _FULL:
            ours = True
        else:
            named = isinstance(error.filename, str | os.PathLike)
            place = Path(error.filename) if named else None
            ours = place is not None and (place == temporary or path.is_relative_to(place))
        problem = _unwritable(error, path) if ours else None
        if problem is None:
            raise
        raise problem from error


@contextmanager
def atomic_path(path: Path) -> Generator[Path]:
    """Yield a temporary path beside ``path`` (same suffix); rename it there on success.

    On any error the temporary file is removed. A full disk and a place that cannot be written
    raise ``MatrixError``.
    """
    temporary = _temporary(path)
    with writing(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def atomic_dir(path: Path) -> Generator[Path]:
    """The same for a whole folder; an existing folder of that name is replaced on success."""
    temporary = _temporary(path)
    with writing(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            if path.exists():
                shutil.rmtree(path)
            os.replace(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def clear_temporary(folder: Path, *, age: float = 0) -> None:
    """Remove what killed processes left under temporary names, in ``folder`` and below.

    ``age``: only what is so many seconds old, for folders that other machines write to, whose
    processes are not known here.
    """
    now = time.time()
    for path in list(folder.rglob(f"{TEMPORARY}*")):
        with suppress(FileNotFoundError):
            if age and now - path.stat().st_mtime < age:
                continue
        owner = path.name.removeprefix(TEMPORARY).partition("-")[0]
        if owner.isdigit() and int(owner) != os.getpid() and _is_alive(int(owner)):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


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

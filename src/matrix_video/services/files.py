"""Files that are either whole or not there.

Everything is written under a temporary name in the same folder and renamed when complete, so a
killed or full-disk run leaves no partial file under a final name.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

from matrix_video.services.errors import MatrixError

TEMPORARY: Final = ".partial-"
"""Prefix of temporary names; anything that starts so may be deleted."""
LOCK: Final = ".lock"
"""Stands in a folder while a process writes to it, and after that process was killed."""
_REPLACED: Final = ".replaced-"
"""Prefix of a folder while another takes its name, where the two cannot be swapped in one step."""
_PROCESS: Final = token_hex(4)
_COUNT: Final = itertools.count()
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
_OCCUPIED: Final = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR)
_HERE: Final = -100
"""AT_FDCWD of Linux: relative names start in the working directory."""
_SWAP: Final = 2
"""RENAME_EXCHANGE of Linux."""
_MOST_DIGITS: Final = 300
"""A float holds up to 308."""
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_LARGEST: Final = 256 * 2**20
"""Bytes of JSON; scores.json of 11,000 videos is a fifth of that."""


def _unwritable(error: OSError, path: Path) -> MatrixError:
    """What to tell the user about a failed write to ``path``."""
    if error.errno in _FULL:
        return MatrixError(
            f"no space is left on the device ({error.strerror})",
            remedy="free some space or choose another output folder, then run the same command "
            "again: it goes on where it stopped",
            file=path,
        )
    if error.errno in _OCCUPIED:
        return MatrixError(
            f"a file stands where a folder belongs, or a folder where a file belongs "
            f"({error.strerror}: {error.filename})",
            remedy="move it away, or choose another output folder",
            file=path,
        )
    more = ", or change the permissions of this one" if error.errno in _FORBIDDEN else ""
    return MatrixError(
        f"it cannot be written ({error.strerror})",
        remedy=f"choose another output folder{more}",
        file=path,
    )


def temporary_prefix() -> str:
    """Prefix of temporary names that are this process's, and no other's on any machine."""
    return f"{TEMPORARY}{os.getpid()}-{_PROCESS}-"


def _temporary(path: Path) -> Path:
    """A name that no other thread takes. The suffix is kept, since encoders choose their format by
    it; a name that is long already does not become longer than allowed."""
    return path.with_name(f"{temporary_prefix()}{next(_COUNT)}-{path.name[-64:]}")


@contextmanager
def writing(path: Path, temporary: Path | None = None) -> Generator[None]:
    """Turn failed writes to ``path`` within into a ``MatrixError`` about it.

    With ``temporary``, the name under which it is written, the body may read other files too: of
    their errors only a full disk is told as one of ours.
    """
    if "\0" in str(path):
        raise _unwritable(OSError(errno.EINVAL, "its name holds a NUL character"), path)
    try:
        yield
    except OSError as error:
        if temporary is not None and error.errno not in _FULL:
            named = isinstance(error.filename, str | os.PathLike)
            place = Path(error.filename) if named else None
            if place is None or not (place == temporary or path.is_relative_to(place)):
                raise
        raise _unwritable(error, path) from error


def make_folder(path: Path) -> None:
    """Make an output folder with its parents; `MatrixError` where that cannot be."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


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
    """The same for a whole folder; an existing folder of that name is replaced on success.

    Its name leads to the old or to the new one at every moment; where the system cannot swap
    folders, a kill can part the two renames, and `clear_temporary` or the next call mends that.
    """
    path = path.resolve() if path.is_symlink() else path
    temporary = _temporary(path)
    with writing(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        _restore(_aside(path))
        temporary.mkdir()
        try:
            yield temporary
            _replace_folder(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _replace_folder(new: Path, path: Path) -> None:
    """Afterwards ``new`` is gone, or holds what was at ``path``."""
    try:
        os.replace(new, path)  # nothing, or an empty folder, stands there
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not _exchange(new, path):
            aside = _aside(path)
            try:
                os.replace(path, aside)
                os.replace(new, path)
            finally:
                _restore(aside)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where the system or the file system cannot."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    return rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _SWAP) == 0


def _aside(path: Path) -> Path:
    return path.with_name(f"{_REPLACED}{path.name}")


def _restore(aside: Path) -> None:
    """Put a folder back whose replacement did not come, or remove it."""
    path = aside.with_name(aside.name.removeprefix(_REPLACED))
    with suppress(FileNotFoundError):
        if path.exists():
            shutil.rmtree(aside)
        else:
            os.replace(aside, path)


def clear_temporary(folder: Path, *, age: float = 0) -> None:
    """Remove what killed processes left under temporary names, in ``folder`` and below.

    ``age``: only what is so many seconds old, for folders that other machines write to, whose
    processes are not known here.
    """
    now = time.time()
    for aside in list(folder.rglob(f"{_REPLACED}*")):
        _restore(aside)
    for path in list(folder.rglob(f"{TEMPORARY}*")):
        with suppress(FileNotFoundError):
            if age and now - path.stat().st_mtime < age:
                continue
        owner = path.name.removeprefix(TEMPORARY).partition("-")[0]
        # An earlier process may have had our number: a container's often has.
        ours = path.name.startswith(temporary_prefix())
        if ours or (owner.isdigit() and int(owner) != os.getpid() and _is_alive(int(owner))):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def is_temporary(path: Path) -> bool:
    """Whether a path is, or lies in, what this package's writers leave when they are killed."""
    return any(p == LOCK or p.startswith((TEMPORARY, _REPLACED)) for p in path.parts)


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


def drop_torn_line(path: Path) -> None:
    """A process that is killed while it appends a line leaves half of it at the file's end."""
    if path.exists():
        whole, newline, torn = path.read_bytes().rpartition(b"\n")
        if torn:
            write_atomic(path, whole + newline)


def read_json(path: Path, *, strict: bool = False) -> Any:
    """Parsed JSON, as `parse_json`; a file that is missing, broken, too large or too deep is a
    `MatrixError` that names it."""
    try:
        return parse_json(read_bounded(path), strict=strict)
    except FileNotFoundError:
        raise MatrixError(
            "the file does not exist", remedy="check the path, or make it first", file=path
        ) from None
    except (OSError, ValueError) as error:
        raise MatrixError(
            f"this is not valid JSON ({error})",
            remedy="correct or restore the file, or delete it and run the command that wrote it",
            file=path,
        ) from error


def read_bounded(path: Path, most: int | None = None) -> bytes:
    """A file's bytes; ``ValueError`` where there are more than ``most`` (None: 256 MiB)."""
    most = _LARGEST if most is None else most
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise ValueError(f"{size} bytes, at most {most} are read")
        return file.read()


def parse_json(text: str | bytes, *, strict: bool = False) -> Any:
    """As `json.loads`, with ``ValueError`` for whatever is wrong: also nesting that is too deep and
    whole numbers that no float holds, and halves of characters, which no file can hold. ``strict``:
    also NaN, Infinity, and a name given twice."""
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text))
    try:
        if strict:
            value = json.loads(
                text, parse_int=_whole, parse_constant=_no_number, object_pairs_hook=_once
            )
        else:
            value = json.loads(text, parse_int=_whole)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("half of a character (\\ud800 to \\udfff alone)") from None
    return value


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice[:80]!r} stands twice in one object")
    return value


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


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

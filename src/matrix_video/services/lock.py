"""One process at a time in a folder."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Self

from matrix_video.services.errors import MatrixError
from matrix_video.services.files import LOCK, make_folder, writing


class FolderLock:
    """An advisory lock on ``folder/.lock``: the system drops it when its holder dies, however.

    Makes the folder if need be, and removes it on release if it is as empty. `MatrixError` where it
    cannot be made or written, and where another holder lives.
    """

    def __init__(self, folder: Path) -> None:
        with writing(folder):
            self._made = not folder.exists()
        make_folder(folder)
        self._path = folder / LOCK
        self._descriptor: int | None = None
        with writing(folder):
            while self._descriptor is None:
                self._descriptor = self._take(folder)
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, str(os.getpid()).encode())

    def _take(self, folder: Path) -> int | None:
        """None where its last holder removed the file between our open and our lock."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), self._path.stat()):
                return descriptor
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode(errors="replace").strip()
            os.close(descriptor)
            raise MatrixError(
                f"{f'process {owner}' if owner else 'another process'} is using this folder",
                remedy="wait for it to end, or choose another output folder",
                file=folder,
            ) from None
        except FileNotFoundError:
            pass
        os.close(descriptor)
        return None

    def release(self) -> None:
        """Safe to call twice."""
        if self._descriptor is not None:
            self._path.unlink(missing_ok=True)
            if self._made:
                with suppress(OSError):  # there is something in it
                    self._path.parent.rmdir()
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

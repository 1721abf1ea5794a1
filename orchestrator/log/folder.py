"""The data folder: one process at a time, and the identity of what is in it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from orchestrator.errors import ConfigError, DataFolderInUse


class FolderLock:
    """Holds a data folder for this process until :meth:`release`, or until the process ends, however it ends.

    Raises:
        DataFolderInUse: another log holds the folder; the message names its process.
        ConfigError: the folder cannot be created or written.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "lock"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ConfigError(_unusable(folder, error)) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise DataFolderInUse(
                f"the data folder {folder} is in use by process {holder}; "
                f"stop that process, or choose another folder"
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, str(os.getpid()).encode(), 0)
        self._held = True

    def release(self) -> None:
        """Let go of the folder. Releasing it again does nothing."""
        if self._held:
            self._held = False
            os.ftruncate(self._file, 0)
            os.close(self._file)


def _unusable(folder: Path, error: OSError) -> str:
    for path in (folder, *folder.parents):
        if path.exists():
            if path.is_dir():
                break
            return (
                f"the data folder {folder} cannot be used: {path} is a file; choose a folder, or a new name"
            )
    return (
        f"the data folder {folder} cannot be used: {error.strerror}; "
        f"choose a folder that this user can create and write"
    )


def read_identity(folder: Path) -> str:
    """The cluster id that the folder was created with; empty if it has none yet."""
    try:
        return (folder / "log.id").read_text().strip()
    except FileNotFoundError:
        return ""


def write_identity(folder: Path, cluster_id: str) -> None:
    """Write the cluster id, durably. From then on a missing log is damage, and is not created anew."""
    draft = folder / "log.id.new"
    with draft.open("w") as file:
        file.write(cluster_id + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.rename(folder / "log.id")
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)

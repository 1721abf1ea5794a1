from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.errors import ConfigError, DataFolderInUse
from orchestrator.log.folder import FolderLock, read_identity, write_identity

HOLD = """
import sys
from pathlib import Path
from orchestrator.log.folder import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_lock_names_the_process_and_what_to_do(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DataFolderInUse) as caught:
            FolderLock(tmp_path)
        assert str(caught.value) == (
            f"the data folder {tmp_path} is in use by process {holder.pid}; "
            f"stop that process, or choose another folder"
        )
        holder.kill()
        holder.wait()
        FolderLock(tmp_path).release()  # a dead process holds nothing


def test_one_process_cannot_hold_it_twice(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / "new" / "folder")
    with pytest.raises(DataFolderInUse):
        FolderLock(tmp_path / "new" / "folder")
    lock.release()
    lock.release()
    FolderLock(tmp_path / "new" / "folder").release()


@pytest.mark.parametrize("below", ["", "folder", "folder/in-it"])
def test_a_file_is_no_folder(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as caught:
        FolderLock(tmp_path / "file" / below)
    assert str(caught.value) == (
        f"the data folder {tmp_path / 'file' / below} cannot be used: {tmp_path / 'file'} is a file; "
        "choose a folder, or a new name"
    )


def test_a_folder_that_cannot_be_made_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"cannot be used: .*; choose a folder that this user can create"):
        FolderLock(Path("/proc/nothing-is-made-here"))


def test_the_identity_is_kept(tmp_path: Path) -> None:
    assert read_identity(tmp_path) == ""
    write_identity(tmp_path, "abc")
    assert read_identity(tmp_path) == "abc"
    assert [path.name for path in tmp_path.iterdir()] == ["log.id"]

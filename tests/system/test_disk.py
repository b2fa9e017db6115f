"""The disk that loses power forgets what was not synced, and nothing else."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.system.disk import Journal, build_library

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.system  # a C compiler is needed


class Left(Protocol):
    def __call__(self, program: str, *, share: float = 0) -> dict[str, bytes]: ...


@pytest.fixture
def left(tmp_path: Path) -> Left:
    """Run a program in a folder, lose the power at its end, and return the files that are left."""

    def left_by(program: str, *, share: float = 0) -> dict[str, bytes]:
        (folder := tmp_path / "disk").mkdir()
        journal = Journal(folder, tmp_path / "journal", build_library(tmp_path))
        begun = f"import os; from pathlib import Path; folder = Path({str(folder)!r}); {program}"
        subprocess.run([sys.executable, "-c", begun], env={**os.environ, **journal.settings}, check=True)
        journal.lose_power(journal.records(), tmp_path / "left", random.Random(1), data=share, names=share)
        return {
            file.name: bytes(file.readlink()) if file.is_symlink() else file.read_bytes()
            for file in (tmp_path / "left").iterdir()
        }

    return left_by


CREATE = "file = os.open(folder / 'a', os.O_CREAT | os.O_RDWR); os.write(file, b'one')"
SYNC = "os.fsync(file)"
SYNC_FOLDER = "os.fsync(os.open(folder, os.O_RDONLY))"
CHANGE_NAMES = "os.unlink(folder / 'a'); os.symlink('b', folder / 'n'); os.replace(folder / 'n', folder / 'link')"


def test_a_file_has_the_content_that_was_synced_and_nothing_later(left: Left) -> None:
    assert left(f"{CREATE}; {SYNC}; os.pwrite(file, b'two', 1); os.ftruncate(file, 1); {SYNC_FOLDER}") == {"a": b"one"}


def test_a_file_whose_folder_was_not_synced_is_lost(left: Left) -> None:
    assert left(f"{CREATE}; {SYNC}") == {}


def test_a_file_that_was_not_synced_is_empty(left: Left) -> None:
    assert left(f"{CREATE}; {SYNC_FOLDER}") == {"a": b""}


def test_renaming_deleting_and_linking_are_undone_unless_the_folder_is_synced_afterwards(left: Left) -> None:
    program = f"{CREATE}; {SYNC}; os.symlink('a', folder / 'link'); {SYNC_FOLDER}; {CHANGE_NAMES}"
    assert left(program) == {"a": b"one", "link": b"a"}


def test_and_they_are_done_if_it_is(left: Left) -> None:
    assert left(f"{CREATE}; os.symlink('a', folder / 'link'); {CHANGE_NAMES}; {SYNC_FOLDER}") == {"link": b"b"}


def test_what_was_not_synced_may_be_left_too(left: Left) -> None:
    assert left(f"{CREATE}; os.pwrite(file, b'two', 3); os.ftruncate(file, 5)", share=1) == {"a": b"onetw"}


def test_of_a_write_some_sectors_may_be_left(left: Left) -> None:
    content = left(f"{CREATE}; {SYNC}; {SYNC_FOLDER}; os.pwrite(file, b'x' * 51200, 0)", share=0.5)["a"]
    sectors = {content[at : at + 512] for at in range(512, 50_688, 512)}
    assert sectors == {b"x" * 512, bytes(512)}

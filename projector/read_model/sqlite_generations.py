"""The files of a read model on SQLite: a link names the live one, another the one before; the rest is rubbish.

projector.db.read-model           → projector.db.read-model.7
projector.db.read-model.previous  → projector.db.read-model.6
projector.db.read-model.lock        held, and written to, by whoever builds the next one
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from projector.read_model import ReadModelUnavailable
from projector.read_model.generations import RebuildProgress
from projector.read_model.sqlite import SQLiteDraft, SQLiteReadModel

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

_BESIDE: Final = ("-wal", "-shm", "-journal")


class SQLiteGeneration:
    """`Generation` in a file of its own."""

    def __init__(self, path: Path, links: Links) -> None:
        self._path = path
        self._links = links

    @property
    def name(self) -> str:
        return str(self._path)

    def shard(self, number: int) -> SQLiteGeneration:
        return SQLiteGeneration(self._path.with_suffix(f".{int(self._path.suffix[1:]) + number}"), self._links)

    def create(self, versions: Mapping[str, int], *, from_scratch: Collection[str]) -> SQLiteDraft:
        live = None if set(from_scratch) == set(versions) else self._links.live
        return SQLiteDraft(
            str(self._path), {name: versions[name] for name in from_scratch}, str(live) if live else None
        )

    def open(self) -> SQLiteReadModel:
        return SQLiteReadModel(str(self._path))

    def promote(self) -> None:
        self._links.promote(self._path)


class SQLiteGenerations:
    """`Generations` in files beside the events; `path` is the link that names the live one."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._links = Links(path)
        self._lock = Path(f"{path}.lock")

    def live(self, *, timeout_s: float = 1) -> SQLiteReadModel:
        return SQLiteReadModel(self._path, timeout_s=timeout_s)

    @contextlib.contextmanager
    def begin_rebuild(self, on_wait: Callable[[], None] = lambda: None) -> Iterator[SQLiteGeneration]:
        # The lock is released with the process, however it ends.
        with self._alone(on_wait):
            self._links.sweep()
            try:
                yield SQLiteGeneration(self._links.unused(), self._links)
            finally:
                self._links.sweep()

    def previous(self) -> SQLiteGeneration | None:
        return SQLiteGeneration(self._links.previous, self._links) if self._links.previous else None

    def drop_previous(self) -> None:
        """Its file goes when the building ends."""
        self._links.drop_previous()

    def report_progress(self, progress: RebuildProgress) -> None:
        with self._lock.open("r+b") as file:
            file.write(msgspec.json.encode(progress) + b"\n")
            file.truncate()

    def rebuild_progress(self) -> RebuildProgress | None:
        with contextlib.suppress(FileNotFoundError), self._lock.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                with contextlib.suppress(msgspec.DecodeError):
                    return msgspec.json.decode(file.read(), type=RebuildProgress)
                return RebuildProgress("starting", 0, 0)
        return None

    @contextlib.contextmanager
    def _alone(self, on_wait: Callable[[], None]) -> Iterator[None]:
        with contextlib.ExitStack() as held:
            with _errors_named():
                lock = held.enter_context(self._lock.open("ab"))
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    on_wait()
                    fcntl.flock(lock, fcntl.LOCK_EX)
                lock.truncate(0)
            yield


class Links:
    """Which files are live and previous, and which are there at all. `path` is the link that names the live one."""

    def __init__(self, path: str) -> None:
        self._live = Path(path)
        self._previous = Path(f"{path}.previous")

    @property
    def live(self) -> Path | None:
        """The live file, None while there is none."""
        return _target(self._live)

    @property
    def previous(self) -> Path | None:
        """The file that was live before, None if there is none."""
        return _target(self._previous)

    def promote(self, path: Path) -> None:
        """Make this file the live one, in one step, and the live one the previous one. Raises ReadModelUnavailable."""
        with _errors_named():
            _sync(path)
            if self.live is not None:
                _link(self._previous, self.live)
            _link(self._live, path)

    def drop_previous(self) -> None:
        """Have none before the live one. Raises ReadModelUnavailable."""
        with _errors_named():
            self._previous.unlink(missing_ok=True)

    def unused(self) -> Path:
        """Return a name that no reader can take for one it knows: the newest ever live is still live or previous."""
        newest = max((int(path.suffix[1:]) for path in self._files()), default=0)
        return Path(f"{self._live}.{newest + 1}")

    def sweep(self) -> None:
        """Remove every file that is neither live nor previous."""
        for path in set(self._files()) - {self.live, self.previous}:
            _remove(path)

    def _files(self) -> list[Path]:
        beside = self._live.parent.glob(f"{glob.escape(self._live.name)}.*")
        return [path for path in beside if path.suffix[1:].isdigit()]


def _remove(path: Path) -> None:
    for suffix in ("", *_BESIDE):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _target(link: Path) -> Path | None:
    """Return the file a link names. What is no link, as an earlier version left it, names none."""
    try:
        target = link.parent / link.readlink()
    except OSError:
        return None
    return target if target.exists() else None


def _link(link: Path, target: Path) -> None:
    fresh = Path(f"{link}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target.name)
    fresh.replace(link)


def _sync(path: Path) -> None:
    """Make a file durable, so that no loss of power leaves a link to what is not there yet."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _errors_named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ReadModelUnavailable(f"{error.filename}: {error.strerror}") from error

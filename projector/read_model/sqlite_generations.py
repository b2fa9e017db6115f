"""The generations of a read model on SQLite: a file each, and links that name the live and the previous one.

projector.db.read-model.current      → projector.db.read-model-v3
projector.db.read-model-v3           → projector.db.read-model-v3.7
projector.db.read-model-v3.previous  → projector.db.read-model-v3.6
projector.db.read-model-v3.lock        locked during a rebuild, and holds its progress
projector.db.read-model-v3.worker      locked by all workers

The names contain the version of the schema, so that processes of two versions run side by side.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from projector.read_model.generation_files import (
    GenerationFiles,
    alias_path,
    earlier_files,
    live_path,
    open_private,
    os_errors_as_unavailable,
)
from projector.read_model.generations import STARTING, RebuildProgress
from projector.read_model.sqlite import SQLiteDraft, SQLiteReadModel, has_connections
from projector.read_model.worker_lock import WorkerLock


class SQLiteGeneration:
    """`Generation` in a file of its own."""

    def __init__(self, path: Path, files: GenerationFiles) -> None:
        self._path = path
        self._files = files

    @property
    def name(self) -> str:
        return str(self._path)

    def shard(self, number: int) -> SQLiteGeneration:
        return SQLiteGeneration(self._path.with_suffix(f".{int(self._path.suffix[1:]) + number}"), self._files)

    def create(self, versions: Mapping[str, int], forgotten_through: int) -> SQLiteDraft:
        return SQLiteDraft.create(self.name, versions, forgotten_through)

    def open(self) -> SQLiteReadModel:
        return SQLiteReadModel(self.name)

    def promote(self) -> None:
        self._files.promote(self._path)


class SQLiteGenerations:
    """`Generations` in files beside the events, whose names begin with `path`."""

    def __init__(self, path: str) -> None:
        self._path = live_path(path)
        self._files = GenerationFiles(self._path, alias_path(path))
        self._earlier = earlier_files(path)
        self._lock = Path(f"{self._path}.lock")

    def live(self, *, timeout_s: float = 1) -> SQLiteReadModel:
        return SQLiteReadModel(self._path, timeout_s=timeout_s)

    def has_worker(self) -> bool:
        return WorkerLock(self._path).is_held()

    @contextmanager
    def begin_rebuild(self, on_wait: Callable[[], None] = lambda: None) -> Iterator[SQLiteGeneration]:
        with self._locked(on_wait):
            self._files.delete_unused()
            self._delete_earlier()
            try:
                yield SQLiteGeneration(self._files.next(), self._files)
            finally:
                self._files.delete_unused()

    def previous(self) -> SQLiteGeneration | None:
        path = self._files.previous
        return SQLiteGeneration(path, self._files) if path else None

    def drop_previous(self) -> None:
        self._files.drop_previous()
        for files in self._earlier:
            files.delete_all()

    def report_progress(self, progress: RebuildProgress) -> None:
        with self._lock.open("r+b") as file:
            file.write(msgspec.json.encode(progress) + b"\n")
            file.truncate()

    def rebuild_progress(self) -> RebuildProgress | None:
        with suppress(FileNotFoundError), self._lock.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                with suppress(msgspec.DecodeError):
                    return msgspec.json.decode(file.read(), type=RebuildProgress)
                return STARTING
        return None

    def _delete_earlier(self) -> None:
        """Delete read models of earlier schema versions that no process uses, once there is one of this version."""
        if self._files.live is not None:
            for files in self._earlier:
                if files.live is None or not has_connections(str(files.live)):
                    files.delete_all()

    @contextmanager
    def _locked(self, on_wait: Callable[[], None]) -> Iterator[None]:
        """Hold the right to rebuild. The system releases it when the process ends, in whatever way."""
        with ExitStack() as stack:
            with os_errors_as_unavailable():
                file = stack.enter_context(open(self._lock, "ab", opener=open_private))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    on_wait()
                    fcntl.flock(file, fcntl.LOCK_EX)
                file.truncate(0)
            yield

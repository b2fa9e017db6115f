"""The files of a read model on SQLite, one for each generation, and the symbolic links that name two of them."""

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from projector.clock import now_ms
from projector.read_model import ReadModelUnavailable
from projector.read_model.schema import SCHEMA_VERSION

_SUFFIXES: Final = ("", "-wal", "-shm", "-journal")
_FIRST_IN_NAMES: Final = 3
"""The first schema version that the names of the files contain; those of earlier versions share one name."""


def live_path(path: str, schema_version: int = SCHEMA_VERSION) -> str:
    """Return the link to the live read model of a schema version, beside those of other versions."""
    return path if schema_version < _FIRST_IN_NAMES else f"{path}-v{schema_version}"


class GenerationFiles:
    """The generations of one read model, as files; `path` is the link that names the live one.

    `alias` is a link to this link, for people and other programs: it is the same for every schema version.
    """

    def __init__(self, path: str, alias: str | None = None) -> None:
        self._live = Path(path)
        self._previous = Path(f"{path}.previous")
        self._alias = Path(alias) if alias else None

    @property
    def live(self) -> Path | None:
        return _target(self._live)

    @property
    def previous(self) -> Path | None:
        return _target(self._previous)

    def promote(self, path: Path) -> None:
        """Make a file live, and the live one the previous one, in one step. Raises ReadModelUnavailable.

        A loss of power leaves no link to missing data.
        """
        with os_errors_as_unavailable():
            _sync(path)
            _sync(path.parent)
            if self.live is not None:
                _link(self._previous, self.live)
            _link(self._live, path)
            if self._alias is not None:
                _link(self._alias, self._live)
            _sync(path.parent)

    def drop_previous(self) -> None:
        """Remove the link to the previous file, which makes the file unused. Raises ReadModelUnavailable."""
        with os_errors_as_unavailable():
            self._previous.unlink(missing_ok=True)

    def next(self) -> Path:
        """Return a path above all others and never used before, even if earlier files were deleted.

        A connection to a deleted file deletes, when it is closed, the log of whichever file has its name.
        """
        newest = max((int(path.suffix[1:]) for path in self._files()), default=0)
        return Path(f"{self._live}.{max(newest + 1, now_ms())}")

    def delete_unused(self) -> None:
        """Delete every file that is neither live nor previous, for good. Raises ReadModelUnavailable."""
        with os_errors_as_unavailable():
            if unused := set(self._files()) - {self.live, self.previous}:
                for path in unused:
                    for suffix in _SUFFIXES:
                        Path(f"{path}{suffix}").unlink(missing_ok=True)
                _sync(self._live.parent)

    def delete_all(self) -> None:
        """Delete every file and both links. Raises ReadModelUnavailable."""
        with os_errors_as_unavailable():
            self._live.unlink(missing_ok=True)
            self._previous.unlink(missing_ok=True)
            self.delete_unused()
            for suffix in (".lock", ".worker"):
                Path(f"{self._live}{suffix}").unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        candidates = self._live.parent.glob(f"{glob.escape(self._live.name)}.*")
        return [path for path in candidates if path.suffix[1:].isdigit()]


def alias_path(path: str) -> str:
    """Return the link to the link to the live read model, of whichever schema version was made live last."""
    return f"{path}.current"


def earlier_files(path: str) -> list[GenerationFiles]:
    """Return the files of each earlier schema version."""
    return [GenerationFiles(live_path(path, version)) for version in range(_FIRST_IN_NAMES - 1, SCHEMA_VERSION)]


@contextmanager
def os_errors_as_unavailable() -> Iterator[None]:
    """Raise ReadModelUnavailable in place of OSError."""
    try:
        yield
    except OSError as error:
        raise ReadModelUnavailable(f"{error.filename}: {error.strerror}") from error


def open_private(path: str, flags: int) -> int:
    """Open a file, as `open` does with its argument `opener`; a new one can be read by its owner only."""
    return os.open(path, flags, 0o600)


def _target(link: Path) -> Path | None:
    """Return the file that a link names, None if it is missing, or if `link` is a file that an old version left."""
    try:
        target = link.parent / link.readlink()
    except OSError:
        return None
    return target if target.exists() else None


def _link(link: Path, target: Path) -> None:
    new = Path(f"{link}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target.name)
    new.replace(link)


def _sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

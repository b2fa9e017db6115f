"""A disk that loses power: what is left of a folder after it, worked out from a journal of what was done in it.

A write is certain to be left when its file was synced afterwards, and the name of a file when its folder was. Of the
rest, anything may be left: any sector of a write, and any change of a name without those before it.
"""

from __future__ import annotations

import random
import subprocess
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

HERE = Path(__file__).parent
SECTOR = 512


class Write(NamedTuple):
    at: int
    data: bytes

    def apply(self, content: bytearray) -> None:
        content.extend(bytes(max(0, self.at + len(self.data) - len(content))))
        content[self.at : self.at + len(self.data)] = self.data

    def pieces(self) -> list[Change]:
        """Return the write sector by sector."""
        pieces: list[Change] = []
        at, end = self.at, self.at + len(self.data)
        while at < end:
            after = min(end, at - at % SECTOR + SECTOR)
            pieces.append(Write(at, self.data[at - self.at : after - self.at]))
            at = after
        return pieces


class Truncation(NamedTuple):
    size: int

    def apply(self, content: bytearray) -> None:
        content.extend(bytes(max(0, self.size - len(content))))
        del content[self.size :]

    def pieces(self) -> list[Change]:
        return [self]


class Naming(NamedTuple):
    """A change of a folder: these names are removed, and this one is given to a file, or to the target of a link."""

    removed: tuple[str, ...]
    name: str | None = None
    node: Any = None

    def apply(self, names: dict[str, Any]) -> None:
        for name in self.removed:
            names.pop(name, None)
        if self.name is not None:
            names[self.name] = self.node

    def pieces(self) -> list[Change]:
        return [self]


Change: TypeAlias = "Write | Truncation | Naming"


@dataclass(eq=False)
class Durable:
    """A file's content, or a folder's names: what is certain to be on the disk, and the changes since."""

    state: Any
    unsynced: deque[Change] = field(default_factory=deque)
    changes: int = 0
    syncing: dict[str, int] = field(default_factory=dict)

    def change(self, change: Change) -> None:
        self.unsynced.append(change)
        self.changes += 1

    def sync(self, thread: str) -> None:
        self.syncing[thread] = self.changes

    def synced(self, thread: str) -> None:
        begun_with = self.syncing.pop(thread)
        while self.unsynced and self.changes - len(self.unsynced) < begun_with:
            self.unsynced.popleft().apply(self.state)

    def left(self, rng: random.Random, share: float) -> Any:
        """Return what is left of it if this share of its unsynced changes is."""
        left = self.state.copy()
        for change in self.unsynced:
            for piece in change.pieces():
                if rng.random() < share:
                    piece.apply(left)
        return left


class Journal:
    """A journal of what processes with its settings do in a folder, which has no folders in it."""

    def __init__(self, folder: Path, path: Path, library: Path) -> None:
        self.path = path
        self.settings = {"LD_PRELOAD": str(library), "JOURNAL": str(path), "JOURNALED": str(folder)}
        files = {file.name: file for file in folder.iterdir()}
        self._files = {
            file.stat().st_ino: Durable(bytearray(file.read_bytes()))
            for file in files.values()
            if not file.is_symlink()
        }
        self._names = {
            name: str(file.readlink()) if file.is_symlink() else self._files[file.stat().st_ino]
            for name, file in files.items()
        }
        self._folder = Durable({**self._names})
        self._inodes = {**self._files, folder.stat().st_ino: self._folder}
        self._read = self._position = 0

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def records(self) -> list[tuple[int, list[str], bytes]]:
        """Return the complete records: where each ends, its words, and the bytes written."""
        content, records, at = self.path.read_bytes(), [], 0
        while (line_end := content.find(b"\n", at)) >= 0:
            words = content[at:line_end].decode().split(" ")
            size = int(words[3]) if words[0] == "write" else 0
            at = line_end + 1 + size
            if at > len(content):
                break
            records.append((at, words, content[line_end + 1 : at]))
        return records

    def lose_power(
        self, records: list[tuple[int, list[str], bytes]], into: Path, rng: random.Random, *, data: float, names: float
    ) -> None:
        """Write into a new folder what is left after these records, with these shares of unsynced data and names."""
        for _, words, written in records:
            self._apply(words, written)
        into.mkdir()
        for name, node in self._folder.left(rng, names).items():
            if isinstance(node, str):
                (into / name).symlink_to(node)
            else:
                (into / name).touch(0o600)
                (into / name).write_bytes(node.left(rng, data))

    def _apply(self, words: list[str], written: bytes) -> None:
        match words:
            case ["write", inode, at, _] if node := self._inodes.get(int(inode)):
                node.change(Write(int(at), written))
            case ["truncate", inode, size] if node := self._inodes.get(int(inode)):
                node.change(Truncation(int(size)))
            case ["sync", inode, thread] if node := self._inodes.get(int(inode)):
                node.sync(thread)
            case ["synced", inode, thread] if node := self._inodes.get(int(inode)):
                node.synced(thread)
            case ["create", inode, name]:
                self._inodes[int(inode)] = Durable(bytearray())
                self._name(Naming((), name, self._inodes[int(inode)]))
            case ["symlink", target, name]:
                self._name(Naming((), name, target))
            case ["rename", old, new]:
                self._name(Naming((old,), new, self._names[old]))
            case ["unlink", name]:
                self._name(Naming((name,)))

    def _name(self, naming: Naming) -> None:
        naming.apply(self._names)
        self._folder.change(naming)


def build_library(folder: Path) -> Path:
    """Compile the library that keeps the journal."""
    library = folder / "journal.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, HERE / "journal.c", "-ldl"], check=True)
    return library

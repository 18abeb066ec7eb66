"""What a simulated disk holds: files and names, as they are now and as they are for certain.

Owns the two images of each and the changes between them that no sync has settled. Must not
decide which of those a crash keeps: `simdisk` draws that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Write(NamedTuple):
    position: int
    data: bytes


class Cut(NamedTuple):
    size: int


class Node:
    """A file's content, apart from its names."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.durable = b""
        self.pending: list[Write | Cut] = []
        self.absent: set[int] = set()  # pages that a read without blocking doesn't find
        self.bad: set[int] = set()  # pages that nobody can read

    def sync(self) -> None:
        self.durable = bytes(self.data)
        self.pending.clear()


class Link(NamedTuple):
    name: str
    node: Node | Folder


class Unlink(NamedTuple):
    name: str


class Rename(NamedTuple):
    source: str
    target: str
    node: Node | Folder


class Folder:
    """A directory's names, now and for certain."""

    def __init__(self) -> None:
        self.names: dict[str, Node | Folder] = {}
        self.durable: dict[str, Node | Folder] = {}
        self.pending: list[Link | Unlink | Rename] = []

    def change(self, operation: Link | Unlink | Rename) -> None:
        apply(self.names, operation)
        self.pending.append(operation)

    def sync(self) -> None:
        self.durable = dict(self.names)
        self.pending.clear()


def apply(names: dict[str, Node | Folder], operation: Link | Unlink | Rename) -> None:
    match operation:
        case Link(name, node):
            names[name] = node
        case Unlink(name):
            names.pop(name, None)
        case Rename(source, target, node):
            if names.get(source) is node:
                del names[source]
            names[target] = node


def redo(image: bytearray, operation: Write | Cut) -> None:
    match operation:
        case Cut(size):
            del image[size:]
            image += bytes(size - len(image))
        case Write(position, data) if data:
            if position > len(image):
                image += bytes(position - len(image))
            image[position : position + len(data)] = data


def folder_of(files: Mapping[str, bytes]) -> Folder:
    """The folder that holds these files, by their paths; everything in it is durable."""
    root = Folder()
    for path, content in files.items():
        at = root
        *above, name = path.removeprefix("/").split("/")
        for part in above:
            below = at.names.setdefault(part, Folder())
            assert isinstance(below, Folder), f"{path}: {part} is a file"
            at = below
        if name:  # a path that ends with a slash is an empty directory
            node = at.names[name] = Node()
            node.data = bytearray(content)
            node.sync()
    _settle(root)
    return root


def _settle(folder: Folder) -> None:
    folder.sync()
    for below in folder.names.values():
        if isinstance(below, Folder):
            _settle(below)


def files_below(folder: Folder, path: str = "") -> dict[str, bytes]:
    """Every file's content by its path: what `folder_of` takes."""
    found: dict[str, bytes] = {}
    for name, below in folder.names.items():
        if isinstance(below, Folder):
            inner = files_below(below, f"{path}/{name}")
            found |= inner or {f"{path}/{name}/": b""}
        else:
            found[f"{path}/{name}"] = bytes(below.data)
    return found


def nodes_below(folder: Folder) -> list[Node]:
    found: list[Node] = []
    for below in folder.names.values():
        found += nodes_below(below) if isinstance(below, Folder) else [below]
    return found

"""The states that a power cut may leave of a simulated disk, one after the other.

Owns the enumeration: which of what no sync has settled is there afterwards. Must not change the
disk; `SimDisk.crash` draws one such state and goes on with it, this lists them.

The model is the one of `simdisk`: without a sync of the file, any of its sectors written since
may be there, and its size may have grown without them; without a sync of the directory, any of its
changes of names. There are too many of those to try all, so first come those where faults hide
(nothing, everything, every prefix, torn at each sector, each change alone left out or alone there,
each file apart from the others), and then as many drawn ones as are asked for.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from ottla.testing.simimage import Cut, Folder, Node, Unlink, Write, apply, redo

SECTOR = 512
_VARIANTS_MAX = 48
"""Contents of one file that are considered at one moment."""


class _Snapshot:
    """What a disk holds at a moment, with the contents that each file may have afterwards."""

    def __init__(self, root: Folder, dice: random.Random) -> None:
        self.root = root
        self.dice = dice
        self.nodes: list[Node] = []
        self.variants: dict[int, list[bytes]] = {}
        self.changes: list[tuple[Folder, int]] = []
        self._seen: set[int] = set()
        self._enter(root)

    def _enter(self, folder: Folder) -> None:
        if id(folder) in self._seen:
            return
        self._seen.add(id(folder))
        self.changes += [(folder, at) for at in range(len(folder.pending))]
        linked = [one.node for one in folder.pending if not isinstance(one, Unlink)]
        for below in [*folder.durable.values(), *folder.names.values(), *linked]:
            if isinstance(below, Folder):
                self._enter(below)
            elif id(below) not in self.variants:
                self.variants[id(below)] = _contents(below, self.dice)
                if len(self.variants[id(below)]) > 1:
                    self.nodes.append(below)

    def state(self, kept: set[tuple[int, int]] | None, chosen: dict[int, int]) -> dict[str, bytes]:
        """The files: `kept` changes of names (None: all), and which content each file has."""
        found: dict[str, bytes] = {}
        self._collect(self.root, "", kept, chosen, found)
        return found

    def _collect(
        self,
        folder: Folder,
        path: str,
        kept: set[tuple[int, int]] | None,
        chosen: dict[int, int],
        found: dict[str, bytes],
    ) -> None:
        names = dict(folder.durable)
        for at, operation in enumerate(folder.pending):
            if kept is None or (id(folder), at) in kept:
                apply(names, operation)
        for name, below in names.items():
            if isinstance(below, Folder):
                before = len(found)
                self._collect(below, f"{path}/{name}", kept, chosen, found)
                if len(found) == before:
                    found[f"{path}/{name}/"] = b""
            else:
                contents = self.variants[id(below)]
                found[f"{path}/{name}"] = contents[chosen.get(id(below), len(contents) - 1)]


def _contents(node: Node, dice: random.Random) -> list[bytes]:
    """What a file may hold afterwards: its durable content first, all that was written last."""
    found: dict[bytes, None] = {node.durable: None}
    image = bytearray(node.durable)
    if node.pending and len(node.data) > len(image):
        found[bytes(image) + bytes(len(node.data) - len(image))] = None  # only its size has arrived
    for operation in node.pending:
        for torn in _torn(image, operation):
            found[torn] = None
        redo(image, operation)
        found[bytes(image)] = None
        if len(node.data) > len(image):
            found[bytes(image) + bytes(len(node.data) - len(image))] = None  # a zero tail
            found[bytes(image) + bytes(dice.randrange(len(node.data) - len(image)))] = None
    for missing in range(len(node.pending) if len(node.pending) > 1 else 0):
        image = bytearray(node.durable)
        for at, operation in enumerate(node.pending):
            if at != missing:
                redo(image, operation)
        found[bytes(image)] = None
    for _ in range(4 if node.pending else 0):
        found[_some_sectors(node, dice)] = None
    last = bytes(node.data)
    found.pop(last, None)
    contents = list(found)
    if len(contents) > _VARIANTS_MAX:
        contents = [contents[0], *dice.sample(contents[1:], _VARIANTS_MAX - 1)]
    return [*contents, last]


def _torn(image: bytearray, operation: Write | Cut) -> Iterator[bytes]:
    if isinstance(operation, Cut):
        return
    first = SECTOR - operation.position % SECTOR
    for length in range(first, len(operation.data), SECTOR):
        torn = bytearray(image)
        redo(torn, Write(operation.position, operation.data[:length]))
        yield bytes(torn)


def _some_sectors(node: Node, dice: random.Random) -> bytes:
    image = bytearray(node.durable)
    share = dice.choice((0.3, 0.6, 0.9))
    for operation in node.pending:
        if isinstance(operation, Cut):
            if dice.random() < share:
                redo(image, operation)
            continue
        at = 0
        while at < len(operation.data):
            length = SECTOR - (operation.position + at) % SECTOR
            if dice.random() < share:
                redo(image, Write(operation.position + at, operation.data[at : at + length]))
            at += length
    return bytes(image)


def crash_states(root: Folder, dice: random.Random, drawn: int) -> Iterator[dict[str, bytes]]:
    """Files by path, as `simimage.folder_of` takes them; `drawn` of them by chance, after all
    those where one thing at a time is as it would not be if all, or nothing, had arrived."""
    moment = _Snapshot(root, dice)
    changes = [(id(folder), at) for folder, at in moment.changes]
    oldest = dict.fromkeys((id(node) for node in moment.nodes), 0)
    yield moment.state(None, {})
    yield moment.state(set(), oldest)
    yield moment.state(None, oldest)
    yield moment.state(set(), {})
    for at in range(len(changes)):
        yield moment.state({*changes[:at], *changes[at + 1 :]}, {})
        yield moment.state({changes[at]}, oldest)
        yield moment.state({*changes[:at]}, {})
    for node in moment.nodes:
        for number in range(len(moment.variants[id(node)])):
            yield moment.state(None, {id(node): number})
            yield moment.state(None, {**oldest, id(node): number})
    if not changes and not moment.nodes:
        return
    for _ in range(drawn):
        share = dice.choice((0.2, 0.5, 0.8, 1.0))
        kept = {change for change in changes if dice.random() < share}
        chosen = {}
        for node in moment.nodes:
            if dice.random() < 0.7:
                chosen[id(node)] = dice.randrange(len(moment.variants[id(node)]))
        yield moment.state(kept, chosen)

"""What an experiment is: one thing done in several ways, measured in turn, and what came of it.

Owns the order of measuring and the reading of its outcome. Must not print, and must not know what
any way does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ottla.bench import stats
from ottla.bench.stats import Spread

Say = Callable[[str], None]

SAME = 1.1
"""Of two ways that are nearer than this neither is said to be better, even if all rounds agree."""


class NotHere(Exception):
    """This machine lacks what a way needs; the text says what."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure that each way gives. The first of an experiment decides what is said of it."""

    name: str
    unit: str
    more_is_better: bool = False
    compared: bool = True
    """Whether a ratio says anything: not of what one way has none of."""

    @property
    def heading(self) -> str:
        return f"{self.name}, {self.unit}"


@dataclass(slots=True)
class Way:
    """One way of doing it. `run` measures once: figures by the names of the measures.

    `counts` is whether it stands for doing without the technique: the ratio is against the first.
    """

    name: str
    run: Callable[[], Mapping[str, float]]
    rounds: list[Mapping[str, float]] = field(default_factory=list)
    absent: str = ""

    def of(self, measure: Measure) -> Spread | None:
        return stats.spread(self.values(measure))

    def values(self, measure: Measure) -> list[float]:
        return [figures[measure.name] for figures in self.rounds if measure.name in figures]


@dataclass(slots=True)
class Experiment:
    """A technique on trial: the first way is with it, the others do the same without."""

    technique: str
    title: str
    how: str
    quoted: str
    measures: Sequence[Measure]
    ways: Sequence[Way]
    ladder: bool = False
    """The ways are steps of one thing (1, 10, 100 … records); the last is with most of it."""
    usual: str = ""
    """The figure that is usually quoted, in a few words, where there is one."""

    @property
    def base(self) -> Way:
        return self.ways[-1] if self.ladder else self.ways[0]

    def measure_all(self, rounds_count: int, say: Say) -> None:
        """Every way in turn, round after round, so that all share what else the machine does.

        A round before them doesn't count: it makes files, opens what is lazy, fills caches.
        """
        for turn in range(rounds_count + 1):
            for way in self.ways:
                if way.absent:
                    continue
                say(f"{self.technique}: {way.name}, {f'round {turn}' if turn else 'warming up'}")
                try:
                    figures = way.run()
                except NotHere as missing:
                    way.absent, way.rounds = str(missing), []
                    continue
                if turn:
                    way.rounds.append(figures)

    def times_better(self, way: Way, measure: Measure) -> Spread | None:
        """How many times better the technique is than `way`, round by round; under 1: worse."""
        ours, theirs = self.base.values(measure), way.values(measure)
        if way is self.base or not measure.compared or not ours or not theirs:
            return None
        pairs = (ours, theirs) if measure.more_is_better else (theirs, ours)
        return stats.spread(stats.ratios(*pairs))

    def verdict(self) -> str:
        """One sentence, with a part for each way, by the first measure.

        Better and worse is said where every round says so, and the middle one clearly.
        """
        measure, said = self.measures[0], []
        for way in self.ways:
            found = self.times_better(way, measure)
            if found is None:
                continue
            if found.least > 1 and found.median >= SAME:
                word = f"{stats.number(found.median)} times better than {way.name}"
            elif found.most < 1 and found.median <= 1 / SAME:
                word = f"{stats.number(1 / found.median)} times WORSE than {way.name}"
            else:
                word = f"no difference to {way.name} shown"
            said.append(word)
        if not said:
            return "nothing to compare with was measured here"
        return f"{self.base.name}: {'; '.join(said)} ({measure.heading})"

    def as_json(self) -> dict[str, Any]:
        return {
            "technique": self.technique,
            "experiment": self.title,
            "how": self.how,
            "quoted": self.quoted,
            "usual": self.usual,
            "verdict": self.verdict(),
            "ways": [self._way_json(way) for way in self.ways],
        }

    def _way_json(self, way: Way) -> dict[str, Any]:
        if way.absent:
            return {"way": way.name, "absent": way.absent}
        found: dict[str, Any] = {"way": way.name, "rounds": len(way.rounds)}
        for measure in self.measures:
            spread, ratio = way.of(measure), self.times_better(way, measure)
            found[measure.heading] = None if spread is None else spread.as_json()
            found[f"{measure.name}, times better"] = None if ratio is None else ratio.as_json()
        return found

"""Rules taken out of the code from outside, and the tests that must then fail.

Owns how: a module's source is changed as it is imported, in a process of its own; the code knows
nothing of it and no file is written. Lists of mutants are in the test files.

`OTTLA_MUTANT="name of the rule" .venv/bin/pytest tests/mutation` tries that one alone.
OTTLA_SOAK=1 tries them all; otherwise a sample whose seed is printed.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
TRIED_IN_CI = 4
_TIMEOUT_S = 240


class Mutant(NamedTuple):
    """A rule and how it is taken out: `text` of the module, there once, becomes `instead`."""

    rule: str
    module: str
    text: str
    instead: str
    tests: Sequence[str]
    """Arguments for pytest: what must fail then."""

    def source(self) -> str:
        """The changed source. Fails if the rule is no longer written like that."""
        found = _path(self.module).read_text()
        count = found.count(self.text)
        assert count == 1, f"{self.rule}: its text is {count} times in {self.module}, not once"
        return found.replace(self.text, self.instead)


def _path(module: str) -> Path:
    return ROOT / "src" / Path(*module.split(".")).with_suffix(".py")


def chosen(mutants: Sequence[Mutant]) -> list[Mutant]:
    """The one that is asked for, all in a soak, else a sample by a seed that is printed."""
    only = os.environ.get("OTTLA_MUTANT")
    if only is not None:
        return [one for one in mutants if one.rule == only]
    if os.environ.get("OTTLA_SOAK") == "1":
        return list(mutants)
    seed = int(os.environ.get("OTTLA_SEED", random.SystemRandom().randrange(1 << 30)))
    print(f"\nOTTLA_SEED={seed} chooses these {TRIED_IN_CI} of {len(mutants)} mutants again")
    return random.Random(seed).sample(list(mutants), TRIED_IN_CI)


def survives(mutant: Mutant) -> str | None:
    """Run its tests without the rule; None if they fail, as they must, else what they said."""
    mutant.source()  # before a process is started for nothing
    command = [sys.executable, "-c", _RUN, repr(tuple(mutant)), *mutant.tests]
    environment = {k: v for k, v in os.environ.items() if k not in ("OTTLA_SOAK", "OTTLA_SEED")}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    # 1: tests failed. 2 and more: pytest itself could not, which proves nothing, unless the
    # changed module can't even be imported.
    if done.returncode == 1:
        return None
    return f"pytest ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


_RUN = """
import sys
from tests.mutation.mutants import Mutant, take_out
import pytest
take_out(Mutant(*eval(sys.argv[1])))
quiet = ["-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
sys.exit(pytest.main(["-x", "-q", *quiet, *sys.argv[2:]]))
"""


class _Loader(SourceFileLoader):
    def __init__(self, mutant: Mutant) -> None:
        super().__init__(mutant.module, str(_path(mutant.module)))
        self._source = mutant.source()

    def get_code(self, fullname: str) -> object:
        return compile(self._source, self.path, "exec")


class _Finder(MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != self.mutant.module:
            return None
        return importlib.util.spec_from_loader(name, _Loader(self.mutant))


def take_out(mutant: Mutant) -> None:
    """From here on the module is imported without the rule."""
    assert mutant.module not in sys.modules, f"{mutant.module} is imported already"
    sys.meta_path.insert(0, _Finder(mutant))
    # Now: pytest would put its own finder in front of this one, since ottla brings a plugin.
    importlib.import_module(mutant.module)

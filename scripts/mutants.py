"""Change projector/domain in every small way, and report the changes that no test notices: `python -m scripts.mutants`.

The mutants are those of cosmic-ray and of the operators below. Annotations of functions are left to mypy. A survivor
needs a new test or, if no behaviour differs, an entry in `scripts/mutants.toml` with the reason. Exits with 1 if a
survivor has neither, or if an entry matches no survivor.
"""

from __future__ import annotations

import argparse
import ast
import os
import queue
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from copy import deepcopy
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

if TYPE_CHECKING:
    from collections.abc import Iterator

DOMAIN = Path("projector/domain")
EXPLAINED = Path("scripts/mutants.toml")
NEED_ARGUMENTS = ("core/VariableReplacer", "core/VariableInserter")
REDACTION = "tests/domain/test_redaction.py"
FOLDS = ("tests/domain", "--ignore", REDACTION)
TESTS = {"redaction": (REDACTION,), "events": ("tests/domain",)}
CONTEXT, MAX_LINE = 50, 120
TIMEOUT_S = 300
MEMORY_BYTES = 4 << 30
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "-p", "_hypothesis_pytestplugin", "-p", "pytest_timeout")


class Mutant(NamedTuple):
    """A changed module, and its change with a little context, on one line each."""

    module: str
    before: str
    after: str
    source: str

    def __str__(self) -> str:
        return f"{self.module}\n  - {self.before}\n  + {self.after}"


def normal(tree: ast.AST) -> str:
    """Return the source without comments, layout, docstrings and annotations of functions."""
    tree = deepcopy(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
            for part in ast.walk(node):
                if isinstance(part, ast.AnnAssign):
                    part.annotation = ast.Constant(...)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [part for part in node.body if not is_docstring(part)] or [ast.Pass()]
    return ast.unparse(tree)


def is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def variants(node: ast.AST) -> Iterator[ast.AST]:
    """Yield changes of a node that cosmic-ray does not make."""
    match node:
        case ast.Name(id="max" | "min"):
            yield ast.Name({"max": "min", "min": "max"}[node.id])
        case ast.Constant(value=str(text)):
            yield ast.Constant(f"{text}~")
        case ast.Call():
            for keyword in node.keywords:
                yield ast.Call(node.func, node.args, [other for other in node.keywords if other is not keyword])
        case ast.comprehension(ifs=[_, *_]):
            yield ast.comprehension(node.target, node.iter, [], node.is_async)
        case ast.Match():
            for case in node.cases[:-1]:
                yield ast.Match(node.subject, [other for other in node.cases if other is not case])
        case ast.IfExp():
            yield node.body
            yield node.orelse


class Replacing(ast.NodeTransformer):
    """Replaces one node of a tree by another."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else self.generic_visit(node)


def mutated(source: str) -> Iterator[str]:
    """Yield the normal source of every mutant of a module, some more than once, and of mutants that change nothing."""
    for name in operator_names():
        if name in NEED_ARGUMENTS:
            continue
        for occurrence in count():
            changed = mutate_code(source, get_operator(name)(), occurrence)
            if changed is None:
                break
            with suppress(SyntaxError):
                yield normal(ast.parse(changed))
    tree = ast.parse(normal(ast.parse(source)))
    for place, node in enumerate(ast.walk(tree)):
        for choice, _ in enumerate(variants(node)):
            copy = deepcopy(tree)
            old = list(ast.walk(copy))[place]
            yield ast.unparse(Replacing(old, list(variants(old))[choice]).visit(copy))


def mutants_of(path: Path) -> list[Mutant]:
    source = path.read_text()
    original = normal(ast.parse(source))
    variants = [source for source in dict.fromkeys(mutated(source)) if source != original]
    return [Mutant(path.stem, *difference(original, variant), variant) for variant in variants]


def common_start(one: str, other: str) -> int:
    shorter = min(len(one), len(other))
    return next((place for place in range(shorter) if one[place] != other[place]), shorter)


def difference(before: str, after: str) -> tuple[str, str]:
    """Return the parts in which two sources differ, with the words around."""
    start = common_start(before, after)
    end = common_start(before[start:][::-1], after[start:][::-1])
    end = len(before) - end
    line_start, line_end = before.rfind("\n", 0, start) + 1, before.find("\n", end) % (len(before) + 1)
    if line_end - line_start > MAX_LINE:
        line_start, line_end = max(line_start, start - CONTEXT), min(line_end, end + CONTEXT)
    return tuple(" ".join(text[line_start : len(text) - len(before) + line_end].split()) for text in (before, after))


class Trial:
    """A copy of the project in which one mutant at a time is tested."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("projector", "tests", "docs"):
            shutil.copytree(name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy("pyproject.toml", folder)

    def survives(self, mutant: Mutant) -> bool:
        path = self.folder / DOMAIN / f"{mutant.module}.py"
        original = path.read_text()
        path.write_text(mutant.source)
        try:
            return self.passes(mutant.module)
        except subprocess.TimeoutExpired:
            print(f"Killed, as the tests took more than {TIMEOUT_S} s:", mutant, sep="\n", flush=True)
            return False
        finally:
            path.write_text(original)

    def passes(self, module: str) -> bool:
        shutil.rmtree(self.folder / DOMAIN / "__pycache__", ignore_errors=True)
        command = [
            sys.executable,
            "-m",
            "pytest",
            *OPTIONS,
            "--hypothesis-profile",
            "mutants",
            *TESTS.get(module, FOLDS),
        ]
        return not subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT_S,
            check=False,
        ).returncode


def survivors(mutants: list[Mutant], jobs: int) -> list[Mutant]:
    trials: queue.SimpleQueue[Trial] = queue.SimpleQueue()

    def survives(mutant: Mutant) -> bool:
        trial = trials.get()
        try:
            return trial.survives(mutant)
        finally:
            trials.put(trial)

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as workers:
        for job in range(jobs):
            trial = Trial(Path(folder, str(job)))
            if not trial.passes("folds"):
                sys.exit("the tests fail without any mutant")
            trials.put(trial)
        outcomes = []
        for done, alive in enumerate(workers.map(survives, mutants), start=1):
            outcomes.append(alive)
            if alive:
                print(mutants[done - 1], flush=True)
            if done % 100 == 0:
                print(f"{done} of {len(mutants)} mutants tested", file=sys.stderr, flush=True)
    return [mutant for mutant, alive in zip(mutants, outcomes, strict=True) if alive]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    modules = sorted(path.stem for path in DOMAIN.glob("[!_]*.py"))
    parser.add_argument("modules", nargs="*", default=modules, metavar="module", help="default: " + ", ".join(modules))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    chosen = parser.parse_args()
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    began = time.monotonic()
    mutants = [mutant for module in chosen.modules for mutant in mutants_of(DOMAIN / f"{module}.py")]
    alive = Counter(map(str, survivors(mutants, chosen.jobs)))
    equivalent = Counter(entry for entry in explained() if entry.partition("\n")[0] in chosen.modules)
    unexplained, obsolete = alive - equivalent, equivalent - alive
    for heading, found in (("Survived:", unexplained), ("Explained, but not among the survivors:", obsolete)):
        if found:
            print(heading, *found.elements(), sep="\n")
    seconds = time.monotonic() - began
    print(
        f"{len(mutants)} mutants in {seconds:,.0f} s: {len(mutants) - alive.total()} killed, "
        f"{alive.total() - unexplained.total()} equivalent, {unexplained.total()} survived"
    )
    return 1 if unexplained or obsolete else 0


def explained() -> list[str]:
    """Return the equivalent mutants, as they are printed."""
    with EXPLAINED.open("rb") as file:
        reasons = tomllib.load(file)["equivalent"]
    return [mutant.strip() for reason in reasons for mutant in reason["mutants"]]


if __name__ == "__main__":
    sys.exit(main())

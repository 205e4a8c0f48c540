"""Rooms stay small: lines, functions, modules, listed names; ruff and mypy have nothing to say.

The lists of exceptions may only shrink.
"""

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(path for path in (ROOT / "cka_nb").glob("*.py") if path.stem[:1] != "_")
# their signatures have a comment for each option; the parser is one list of options
LONG_FUNCTIONS = {"options.parser", "teaching.train_teacher", "training.amalgamate"}
LONG_MODULES = {"benchmark": 420}
# templates of a page and of a model card
TEXT = ("{%", "{{", "* {{", "An image classifier made by", "Its probabilities are calibrated")


def lines(path):
    """The lines that a person has written: not the module's docstring, nor the list of names."""
    text = path.read_text(encoding="utf-8").splitlines()
    begin = next(k for k, line in enumerate(text) if line.startswith("# %% ../nbs"))
    return text[begin:]


def functions():
    """{module.name: lines} of all functions and methods, with their decorators."""
    found = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                key = f"{path.stem}.{node.name}"
                found[key] = max(found.get(key, 0), node.end_lineno - first + 1)
    return found


def test_functions_fit_a_screen():
    sizes = functions()
    assert {name for name, size in sizes.items() if size > 40} == LONG_FUNCTIONS
    assert statistics.median(sizes.values()) <= 8


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_module_has_one_subject(path):
    count = len(path.read_text(encoding="utf-8").splitlines())
    assert count <= LONG_MODULES.get(path.stem, 320)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_lines_fit_the_page(path):
    long = [line for line in lines(path) if len(line) > 100 and not line.strip().startswith(TEXT)]
    assert not long, "\n".join(long)


def test_only_names_that_somebody_uses_are_listed():
    listed = 0
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        listed += sum(len(ast.literal_eval(node.value)) for node in tree.body
                      if isinstance(node, ast.Assign)
                      and getattr(node.targets[0], "id", "") == "__all__")
    assert listed <= 126, f"{listed} names: cells that only the package uses say `#| exporti`"


def test_ruff_finds_nothing():
    run = subprocess.run([sys.executable, "-m", "ruff", "check", "cka_nb", "tests", "tools",
                          "studies"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_types_of_losses_loop_and_runs_agree():
    run = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr

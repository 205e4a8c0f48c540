"""Run a chapter's cells on a simulated card, one statement at a time: `chapter_on_card.py NB`.

Few epochs are trained, so what a chapter claims of its numbers need not hold: a failed `assert` is
passed over. Any other error ends the program with the cell that raised it.
"""

import ast
import inspect
import re
import sys
import traceback
import types
from pathlib import Path

import matplotlib
from card import simulated_card
from fastcore.nbio import read_nb
from IPython.core.inputtransformer2 import TransformerManager

import cka_nb as cka

MOST = 2  # epochs


def fewer_epochs(source):
    """The same code with at most two epochs, and one seed in the demo."""
    source = re.sub(r"\bepochs=(\d+)", lambda m: f"epochs={min(MOST, int(m[1]))}", source)
    source = re.sub(r"\bepochs: (int(?:\|None)?)=(\d+)", rf"epochs: \1={MOST}", source)
    return re.sub(r"\bseeds=(\d+)", "seeds=1", source)


def train_briefly():
    """The package's own defaults, cut to two epochs."""
    for function in (cka.amalgamate, cka.train_teacher):
        own = inspect.signature(function).parameters
        named = {k: p.default for k, p in own.items() if p.default is not p.empty}
        named["epochs"] = MOST
        function.__defaults__ = tuple(
            named[k] for k, p in own.items() if k in named and p.kind is not p.KEYWORD_ONLY)
        function.__kwdefaults__ = {k: named[k] for k, p in own.items() if p.kind is p.KEYWORD_ONLY}
    from cka_nb.settings import SETTINGS
    for setting in SETTINGS.values():
        object.__setattr__(setting, "epochs", MOST)  # it is frozen


def statements(path):
    """(cell, statement) of every code cell that runs without a flag, apart from Colab's."""
    for k, cell in enumerate(read_nb(path).cells):
        if cell.cell_type != "code" or "/content" in cell.source:
            continue
        flags = set(re.findall(r"^#\| (\w+)$", cell.source, re.M))
        if flags & {"cuda", "multigpu", "slow", "data"}:
            continue
        source = fewer_epochs(TransformerManager().transform_cell(cell.source))
        for node in ast.parse(source).body:
            yield k, ast.fix_missing_locations(ast.Module([node], []))


def main(path):
    """Run the chapter; the number of statements, and of asserts that did not hold."""
    matplotlib.use("Agg")
    train_briefly()
    module, failed, count = types.ModuleType("__main__"), 0, 0
    module.display = print
    sys.modules["__main__"] = module  # where pickle looks for what a chapter defines
    with simulated_card() as card:
        for k, statement in statements(path):
            count += 1
            try:
                exec(compile(statement, f"cell {k}", "exec"), module.__dict__)
            except AssertionError as error:
                at = [f for f in traceback.extract_tb(error.__traceback__)
                      if f.filename[:5] == "cell "]
                source = ast.unparse(statement).splitlines()
                print(f"does not hold: cell {k}, line {at[-1].lineno} of {len(source)}: "
                      f"{source[0][:60]} ... {str(error)[:60]}")
                failed += 1
            except BaseException:
                print(f"{path.name}, cell {k}")
                traceback.print_exc()
                return 1
    print(f"{path.name}: {count} statements, {failed} asserts that two epochs do not reach, "
          f"{card.calls.total()} operations on the card")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

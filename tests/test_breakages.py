"""The chapters' code broken on purpose: a check of the chapter must notice each breakage.

breakages.txt lists them: a line names the chapter, the next ones `kind: what is broken`, and below
each one `text that stands once in exported cells ==> new text`. With `--flags slow` every breakage
is made in a copy of the notebook, which then has to fail; `-k 18_soft_targets-03` runs one.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
from forked import forked, run_notebook

ROOT = Path(__file__).resolve().parent.parent


def breakages():
    """breakages.txt as {chapter: [(kind, what is broken, [(old, new)])]}."""
    chapters, entries = {}, []
    for line in (Path(__file__).parent / "breakages.txt").read_text("utf-8").splitlines():
        if line.startswith("    "):
            entries[-1][2].append(line.strip().replace("\\n", "\n").split(" ==> "))
        elif line.startswith("  "):
            entries.append((*line.strip().split(": ", 1), []))
        else:
            entries = chapters.setdefault(line, [])
    return chapters


BREAKAGES = breakages()


def broken(chapter, changes):
    """The chapter as JSON with these changes; ValueError unless each text is found exactly once."""
    notebook = json.loads((ROOT / "nbs" / f"{chapter}.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    exported = [c for c in notebook["cells"] if c["source"].startswith("#| export")]
    for old, new in changes:
        count = sum(c["source"].count(old) for c in exported)
        if count != 1:
            raise ValueError(f"{chapter}: {old!r} stands {count} times in the exported cells")
        for cell in exported:
            cell["source"] = cell["source"].replace(old, new)
    return json.dumps(notebook)


def failure(chapter, text, folder):
    """Run this notebook in the folder: its error and the statement, or None."""
    shutil.copy(ROOT / "pyproject.toml", folder)
    path = folder / f"{chapter}.ipynb"
    path.write_text(text, encoding="utf-8")
    status, said = forked(run_notebook, path, "", log=folder / "log.txt")
    if status == 0 and "Success." in said.splitlines():
        return None
    error = re.search(r"^(\w+) in .*\.ipynb:", said, re.M)
    line = re.search(r'^  File "<ipython-input.*\n(.*)', said, re.M)
    if not error or not line or error[1] in ("SyntaxError", "NameError", "ImportError"):
        raise RuntimeError(f"{chapter}: the breakage itself does not run\n{said}")
    return f"{error[1]}: {line[1].split('  # ')[0].strip()}"


@pytest.mark.parametrize("chapter", BREAKAGES)
def test_what_is_broken_on_purpose_stands_in_the_chapter_once(chapter):
    for _, _, changes in BREAKAGES[chapter]:
        assert changes
        broken(chapter, changes)  # raises where a text is gone


@pytest.mark.slow
@pytest.mark.parametrize("chapter, kind, what, changes", [
    pytest.param(chapter, *entry, id=f"{chapter}-{number:02}")
    for chapter, entries in BREAKAGES.items() for number, entry in enumerate(entries, 1)])
def test_a_check_of_the_chapter_notices(chapter, kind, what, changes, tmp_path):
    caught = failure(chapter, broken(chapter, changes), tmp_path)
    assert caught, f"no check of {chapter} notices: {what} ({kind})"
    print(f"| {chapter} | {kind} | {what} | `{caught}` |")

"""Every notebook runs from top to bottom in its own process, and says what its stored copy says."""

import json
import shutil
from pathlib import Path

import pytest
from fastcore.nbio import read_nb
from forked import forked, run_notebook
from nbdev.process import nb_lang
from stored import differences

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_agrees_with_its_stored_outputs(path, request, tmp_path):
    # nbdev counts both of these as passed, without running a single cell
    assert "skip_exec" not in path.read_text(encoding="utf-8"), "would pass without running"
    assert nb_lang(read_nb(path)) == "python", "would pass without running"
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    copy = Path(shutil.copy(path, tmp_path))
    flags, log = request.config.getoption("flags"), tmp_path / "log.txt"
    status, said = forked(run_notebook, copy, flags, log=log)
    if status or "Success." not in said.splitlines():
        tail = "\n".join(said.splitlines()[-60:])
        pytest.fail(f"{path.name} failed (exit status {status})\n{tail}", pytrace=False)
    stored, new = (json.loads(p.read_text(encoding="utf-8")) for p in (path, copy))
    changed = differences(stored, new)
    assert not changed, "\n".join([f"{path.name}: run `make notebooks`", *changed])

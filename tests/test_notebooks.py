"""Every notebook runs from top to bottom in its own process, and says what its stored copy says."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fastcore.nbio import read_nb
from nbdev.process import nb_lang
from stored import differences

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
RUNNER = Path(sys.executable).with_name("nbdev-test")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_agrees_with_its_stored_outputs(path, request, tmp_path):
    # nbdev counts both of these as passed, without running a single cell
    assert "skip_exec" not in path.read_text(encoding="utf-8"), "would pass without running"
    assert nb_lang(read_nb(path)) == "python", "would pass without running"
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    copy = Path(shutil.copy(path, tmp_path))
    command = [RUNNER, copy, "--save", "--flags", request.config.getoption("flags")]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    if run.returncode or "Success." not in run.stdout.splitlines():
        tail = "\n".join((run.stdout + run.stderr).splitlines()[-60:])
        pytest.fail(f"{path.name} failed (exit status {run.returncode})\n{tail}", pytrace=False)
    stored, new = (json.loads(p.read_text(encoding="utf-8")) for p in (path, copy))
    changed = differences(stored, new)
    assert not changed, "\n".join([f"{path.name}: run `make notebooks`", *changed])

"""Every notebook runs from top to bottom, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest
from fastcore.nbio import read_nb
from nbdev.process import nb_lang

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
RUNNER = Path(sys.executable).with_name("nbdev-test")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, request):
    # nbdev counts both of these as passed, without running a single cell
    assert "skip_exec" not in path.read_text(encoding="utf-8"), "would pass without running"
    assert nb_lang(read_nb(path)) == "python", "would pass without running"
    command = [RUNNER, path, "--flags", request.config.getoption("flags")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if run.returncode or "Success." not in run.stdout.splitlines():
        tail = "\n".join((run.stdout + run.stderr).splitlines()[-60:])
        pytest.fail(f"{path.name} failed (exit status {run.returncode})\n{tail}", pytrace=False)

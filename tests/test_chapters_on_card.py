"""Every chapter on a simulated card, few epochs: no cell mixes devices.

One chapter always, so that the program itself is run; the others are slow: `--flags slow`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from card import skip_reason
from conftest import ROOT

CHAPTERS = sorted((ROOT / "nbs").glob("*.ipynb"))
pytestmark = pytest.mark.skipif(bool(skip_reason()), reason=str(skip_reason()))


@pytest.mark.parametrize("path", [
    pytest.param(path, id=path.stem, marks=[] if path.stem == "38_loop" else pytest.mark.slow)
    for path in CHAPTERS])
def test_chapter_runs_on_the_card(path, tmp_path):
    command = [sys.executable, Path(__file__).with_name("chapter_on_card.py"), path]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1800,
                         env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert run.returncode == 0, "\n".join((run.stdout + run.stderr).splitlines()[-30:])
    print(run.stdout.splitlines()[-1])

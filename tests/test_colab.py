"""Chapters as a visitor of Colab runs them: the oldest versions, the installed wheel, no checkout.

Neither nbdev nor the tests' own needs are there; the kernel starts in an empty folder.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient
from stored import differences

pytestmark = pytest.mark.xdist_group("wheel")
PYTHON = ROOT / ".venv-colab" / "bin" / "python"
CHAPTERS = sorted((ROOT / "nbs").glob("*.ipynb"))
INSTALL = re.compile(r'^#\| hide\n.*^ +%pip install -q (cka_nb|"cka_nb\[[a-z,]+\]")$', re.S | re.M)


@pytest.fixture(scope="module")
def kernel(site, tmp_path_factory):
    """The name of a kernel that starts where the wheel is installed beside the oldest versions."""
    top = tmp_path_factory.mktemp("jupyter")
    (top / "kernels" / "colab").mkdir(parents=True)
    launch = [str(PYTHON), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": launch, "display_name": "Colab", "language": "python",
            "env": {"PYTHONPATH": str(site),
                    "MPLBACKEND": "module://matplotlib_inline.backend_inline"}}
    (top / "kernels" / "colab" / "kernel.json").write_text(json.dumps(spec))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(top))
        yield "colab"


def test_installing_there_replaces_nothing(wheel):
    command = [PYTHON, "-m", "pip", "install", "--dry-run", "--no-index", wheel]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    (line,) = re.findall(r"^Would install (.*)$", run.stdout, re.M)
    assert re.fullmatch(r"cka[-_]nb-\S+", line), line


def test_nbdev_is_not_there():
    assert subprocess.run([PYTHON, "-c", "import nbdev"], capture_output=True).returncode == 1


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter(path, kernel, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=600, kernel_name=kernel,
                            resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    changed = differences(json.loads(path.read_text(encoding="utf-8")), notebook)
    assert not changed, "\n".join(changed)
    left = {name for name in os.listdir(tmp_path)}
    assert not left, f"the chapter leaves {left} behind"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_first_cell_installs_on_colab_alone(path, monkeypatch):
    sources = [cell.source for cell in nbformat.read(path, as_version=4).cells
               if cell.cell_type == "code"]
    assert not re.search(r"^\s*[%!] *(pip|conda|uv)", "\n".join(sources[1:]), re.M)
    uses = any(re.search(r"\bcka_nb\b", source) for source in sources[1:])
    assert bool(INSTALL.match(sources[0])) == uses, "needs the package and does not install it"
    if not uses:
        return
    code = re.sub("%pip install -q .*", "installed.append('cka_nb')", sources[0])
    for on_colab, there, expected in ((True, False, ["cka_nb"]), (True, True, []),
                                      (False, False, []), (False, True, [])):
        installed = []
        monkeypatch.setattr("os.path.isdir", lambda name: on_colab and name == "/content")
        monkeypatch.setattr("importlib.util.find_spec", lambda name: there or None)
        exec(code, {"installed": installed})
        assert installed == expected


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_says_its_time_and_asks_for_a_gpu_if_it_uses_one(path):
    notebook = nbformat.read(path, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells)
    assert path.stem == "index" or re.search(r"\bin (about|a few|under) [\w ]+ on a CPU", text)
    uses = bool(re.search(r"^#\| cuda$", text, re.M))
    assert uses == (notebook.metadata.get("accelerator") == "GPU")

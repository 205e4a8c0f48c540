"""Chapters as a visitor of Colab runs them: the oldest versions, the installed wheel, no checkout.

Neither nbdev nor the tests' own needs are there; the kernel starts in an empty folder.
"""

import json
import os
import re
import shlex
import subprocess

import nbformat
import pytest
from colab import EXTRAS, first_cell, settings
from conftest import ROOT
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient
from packaging.requirements import Requirement
from stored import differences

PYTHON = ROOT / ".venv-colab" / "bin" / "python"
CHAPTERS = sorted((ROOT / "nbs").glob("*.ipynb"))
# what old versions do otherwise shows here first; the others too with `--flags slow`
FIRST = {"00_tour", "13_networks", "14_saving", "16_teachers", "49_deployment"}
PACKAGE = settings()["package"]
ADDRESS = "https://example.org/cka_nb.git"  # nobody's: the domain is reserved
# what trains on a GPU if there is one; the functions of chapter 50 are told to take the CPU there
TRAINS = re.compile(r"(?<!def )\b(train_teacher|amalgamate|run_seed|make_teachers|demo)\("
                    r"|'train-teacher --")
ELSEWHERE = re.compile(r"^#\| *(export|exports|exporti|cuda|multigpu|data)$", re.M)
TIME = r"\bin (?:about|a few|under) [\w ]+ on a CPU"
ON_A_GPU = rf"{TIME}; on a GPU: (?:not measured yet|in (?:about|a few|under) [\w ]+)\."


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


def test_chapters_that_come_first_are_there():
    assert {path.stem for path in CHAPTERS} >= FIRST


def test_nbdev_is_not_there():
    assert subprocess.run([PYTHON, "-c", "import nbdev"], capture_output=True).returncode == 1


@pytest.mark.parametrize("path", [
    pytest.param(path, id=path.stem, marks=[] if path.stem in FIRST else pytest.mark.slow)
    for path in CHAPTERS])
def test_chapter(path, kernel, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=600, kernel_name=kernel,
                            resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    changed = differences(json.loads(path.read_text(encoding="utf-8")), notebook)
    assert not changed, "\n".join(changed)
    left = {name for name in os.listdir(tmp_path)}
    assert not left, f"the chapter leaves {left} behind"


def code_of(path):
    notebook = nbformat.read(path, as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_first_cell_is_what_the_settings_say(path):
    first, *others = code_of(path)
    assert not re.search(r"^\s*[%!] *(pip|conda|uv)", "\n".join(others), re.M)
    uses = any(re.search(r"\bcka_nb\b", source) for source in others)
    assert (first == first_cell(PACKAGE, EXTRAS.get(path.stem, ""))) == uses, "`make export`"


@pytest.mark.parametrize("extras", sorted({"", *EXTRAS.values()}))
@pytest.mark.parametrize("address", ["", ADDRESS], ids=["no address", "address"])
def test_first_cell_installs_the_version_or_stops_and_on_colab_alone(address, extras, monkeypatch):
    cell = first_cell({**PACKAGE, "repository": address}, extras)
    assert cell.startswith("#| hide\n")
    installed = []

    class Shell:  # what a notebook calls for a line of magic
        def run_line_magic(self, name, line):
            installed.append((name, *shlex.split(line)))

    def run(on_colab, there):
        monkeypatch.setattr("os.path.isdir", lambda name: on_colab and name == "/content")
        monkeypatch.setattr("importlib.util.find_spec",
                            lambda name: there if name == "cka_nb" else None)
        exec(TransformerManager().transform_cell(cell), {"get_ipython": Shell})

    for on_colab, there in ((True, True), (False, None), (False, True)):
        run(on_colab, there)
        assert not installed
    if not address:
        with pytest.raises(ModuleNotFoundError, match="no public address yet") as stopped:
            run(True, None)
        wheel = f"cka_nb-{PACKAGE['version']}-py3-none-any.whl" + (f"[{extras}]" if extras else "")
        assert f'`%pip install "/content/{wheel}"`' in str(stopped.value) and not installed
        return
    run(True, None)
    ((*command, what),) = installed
    requirement = Requirement(what)
    assert command == ["pip", "install", "-q"] and requirement.name == PACKAGE["name"]
    assert requirement.url == f"git+{ADDRESS}@v{PACKAGE['version']}"
    assert requirement.extras == {name for name in extras.split(",") if name}
    assert requirement.extras <= settings()["extras"].keys()


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_says_its_time_and_asks_for_a_gpu_if_it_uses_one(path):
    if path.stem == "index":  # the front page trains for seconds, and is no chapter
        return
    notebook = nbformat.read(path, as_version=4)
    opening, code = notebook.cells[0].source, code_of(path)
    trains = any(TRAINS.search(cell) and not ELSEWHERE.search(cell) for cell in code)
    uses = trains or bool(re.search(r"^#\| cuda$", "\n".join(code), re.M))
    asks = notebook.metadata.get("accelerator") == "GPU"
    assert asks == uses, "trains, or has cells for a GPU: \"accelerator\": \"GPU\"; others do not"
    assert re.search(TIME, opening), "how long does it run?"
    assert bool(re.search(ON_A_GPU, opening)) == uses, "how long on a GPU?"

"""The wheel built from the source archive works on its own, away from the checkout."""

import os
from configparser import ConfigParser

import pytest
from conftest import ROOT, python

IN_A_WORKER = "PYTEST_XDIST_WORKER" in os.environ
LIGHT = """
import sys, cka_nb, torch
heavy = {"IPython", "matplotlib", "nbdev", "scipy", "sklearn", "timm"} & sys.modules.keys()
assert not heavy, f"import cka_nb loads {sorted(heavy)}"
assert not torch.cuda.is_initialized(), "import cka_nb touches CUDA"
"""


@pytest.fixture
def installed(site, tmp_path):
    """Run Python where only the installed package can be found, not the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return lambda *arguments: python(*arguments, cwd=tmp_path, env=environment)


def test_version_is_the_one_in_settings(installed, site):
    settings = ConfigParser(interpolation=None)
    settings.read(ROOT / "settings.ini", encoding="utf-8")
    out = installed("-c", "import cka_nb; print(cka_nb.__file__, cka_nb.__version__)")
    assert out == f"{site / 'cka_nb' / '__init__.py'} {settings['package']['version']}"


def test_the_wheel_is_built_once(site, tmp_path_factory):
    """Tests that share what is made once share a process: `tests/schedule.py`."""
    top = tmp_path_factory.getbasetemp()
    top = top.parent if IN_A_WORKER else top
    assert len([*top.glob("popen-*/package0" if IN_A_WORKER else "package0")]) == 1


def test_every_module_and_the_type_marker_are_shipped(site):
    here = {path.name for path in (ROOT / "cka_nb").iterdir() if path.is_file()}
    assert "py.typed" in here
    assert here == {path.name for path in (site / "cka_nb").iterdir() if path.is_file()}


def test_command_line_answers(installed, site):
    assert "demo" in installed("-m", "cka_nb", "--help")
    assert "demo" in installed(site / "bin" / "cka_nb", "--help")


def test_import_is_light(installed):
    installed("-c", LIGHT)

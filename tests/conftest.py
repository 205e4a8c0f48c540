"""What all tests share: a modest number of threads, no windows, and one closing line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import forked  # noqa: F401 - the server that tests start processes from
import pytest
from schedule import Units, longest_first

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small networks gain nothing from two
os.environ.setdefault("MPLBACKEND", "Agg")

ROOT = Path(__file__).resolve().parent.parent
JUNK = shutil.ignore_patterns(".*", "runs", "build", "dist", "*.egg-info", "__pycache__")


def pytest_addoption(parser):
    parser.addoption("--flags", default="", help="run these flagged cells too, e.g. 'cuda slow'")


def pytest_configure(config):
    os.environ["TEST_FLAGS"] = config.getoption("flags")  # for `properties.examples`
    config.addinivalue_line("markers", "slow: minutes; runs with --flags slow alone")


def pytest_collection_modifyitems(config, items):
    """Leave slow tests out, unless they are asked for; begin with what takes longest."""
    if "slow" not in config.getoption("flags"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
        if slow:
            config.hook.pytest_deselected(items=slow)
    if "PYTEST_XDIST_WORKER" in os.environ:
        items[:] = longest_first(items)


@pytest.hookimpl(optionalhook=True)  # there is none with `-p no:xdist`
def pytest_xdist_make_scheduler(config, log):
    return Units(config, log)


@pytest.hookimpl(trylast=True)  # after pytest's own summary
def pytest_unconfigure(config):
    """Print `N passed, N failed` as the very last line; an error is a failure."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # in a worker: the process that started it reports
        return
    count = {name: len(reports) for name, reports in reporter.stats.items()}
    failed = count.get("failed", 0) + count.get("error", 0)
    line = f"{count.get('passed', 0)} passed, {failed} failed"
    if "skipped" in count:
        line += f", {count['skipped']} skipped"
    reporter.write_line(line)


def python(*arguments, **options):
    """Run this interpreter; its output, or a failure that shows it."""
    run = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **options)
    assert run.returncode == 0, f"{arguments}\n{run.stdout}\n{run.stderr}"
    return run.stdout.strip()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel, built from the source archive."""
    top = tmp_path_factory.mktemp("package")
    shutil.copytree(ROOT, top / "source", ignore=JUNK)  # as in a fresh clone
    # without --sdist or --wheel, build makes the wheel from the source archive
    python("-m", "build", "--no-isolation", "--outdir", top, top / "source")
    (wheel,) = top.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def site(wheel):
    """A folder with nothing but the installed wheel in it."""
    options = ["--quiet", "--no-index", "--no-deps", "--target", wheel.parent / "site"]
    python("-m", "pip", "install", *options, wheel)
    return wheel.parent / "site"

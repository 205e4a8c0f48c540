"""What all tests share: a modest number of threads, no windows, and one closing line."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_addoption(parser):
    parser.addoption("--flags", default="", help="run these flagged cells too, e.g. 'cuda slow'")


@pytest.hookimpl(trylast=True)  # after pytest's own summary
def pytest_unconfigure(config):
    """Print `N passed, N failed` as the very last line; an error is a failure."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    count = {name: len(reports) for name, reports in reporter.stats.items()}
    failed = count.get("failed", 0) + count.get("error", 0)
    line = f"{count.get('passed', 0)} passed, {failed} failed"
    if "skipped" in count:
        line += f", {count['skipped']} skipped"
    reporter.write_line(line)

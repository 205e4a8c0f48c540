"""In which order tests run, and which of them run in one process.

Tests of one unit share a process, and so what their module makes once. A unit is a file; chapters,
which share nothing, are a unit each, and the pages of the site are two, for two browsers. Units
that take longest begin first: all processes end at about the same time.

The marks of pytest-xdist for this, `xdist_group`, do nothing with pytest 9.2: its item has another
attribute for the name that xdist 3.8 changes.
"""

import re

from xdist.scheduler import LoadScopeScheduling

# rough estimates: only their order matters; what is not listed is short, and fills the gaps
SECONDS = {
    "test_site": 160, "wheel": 120, "test_device": 140, "test_safety": 110, "test_faults": 90,
    "test_site, in another browser": 75, "test_processes": 70, "test_own_teachers": 55,
    "test_benchmark_card": 50, "test_networks": 50, "test_resume": 45, "test_properties": 40,
    "test_card": 40, "test_experiments": 40, "test_size": 38, "test_inspection": 30,
    "test_judging": 30, "test_oracles": 20, "test_budgets": 20, "test_fuzz": 18,
    "test_identity": 17, "test_drift": 15, "test_images": 14,
    **{f"test_notebook_runs_and_agrees_with_its_stored_outputs[{name}]": seconds
       for name, seconds in {
           "41_training": 75, "60_own_teachers": 75, "45_experiments": 60, "51_commands": 55,
           "63_when_things_go_wrong": 50, "58_cli": 38, "27_witness": 36, "56_demo": 36,
           "71_troubleshooting": 35, "55_benchmark": 24, "48_inspection": 24,
           "36_diagnostics": 22, "00_tour": 20, "54_memory": 18, "40_teaching": 18,
           "46_report": 16, "31_processes": 15}.items()},
    "test_chapter_runs_on_the_card[38_loop]": 10,
}


def unit(nodeid):
    """The unit of a test: those of one unit run in one process, one after the other."""
    file = nodeid.partition("::")[0].rpartition("/")[2].removesuffix(".py")
    if file in ("test_notebooks", "test_chapters_on_card", "test_breakages"):
        return nodeid.partition("::")[2]
    if file in ("test_colab", "test_package"):
        return "wheel"
    if re.search(r"::test_page\[[4-9]", nodeid):
        return "test_site, in another browser"
    return file


def longest_first(items):
    """The tests in the order of their units."""
    units = {}
    for item in items:
        units.setdefault(unit(item.nodeid), []).append(item)
    ordered = sorted(units, key=lambda name: -SECONDS.get(name, 0))
    return [item for name in ordered for item in units[name]]


class Units(LoadScopeScheduling):
    """Hand out a unit at a time, in the order in which the tests were collected."""

    def __init__(self, config, log):
        super().__init__(config, log)
        config.option.loadscopereorder = False  # not by the number of tests

    def _split_scope(self, nodeid):
        return unit(nodeid)

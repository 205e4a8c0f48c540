"""The committed results are what the chapters and README say they are."""

import json
import statistics
from functools import partial
from pathlib import Path

import pytest

from cka_nb.experiments import MORE_OBJECTIVES, NATURAL_OBJECTIVES, NATURAL_SETTINGS, OBJECTIVES
from cka_nb.experiments import SETTINGS, compare, stored_result

RESULTS = Path(__file__).resolve().parent.parent / "results"
SHORT = {"T": "temperature"}


def settings(trial):
    """'kd T=4' -> ('kd', {'temperature': 4.0})."""
    row, *pairs = trial.split()
    items = (pair.split("=") for pair in pairs)
    return row, {SHORT.get(name, name): float(value) for name, value in items}


@pytest.mark.parametrize("family, rows, equal", [
    ("digits", OBJECTIVES | MORE_OBJECTIVES, 6), ("natural", NATURAL_OBJECTIVES, 3)])
def test_each_objective_is_used_as_its_best_trial_says(family, rows, equal):
    trials = json.loads((RESULTS / f"{family}_tuning.json").read_text())["trials"]
    for row, make in rows.items():
        its = {name: t["mean"] for name, t in trials.items() if settings(name)[0] == row}
        assert len(its) == equal, "the same number of trials for every objective"
        chosen = make()
        for name, value in settings(max(its, key=its.get))[1].items():
            in_use = (chosen.keywords if isinstance(chosen, partial) else vars(chosen))[name]
            assert in_use == value, f"{row} uses {name}={in_use}, its best trial had {value}"


EVERY = SETTINGS | NATURAL_SETTINGS


@pytest.mark.parametrize("name", EVERY)
def test_a_result_follows_from_what_each_seed_got_right(name):
    result = stored_result(name)
    assert result["about"] == EVERY[name].about
    assert len(result["seeds"]) == len(result["rows"][0]["right"]) >= (5 if name in SETTINGS else 3)
    names = [row["name"] for row in result["rows"]]
    assert set(names) >= {"concatenated", "kd", "kd_owned", "cfl", "cka", "labels"}
    assert name not in SETTINGS or set(names) >= set(OBJECTIVES)
    for row in result["rows"]:
        joint, seeds = row["joint"], [seed.count("1") / len(seed) for seed in row["right"]]
        assert joint["per_seed"] == pytest.approx(seeds, abs=1e-12)
        assert joint["mean"] == pytest.approx(statistics.mean(seeds), abs=1e-12)
        assert joint["sd"] == pytest.approx(statistics.stdev(seeds), abs=1e-12)
    for pair in result["paired"]:
        again = compare(result["rows"], pair["ours"], pair["theirs"])
        assert again["interval"] == pytest.approx(pair["interval"], abs=1e-12)
        assert again["won"] == pair["won"]


def test_every_setting_and_every_table_has_a_result():
    there = {path.stem for path in RESULTS.glob("*.json")}
    assert there >= {*EVERY, "cifar20_exploration", "ownership", "ablation", "noisy_labels", "cost"}


def test_the_ownership_table_is_whole():
    table = json.loads((RESULTS / "ownership.json").read_text())
    for setting in table["settings"].values():
        assert set(setting["rows"]) == {
            f"{name} | {views} | {situation}" for name in table["estimators"]
            for views in (1, 8) for situation in ("all", "skewed")}
        for row in setting["rows"].values():
            assert all(0 <= value <= 1 for value in row.values())

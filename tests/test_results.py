"""The committed results are what the chapters and README say they are."""

import json
from functools import partial
from pathlib import Path

from cka_nb.demo import OBJECTIVES

RESULTS = Path(__file__).resolve().parent.parent / "results"
SHORT = {"T": "temperature"}


def settings(trial):
    """'kd T=4' -> ('kd', {'temperature': 4.0})."""
    row, *pairs = trial.split()
    items = (pair.split("=") for pair in pairs)
    return row, {SHORT.get(name, name): float(value) for name, value in items}


def test_the_demo_uses_the_best_trial_of_each_objective():
    trials = json.loads((RESULTS / "digits_tuning.json").read_text())["trials"]
    for row, make in OBJECTIVES.items():
        its = {name: t["mean"] for name, t in trials.items() if settings(name)[0] == row}
        assert len(its) == 3, "the same number of trials for every objective"
        chosen = make()
        for name, value in settings(max(its, key=its.get))[1].items():
            in_use = chosen.keywords[name] if isinstance(chosen, partial) else getattr(chosen, name)
            assert in_use == value, f"{row} uses {name}={in_use}, its best trial had {value}"


def test_means_follow_from_the_seeds():
    result = json.loads((RESULTS / "digits.json").read_text())
    assert [row["name"] for row in result["rows"]][-6:] == [*OBJECTIVES, "labels"]
    for row in result["rows"]:
        per_seed = row["joint"]["per_seed"]
        assert len(per_seed) == len(result["seeds"]) >= 5
        assert abs(sum(per_seed) / len(per_seed) - row["joint"]["mean"]) < 1e-12

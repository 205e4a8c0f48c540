"""`cka_nb experiment` on a tiny setting: lists, refuses, goes on, and keeps the larger result."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest

from cka_nb.baselines import OBJECTIVES, PARTS
from cka_nb.cli import main
from cka_nb.comparison import stored_result
from cka_nb.data import TensorImages
from cka_nb.experiments import EXPERIMENTS, experiment
from cka_nb.labels import digits

pytestmark = [pytest.mark.filterwarnings("ignore:what the batch norms"),
              pytest.mark.filterwarnings("ignore:every image is given to teacher")]


def few(seed):
    return tuple(TensorImages(d.images[:n], d.labels[:n], d.classes)
                 for d, n in zip(digits(seed), (128, 64, 64)))


OWN, PARTED = EXPERIMENTS["digits"], EXPERIMENTS["ablation/digits"]
TINY = replace(OWN.setting, data=few, epochs=1, width=8, teacher_width=8)
ROWS = {row: {"objective": OBJECTIVES[row], "ownership": "information"}
        for row in ("kd_owned", "cka")}
TABLE = {"tiny": replace(OWN, setting=TINY, rows=ROWS, seeds=range(2), result="tiny"),
         "ablation/tiny": replace(PARTED, setting=TINY, seeds=range(1), part="tiny", rows={
             row: PARTED.rows[row] for row in ("cka", "without common space")})}


@pytest.fixture
def tried(tmp_path):
    return partial(experiment, out=tmp_path / "results", runs=tmp_path / "runs", table=TABLE,
                   device="cpu", say=lambda *_: None)


def test_every_experiment_is_listed_in_one_line(capsys):
    assert main(["experiment"]) == 0
    listed = capsys.readouterr().out.splitlines()
    for name, line in zip(EXPERIMENTS, listed):
        assert line.split()[0] == name and " seeds, " in line
        assert "min each" in line or "for a GPU" in line


@pytest.mark.parametrize("mistake, text", [
    (["digit"], "no experiment 'digit'; `cka_nb experiment` lists those there are"),
    (["digits", "0", "5"], "digits has the seeds 0 to 4, not 5"),
    (["digits", "one"], "argument SEED: must be a whole number of at least 0, got 'one'")])
def test_a_mistake_is_one_line_and_status_2(mistake, text, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["experiment", *mistake]) == 2
    said = capsys.readouterr()
    assert not said.out and len(said.err.splitlines()) == 1 and text in said.err
    assert not [*tmp_path.iterdir()], "nothing is run, and nothing written"


def test_it_goes_on_and_does_not_replace_a_result_of_more_seeds(tried, tmp_path):
    path = tmp_path / "results" / "tiny.json"
    assert tried("tiny", [1])["seeds"] == [1]
    whole = tried("tiny")
    assert whole["seeds"] == [0, 1] and whole["command"] == "cka_nb experiment tiny"
    bytes_of_two, kept = path.read_bytes(), tmp_path / "runs" / "tiny" / "1.json"
    ran = json.loads(kept.read_text())
    seconds = ran["rows"]["kd_owned"]["seconds"]
    del ran["rows"]["labels"]
    kept.write_text(json.dumps(ran))
    assert tried("tiny", [0]) is None and path.read_bytes() == bytes_of_two
    again = tried("tiny", [1])
    assert json.loads(kept.read_text())["rows"]["kd_owned"]["seconds"] == seconds, "run again"
    assert [r["right"] for r in again["rows"]] == [r["right"] for r in whole["rows"]]
    path.write_text("{")
    with pytest.raises(ValueError):  # a damaged result is not taken for none
        tried("tiny")
    assert path.read_text() == "{"


def test_an_ablation_takes_the_rows_that_the_setting_has(tried, tmp_path):
    own = {row["name"]: row for row in tried("tiny", [0])["rows"]}
    its = {row["name"]: row for row in tried("ablation/tiny")["rows"]}
    assert its["cka"]["right"] == own["cka"]["right"]
    assert its["without common space"]["seconds"] == own["kd_owned"]["seconds"], "made again"
    (tmp_path / "runs" / "ablation" / "tiny" / "0.json").unlink()
    (tmp_path / "runs" / "tiny" / "0.json").unlink()
    alone = {row["name"]: row for row in tried("ablation/tiny")["rows"]}
    assert [alone[name]["right"] for name in alone] == [its[name]["right"] for name in its]
    assert set(stored_result("ablation", tmp_path / "results")["settings"]) == {"tiny"}


def test_two_seeds_run_in_two_processes(tried, tmp_path):
    code = ("import sys, test_experiments as t, cka_nb.experiments as e; e.experiment('tiny', "
            "[int(sys.argv[1])], 'results', 'cpu', 'runs', t.TABLE)")
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    begun = [subprocess.Popen([sys.executable, "-W", "ignore", "-c", code, seed], cwd=tmp_path,
                              env=env, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE) for seed in "01"]
    errors = [run.communicate()[1].decode() for run in begun]
    assert [run.returncode for run in begun] == [0, 0], errors
    assert tried("tiny")["seeds"] == [0, 1]


def test_the_rows_of_an_ablation_are_the_parts():
    for name, e in EXPERIMENTS.items():
        if name.startswith("ablation/"):
            assert list(e.rows) == list(PARTS) and e.part == name.split("/")[1]


def test_a_trial_is_judged_on_held_out_images_and_opens_no_test_set(tmp_path):
    trial = EXPERIMENTS["trial/digits_new"]
    trial = replace(trial, setting=replace(trial.setting, steps=6, teaching={"epochs": 1}),
                    seeds=range(100, 102), rows={"cka": trial.rows["cka"]})
    run = partial(experiment, "trial/digits_new", out=tmp_path, device="cpu", runs=tmp_path/"runs",
                  table={"trial/digits_new": trial}, say=lambda *a: None)
    assert run(seeds=[100]) is None, "a choice is made from all its seeds"
    result = run()
    assert "openings" not in result and result["seeds"] == [100, 101]
    assert {len(right) for right in result["rows"][-1]["right"]} == {200}
    assert json.loads((tmp_path / "choices.json").read_text())["settings"] == {"digits_new": result}

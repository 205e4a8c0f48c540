"""Each part of the objective removed: results/ablation.json, from the setting's own seeds.

usage: python tools/run_ablation.py SETTING [SEED ...]    (default: all the setting's seeds)

Goes on where it stopped: rows are kept in runs/ablation/SETTING/SEED.json, and two seeds may run at
once, in two processes. The result is made of the seeds that have all rows. What the setting's own
run has (tools/run_settings.py) is taken from there: `cka`, and `kd_owned`, which is `cka` without
common space.
"""

import json
import sys
from functools import partial
from pathlib import Path

import torch

from cka_nb.core import versions, write_json
from cka_nb.experiments import NATURAL_OBJECTIVES, NATURAL_SETTINGS, SETTINGS, compare, run_seed
from cka_nb.experiments import summary
from cka_nb.commands import OBJECTIVES
from cka_nb.objective import ContrastiveAmalgamation

OUT = Path("results/ablation.json")


PARTS = {  # row -> what is set to 0
    "cka": (),
    "without task": ("task",),
    "without intra": ("intra",),
    "without inter": ("inter",),
    "without alignment": ("alignment",),
    "without contrast": ("intra", "inter"),
    "without common space": ("intra", "inter", "alignment"),
    "without belief": (),
}


class WithoutBelief(ContrastiveAmalgamation):
    """CKA that is given whose image it is, and no belief over classes: each view's mixture."""

    def forward(self, student, teachers, ownership, space, posterior=None):
        return super().forward(student, teachers, ownership, space)


def without(make, row):
    objective = make()
    if row == "without belief":
        return WithoutBelief(temperature=objective.temperature)
    for part in PARTS[row]:
        setattr(objective, part, 0.0)
    return objective


def begin(name, seed, path):
    """A seed's file, with the rows that the setting's own run has."""
    own = Path("runs/settings", name, f"{seed}.json")
    if not own.is_file():
        return path
    ran = json.loads(own.read_text())
    rows = {k: r for k, r in ran["rows"].items() if k in ("cka", "concatenated") or ":" in k}
    if "kd_owned" in ran["rows"]:
        rows["without common space"] = ran["rows"]["kd_owned"]
    file = json.loads(path.read_text()) if path.is_file() else ran | {"rows": {}}
    if file["what"] != ran["what"]:
        raise ValueError(f"{path} and {own} are of different runs: delete the former")
    kept = file["rows"]
    if stale := [k for k in rows if k in kept and kept[k]["right"] != rows[k]["right"]]:
        raise ValueError(f"{path} holds a {stale[0]} that {own} no longer has: delete it")
    write_json(path, ran | {"rows": rows | kept})
    return path


def main(name, *seeds):
    setting = (SETTINGS | NATURAL_SETTINGS)[name]
    make = (NATURAL_OBJECTIVES if name in NATURAL_SETTINGS else OBJECTIVES)["cka"]
    rows = {row: partial(without, make, row) for row in PARTS}
    for seed in map(int, seeds or range(setting.seeds)):
        path = begin(name, seed, Path("runs/ablation", name, f"{seed}.json"))
        run_seed(setting, seed, rows, twin=False, path=path)
        print(name, seed, flush=True)
    whole = {}
    for seed in range(setting.seeds):
        path = Path("runs/ablation", name, f"{seed}.json")
        if path.is_file() and json.loads(path.read_text())["rows"].keys() >= PARTS.keys():
            ran = run_seed(setting, seed, rows, twin=False, path=begin(name, seed, path))
            whole[seed] = {row: ran[row] for row in PARTS}  # checked as for going on
    found = json.loads(OUT.read_text())["settings"] if OUT.is_file() else {}
    if not whole or len(whole) < len(found.get(name, {"seeds": []})["seeds"]):
        return print(f"whole seeds: {list(whole)}: fewer than the result has, nothing written")
    rows = summary(list(whole.values()))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    found[name] = {"about": setting.about, "seeds": list(whole), "versions": versions(),
                   "device": device, "rows": rows,
                   "paired": [compare(rows, "cka", p) for p in PARTS if p != "cka"]}
    write_json(OUT, {"what": "CKA with one part removed, test images, last epoch",
                     "ownership": "MomentOwnership", "settings": found,
                     "command": "python tools/run_ablation.py SETTING"})


if __name__ == "__main__":
    main(*sys.argv[1:])

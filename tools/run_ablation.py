"""Each part of the objective removed: results/ablation.json, from the setting's own seeds.

usage: python tools/run_ablation.py [SETTING ...]    (default: digits_four)

Goes on where it stopped: rows are kept in runs/ablation/SETTING/SEED.json.
"""

import json
import sys
from pathlib import Path

from cka_nb.core import versions, write_json
from cka_nb.experiments import NATURAL_SETTINGS, OBJECTIVES, SETTINGS, compare, run_seed, summary

OUT = Path("results/ablation.json")


def without(belief=True, **parts):
    objective = OBJECTIVES["cka"]()
    for name in parts:
        setattr(objective, name, 0.0)
    objective.takes_posterior = belief
    return objective


PARTS = {
    "cka": without,
    "without task": lambda: without(task=0),
    "without intra": lambda: without(intra=0),
    "without inter": lambda: without(inter=0),
    "without alignment": lambda: without(alignment=0),
    "without contrast": lambda: without(intra=0, inter=0),
    "without common space": lambda: without(intra=0, inter=0, alignment=0),
    "without belief": lambda: without(belief=False),
}


def main(*names):
    kept = json.loads(OUT.read_text())["settings"] if OUT.is_file() else {}
    for name in names or ("digits_four",):
        setting, per_seed = (SETTINGS | NATURAL_SETTINGS)[name], []
        for seed in range(setting.seeds):
            per_seed.append(run_seed(setting, seed, PARTS, twin=False,
                                     path=Path("runs/ablation", name, f"{seed}.json")))
            print(name, seed, flush=True)
        rows = [r for r in summary(per_seed) if r["name"] in PARTS]
        kept[name] = {"about": setting.about, "seeds": list(range(setting.seeds)), "rows": rows,
                      "paired": [compare(rows, "cka", p) for p in PARTS if p != "cka"]}
        write_json(OUT, {"what": "CKA with one part removed, test images, last epoch",
                         "command": "python tools/run_ablation.py", "versions": versions(),
                         "device": "cpu", "settings": kept})


if __name__ == "__main__":
    main(*sys.argv[1:])

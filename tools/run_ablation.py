"""Each part of the objective removed: results/ablation.json, from the setting's own seeds.

usage: python tools/run_ablation.py [SETTING ...]    (default: digits_four)

Goes on where it stopped: rows are kept in runs/ablation/SETTING/SEED.json.
"""

import json
import sys
from functools import partial
from pathlib import Path

from cka_nb.core import versions, write_json
from cka_nb.experiments import (
    NATURAL_OBJECTIVES,
    NATURAL_SETTINGS,
    OBJECTIVES,
    SETTINGS,
    compare,
    run_seed,
    summary,
)

OUT = Path("results/ablation.json")


PARTS = {  # row -> what is set to 0
    "cka": (),
    "without task": ("task",),
    "without intra": ("intra",),
    "without inter": ("inter",),
    "without alignment": ("alignment",),
    "without contrast": ("intra", "inter"),
    "without common space": ("intra", "inter", "alignment"),
    "without belief": ("takes_posterior",),
}


def without(make, parts):
    objective = make()
    for name in parts:
        setattr(objective, name, False if name == "takes_posterior" else 0.0)
    return objective


def main(*names):
    kept = json.loads(OUT.read_text())["settings"] if OUT.is_file() else {}
    for name in names or ("digits_four",):
        setting, per_seed = (SETTINGS | NATURAL_SETTINGS)[name], []
        make = (NATURAL_OBJECTIVES if name in NATURAL_SETTINGS else OBJECTIVES)["cka"]
        rows = {row: partial(without, make, parts) for row, parts in PARTS.items()}
        for seed in range(setting.seeds):
            per_seed.append(run_seed(setting, seed, rows, twin=False,
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

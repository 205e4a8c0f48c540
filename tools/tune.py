"""Equal trials per objective on held-out training images (never test images), logged as JSON.

usage: python tools/tune.py digits|natural [SEED ...]

Writes results/FAMILY_tuning.json once every seed is there; seeds may run in several processes and
go on where they stopped (runs/tune/FAMILY/SEED.json).
"""

import json
import statistics
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from cka_nb.baselines import (
    CommonFeatureLearning,
    joint_distillation,
    owned_distillation,
    task_distillation,
    unified_distillation,
)
from cka_nb.core import versions, write_json
from cka_nb.data import cifar100
from cka_nb.experiments import NATURAL_SETTINGS, SETTINGS, run_seed
from cka_nb.objective import ContrastiveAmalgamation


def temperatures(values):
    rows = {
        "kd": lambda t: partial(partial, joint_distillation, temperature=t),
        "kd_task": lambda t: partial(partial, task_distillation, temperature=t),
        "kd_owned": lambda t: partial(owned_distillation, temperature=t),
        "uhc": lambda t: partial(partial, unified_distillation, temperature=t),
    }
    return {f"{row} T={t:g}": make(t) for row, make in rows.items() for t in values}


def with_weights(contrasts, weights, values):
    return {
        f"cka intra={a} inter={b} alignment={g} T={t:g}": partial(
            ContrastiveAmalgamation, intra=a, inter=b, alignment=g, temperature=t)
        for a, b, g in contrasts for t in values
    } | {
        f"{row} weight={w} T={t:g}": partial(
            CommonFeatureLearning, weight=w, temperature=t, owned=row == "cfl_owned")
        for row in ("cfl", "cfl_owned") for w in weights for t in values
    }


TEN = NATURAL_SETTINGS["cifar10_unbalanced"]
CLASSES = TEN.data.keywords["classes"]
FAMILIES = {  # setting, trials, seeds
    "digits": (
        SETTINGS["digits"],
        temperatures((1, 1.5, 2, 3, 4, 6))
        | with_weights(((0.1, 0.1, 0.2), (0.2, 0.2, 0.5)), (1, 10), (1, 2, 4)),
        range(100, 104),
    ),
    "natural": (
        replace(TEN, about="two teachers of five natural classes each",
                data=partial(cifar100, classes=CLASSES, size=16, held_out=150),
                teachers={"first": ("resnet_small", CLASSES[:5]),
                          "second": ("vgg_small", CLASSES[5:])}),
        temperatures((1, 2, 4)) | with_weights(((0.1, 0.1, 0.2),), (1,), (1, 2, 4)),
        range(100, 102),
    ),
}


def main(family, *seeds):
    setting, trials, every = FAMILIES[family]
    folder = Path("runs/tune", family)
    for seed in map(int, seeds or every):
        run_seed(setting, seed, trials, "held_out", twin=False, path=folder / f"{seed}.json")
        print(family, seed, flush=True)
    paths = [folder / f"{seed}.json" for seed in every]
    per_seed = [json.loads(p.read_text())["rows"] for p in paths if p.is_file()]
    if not all(len(per_seed) == len(every) and rows.keys() >= trials.keys() for rows in per_seed):
        return print("not all seeds are there: no result written")
    images = len(per_seed[0]["concatenated"]["right"])
    write_json(f"results/{family}_tuning.json", {
        "what": f"joint accuracy on {images} held-out images per seed; no test image",
        "about": setting.about, "command": f"python tools/tune.py {family}",
        "seeds": list(every), "epochs": setting.epochs, "versions": versions(),
        "concatenated": [rows["concatenated"]["joint"] for rows in per_seed],
        "trials": {name: {"mean": statistics.mean(each), "per_seed": each} for name in trials
                   if (each := [rows[name]["joint"] for rows in per_seed])},
    })


if __name__ == "__main__":
    main(*sys.argv[1:])

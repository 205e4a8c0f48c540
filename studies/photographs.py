"""Photographs of easy classes, that two small teachers tell apart: results/photographs.json.

usage: python studies/photographs.py [SEED ...]     (default: 0 1; goes on where it stopped)

Three sets of CIFAR-100 classes at 32 x 32 pixels, named before any of them was run. Two teachers of
five classes each learn from 450 images per class; the heap is 1,000 new images, and 500 other
images judge. Nothing is chosen on them: the default is taken as it is.
"""

import statistics
import sys
from functools import partial
from pathlib import Path

import torch

from cka_nb.baselines import NATURAL_OBJECTIVES as MAKES
from cka_nb.comparison import compare, summary
from cka_nb.data import random_crop_flip
from cka_nb.experiments import run_seed
from cka_nb.files import read_json, versions, write_json
from cka_nb.labels import cifar100
from cka_nb.settings import Setting

OUT, RUNS, SEEDS = Path("results/photographs.json"), Path("runs/photographs"), range(2)
SETS = {
    "things": ("orange motorcycle wardrobe sea castle".split(),
               "sunflower chair road pickup_truck skyscraper".split()),
    "outdoors": ("apple keyboard cockroach plain bicycle".split(),
                 "aquarium_fish rocket lawn_mower palm_tree cloud".split()),
    "mixed": ("bottle tank tractor mountain chimpanzee".split(),
              "telephone trout streetcar orchid lion".split())}
ROWS = {"kd": dict(objective=MAKES["kd"]),
        **{f"cka_{its}": dict(objective=MAKES["cka"], ownership=its)
           for its in ("classes", "moments", "information")}}


def setting_of(name):
    first, second = SETS[name]
    return Setting(
        f"two teachers of five classes each, photographs: {name}",
        partial(cifar100, classes=first + second, size=32),
        {"first": ("resnet_small", first), "second": ("vgg_small", second)},
        student="vgg_small", width=16, steps=600, augment=random_crop_flip,
        teaching={"epochs": 25}, heap={"heap": "rest"})


def table_of(whole):
    "seed -> rows: scores, the teachers at home, differences to the default"
    rows = summary([{k: its[k] for k in ("concatenated", *ROWS, "labels")}
                    for its in whole.values()])
    at_home = [its[k]["joint"] for its in whole.values() for k in its if k.startswith("teacher:")]
    return {"rows": rows, "at_home": statistics.mean(at_home), "seeds": [*whole],
            "paired": [compare(rows, "cka_information", k) for k in ("kd", "labels")]}


def main(*seeds):
    torch.set_num_threads(1)
    settings = read_json(OUT)["settings"] if OUT.is_file() else {}
    for name in SETS:
        whole = {}
        for seed in map(int, seeds or SEEDS):
            path = RUNS / name / f"{seed}.json"
            whole[seed] = run_seed(setting_of(name), seed, ROWS, device="cpu", path=path)
            said = {row: its["joint"] for row, its in whole[seed].items()}
            print(name, seed, *(f"{row} {100 * x:.1f}" for row, x in said.items()), flush=True)
        if len(whole) < len(settings.get(name, {}).get("seeds", ())):
            print(f"{OUT} has more seeds of {name}: it stays as it is", flush=True)
            continue
        settings[name] = {"classes": SETS[name]} | table_of(whole)
        write_json(OUT, {
            "what": "photographs of easy classes: teachers, heap and judge share no image",
            "command": "python studies/photographs.py", "device": "cpu",
            "threads": torch.get_num_threads(), "versions": versions(), "settings": settings})
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

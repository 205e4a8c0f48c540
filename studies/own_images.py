"""The default and moments on the teachers' own training images: results/own_images.json.

usage: python studies/own_images.py [SETTING ...]     (default: all; goes on where it stopped)

The settings of the chapter on results, whose stored rows have moments. Here both ownerships and
distillation learn from the same teachers: on digits with five seeds, on natural images with two.
"""

import sys
from pathlib import Path

import torch

from cka_nb.baselines import NATURAL_OBJECTIVES, OBJECTIVES
from cka_nb.comparison import compare, summary
from cka_nb.experiments import run_seed
from cka_nb.files import read_json, versions, write_json
from cka_nb.settings import NATURAL_SETTINGS, SETTINGS

OUT, RUNS = Path("results/own_images.json"), Path("runs/own_images")
NAMES = [name for name in (*SETTINGS, *NATURAL_SETTINGS) if name not in ("digits", "digits_four")]
RIVALS = ("kd", "cka_moments")


def rows_of(name):
    makes = OBJECTIVES if name in SETTINGS else NATURAL_OBJECTIVES
    return {"kd": dict(objective=makes["kd"]),
            **{row: dict(objective=makes["cka"], ownership=its)
               for row, its in (("cka_moments", "moments"), ("cka", "information"))}}


def table_of(name, whole):
    rows = summary([{k: its[k] for k in ("concatenated", *rows_of(name))} for its in whole])
    return {"rows": rows, "seeds": [*range(len(whole))],
            "paired": [compare(rows, "cka", k) for k in RIVALS]}


def main(*names):
    torch.set_num_threads(1)
    for name in names or NAMES:
        setting, whole = (SETTINGS | NATURAL_SETTINGS)[name], []
        for seed in range(5 if name in SETTINGS else 2):
            whole.append(run_seed(setting, seed, rows_of(name), device="cpu", twin=False,
                                  path=RUNS / name / f"{seed}.json"))
            print(name, seed, *(f"{row} {100 * its['joint']:.1f}" for row, its in
                                whole[-1].items()), flush=True)
        made = read_json(OUT)["settings"] if OUT.is_file() else {}
        write_json(OUT, {
            "what": "the default and moments, on the teachers' own training images",
            "command": "python studies/own_images.py", "device": "cpu",
            "threads": torch.get_num_threads(), "versions": versions(),
            "settings": made | {name: table_of(name, whole)}})
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

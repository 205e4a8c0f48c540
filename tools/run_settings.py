"""Run a setting of the chapter Experiments and write results/NAME.json from the seeds it has.

usage: python tools/run_settings.py NAME [SEED ...]      (default: all the setting's seeds)

Each (setting, seed) keeps its rows in runs/settings/NAME/SEED.json and goes on where it stopped;
two seeds may run at once, in two processes. The result says which seeds it is made of.
Natural images are read from data/cifar100 (the chapter Data says how they get there).
"""

import json
import sys
from pathlib import Path

import torch

from cka_nb.core import write_json
from cka_nb.experiments import LARGE_SETTINGS, MORE_OBJECTIVES, NATURAL_OBJECTIVES
from cka_nb.experiments import NATURAL_SETTINGS, SETTINGS, report, result_of, run_seed
from cka_nb.commands import OBJECTIVES


def rows_of(name, setting):
    rows = dict(OBJECTIVES | MORE_OBJECTIVES if name in SETTINGS else NATURAL_OBJECTIVES)
    taught = [c for _, classes in setting.teachers.values() for c in classes]
    if len(taught) == len(set(taught)):
        del rows["uhc"]  # it unifies what label sets share
    return rows


def main(name, *seeds):
    setting = (SETTINGS | NATURAL_SETTINGS | LARGE_SETTINGS)[name]
    folder = Path("runs/settings", name)
    for seed in map(int, seeds or range(setting.seeds)):
        run_seed(setting, seed, rows_of(name, setting), path=folder / f"{seed}.json")
        print(name, seed, flush=True)
    wanted = [f"teacher:{t}" for t in setting.teachers]
    wanted += ["concatenated", *rows_of(name, setting), "labels"]
    whole = {seed: rows for seed in range(setting.seeds)
             if (rows := kept(setting, seed, folder, rows_of(name, setting), wanted))}
    path = Path("results", f"{name}.json")
    before = json.loads(path.read_text())["seeds"] if path.is_file() else []
    if not whole or len(whole) < len(before):
        return print(f"whole seeds: {list(whole)}, the result has {before}: nothing written")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    result = result_of(setting, list(whole.values()), list(whole), device=device,
                       threads=torch.get_num_threads(), ownership="MomentOwnership",
                       command=f"python tools/run_settings.py {name}")
    write_json(path, result)
    print(report(result))


def kept(setting, seed, folder, rows, wanted):
    """The seed's rows in this order, checked as for going on; None if one is missing."""
    path = folder / f"{seed}.json"
    if not path.is_file() or not json.loads(path.read_text())["rows"].keys() >= {*wanted}:
        return None
    found = run_seed(setting, seed, rows, path=path)
    return {name: found[name] for name in wanted}


if __name__ == "__main__":
    main(*sys.argv[1:])

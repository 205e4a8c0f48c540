"""Run settings of the chapter Experiments and write results/NAME.json from all their seeds.

usage: python tools/run_settings.py NAME [SEED ...]      (default: seeds 0 to 4)

Each (setting, seed) keeps its rows in runs/settings/NAME/SEED.json and goes on where it stopped;
two seeds may run at once, in two processes. The result is written when seeds 0 to 4 are there.
"""

import json
import sys
from pathlib import Path

from cka_nb.core import write_json
from cka_nb.experiments import MORE_OBJECTIVES, OBJECTIVES, SETTINGS, report, result_of, run_seed

SEEDS = range(5)


def main(name, *seeds):
    folder, setting = Path("runs/settings", name), SETTINGS[name]
    for seed in map(int, seeds or SEEDS):
        run_seed(setting, seed, OBJECTIVES | MORE_OBJECTIVES, path=folder / f"{seed}.json")
        print(name, seed, flush=True)
    paths = [folder / f"{seed}.json" for seed in SEEDS]
    per_seed = [json.loads(path.read_text())["rows"] for path in paths if path.is_file()]
    if len(per_seed) == len(SEEDS) and all("labels" in rows for rows in per_seed):
        result = result_of(setting, per_seed, list(SEEDS), device="cpu",
                           command=f"python tools/run_settings.py {name}")
        write_json(f"results/{name}.json", result)
        print(report(result))


if __name__ == "__main__":
    main(*sys.argv[1:])

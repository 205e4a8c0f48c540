"""Six trials per objective on held-out digits (never the test images), logged as JSON.

usage: python tools/tune_digits.py [OUT]        (default: results/digits_tuning.json)
"""

import statistics
import sys
from functools import partial

from cka_nb.baselines import (
    CommonFeatureLearning,
    joint_distillation,
    owned_distillation,
    task_distillation,
    unified_distillation,
)
from cka_nb.core import versions, write_json
from cka_nb.experiments import SETTINGS, run_seed
from cka_nb.objective import ContrastiveAmalgamation

SEEDS = range(100, 104)
TEMPERATURES = (1, 1.5, 2, 3, 4, 6)
CONTRAST = ((0.1, 0.1, 0.2), (0.2, 0.2, 0.5))
TRIALS = {
    **{f"kd T={t:g}": partial(partial, joint_distillation, temperature=t) for t in TEMPERATURES},
    **{f"kd_task T={t:g}": partial(partial, task_distillation, temperature=t)
       for t in TEMPERATURES},
    **{f"kd_owned T={t:g}": partial(owned_distillation, temperature=t) for t in TEMPERATURES},
    **{f"cfl weight={w} T={t}": partial(CommonFeatureLearning, weight=w, temperature=t)
       for w in (1, 10) for t in (1, 2, 4)},
    **{f"cka intra={a} inter={b} alignment={g} T={t}": partial(
        ContrastiveAmalgamation, intra=a, inter=b, alignment=g, temperature=t)
       for a, b, g in CONTRAST for t in (1, 2, 4)},
    **{f"cfl_owned weight={w} T={t}": partial(CommonFeatureLearning, weight=w, temperature=t,
                                              owned=True)
       for w in (1, 10) for t in (1, 2, 4)},
    **{f"uhc T={t:g}": partial(partial, unified_distillation, temperature=t)
       for t in TEMPERATURES},
}


def main(out="results/digits_tuning.json"):
    per_seed = []
    for seed in SEEDS:
        rows = run_seed(SETTINGS["digits"], seed, TRIALS, judge="held_out", twin=False)
        per_seed.append({name: row["joint"] for name, row in rows.items()})
        print(seed, per_seed[-1], flush=True)
    trials = {
        name: {
            "mean": statistics.mean(s[name] for s in per_seed),
            "per_seed": [s[name] for s in per_seed],
        }
        for name in per_seed[0]
    }
    write_json(
        out,
        {
            "what": "joint accuracy on 200 held-out digits per seed; no test image",
            "command": "python tools/tune_digits.py",
            "seeds": list(SEEDS),
            "epochs": 30,
            "versions": versions(),
            "trials": trials,
        },
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

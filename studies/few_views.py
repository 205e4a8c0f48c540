"""Over how many looks at an image must teachers be asked?

usage: python studies/few_views.py

Every teacher is asked about every image of the heap in each view, so asking costs views times
teachers. The default's belief from 1 to 16 views, from the image as it is (logits and features;
what batch norms remember is of eight views), and from both, half each: right owner, right class,
the class's negative log-likelihood on the heap's own images. Means of three seeds that no result
uses; no test image is opened. Written to results/few_views.json after each setting.
"""

import statistics
import sys
import warnings
from pathlib import Path

import torch

from cka_nb.asking import ask_all
from cka_nb.classes import LabelSpace
from cka_nb.data import Unlabelled
from cka_nb.files import read_json, versions, write_json
from cka_nb.information import InformationOwnership
from cka_nb.settings import HEAP_SETTINGS, make_teachers

OUT, SEEDS, VIEWS = Path("results/few_views.json"), (100, 101, 102), (1, 2, 4, 8, 16)
SETTINGS = ("digits_taught", "digits_new", "digits_groupnorm_new", "digits_vit_new", "digits_50",
            "four_taught", "four_new", "four_brief", "four_groupnorm_new")


def judged(teachers, heap, said):
    "How right owners and classes are."
    space = LabelSpace(teachers)
    estimator = InformationOwnership(space)
    estimator.fit(*said)
    belief = estimator.posterior(*said).double()
    owner = torch.stack([belief[:, its].sum(1) for its in space.columns], 1).argmax(1)
    right = torch.tensor([space.classes.index(heap.classes[y]) for y in heap.labels.tolist()])
    knows = torch.tensor([[c in its for its in space.columns] for c in right.tolist()])
    at = torch.arange(len(right))
    return {"owner": knows[at, owner].double().mean().item(),
            "class": (belief.argmax(1) == right).double().mean().item(),
            "nll": -belief[at, right].clamp_min(1e-8).log().mean().item()}


def of_seed(name, seed):
    "what was asked -> what `judged` says"
    setting = HEAP_SETTINGS[name]
    split = setting.split(seed)
    teachers = make_teachers(setting, split.taught, seed, device="cpu")
    ask = lambda views: ask_all(teachers, Unlabelled(split.heap.images), "cpu", 64, views,
                                setting.augment)
    said = {f"{views} views": ask(views) for views in VIEWS}
    plain, (logits, features, traces) = ask(0), said["8 views"]
    half = lambda one, other: [(a + b) / 2 for a, b in zip(one, other)]
    said["as it is"] = (*plain[:2], traces)
    said["both, half each"] = (half(plain[0], logits), half(plain[1], features), traces)
    return {what: judged(teachers, split.heap, its) for what, its in said.items()}


def main():
    warnings.simplefilter("ignore")  # what is left out is not the question here
    rows = read_json(OUT)["rows"] if OUT.is_file() else {}
    for name in SETTINGS:
        if name not in rows:
            per_seed = [of_seed(name, seed) for seed in SEEDS]
            rows[name] = {v: {k: statistics.mean(s[v][k] for s in per_seed)
                              for k in per_seed[0][v]} for v in per_seed[0]}
            write_json(OUT, {"what": "the default's belief by what teachers are asked about",
                             "command": "python studies/few_views.py", "seeds": [*SEEDS],
                             "device": "cpu", "threads": torch.get_num_threads(),
                             "versions": versions(), "rows": rows})
        print(f"{name:24}{'owner':>20}{'class':>8}{'NLL':>8}")
        for what, its in rows[name].items():
            print(f"{'':24}{what:>16}{100 * its['owner']:8.1f}{100 * its['class']:8.1f}"
                  f"{its['nll']:8.3f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

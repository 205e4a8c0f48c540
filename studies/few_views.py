"""Over how many looks at an image must teachers be asked?

usage: python studies/few_views.py

Every teacher is asked about every image of the heap in each view, so asking costs views times
teachers. The default's belief from 1 to 16 views, from the image as it is (logits and features;
what batch norms remember is of eight views), and from both, half each: right owner, right class,
the class's negative log-likelihood on the heap's own images. Means of three seeds that no result
uses; no test image is opened. Written to results/few_views.json after each setting.
"""

import sys
import warnings
from pathlib import Path

import torch
from odd_heaps import rightness

from cka_nb.asking import ask_all
from cka_nb.classes import LabelSpace
from cka_nb.comparison import means_of
from cka_nb.data import Unlabelled
from cka_nb.files import read_json, versions, write_json
from cka_nb.information import InformationOwnership
from cka_nb.settings import HEAP_SETTINGS, make_teachers

OUT, SEEDS, VIEWS = Path("results/few_views.json"), (100, 101, 102), (1, 2, 4, 8, 16)
SETTINGS = ("digits_taught", "digits_new", "digits_groupnorm_new", "digits_vit_new", "digits_50",
            "four_taught", "four_new", "four_brief", "four_groupnorm_new")


def of_seed(name, seed):
    "what was asked -> what `rightness` says"
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
    judge = lambda its: rightness(teachers, InformationOwnership(LabelSpace(teachers)), its,
                                  split.heap.labels, split.heap.classes)
    return {what: judge(its) for what, its in said.items()}


def main():
    warnings.simplefilter("ignore")  # what is left out is not the question here
    rows = read_json(OUT)["rows"] if OUT.is_file() else {}
    for name in SETTINGS:
        if name not in rows:
            per_seed = [of_seed(name, seed) for seed in SEEDS]
            rows[name] = means_of(per_seed)
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

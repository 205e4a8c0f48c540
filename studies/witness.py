"""What does a witness add that nobody had to bring, and does a blind one do harm?

usage: python studies/witness.py [SETTING ...]

In every setting of another heap (but those of 32 pixels) the default's belief without a witness and
with each of four: a network made from the heap (`train_witness`), the same network with its random
weights, random numbers, and the first teacher's own features, which repeat what is known. Right
owner, right class and the class's negative log-likelihood on the heap's own images, and how much
the witness is heard. Seeds that no result uses; no test image is opened. Written to
results/witness.json after each setting.
"""

import sys
import warnings
from pathlib import Path

import torch
from odd_heaps import rightness

from cka_nb.asking import ask_all
from cka_nb.classes import LabelSpace
from cka_nb.comparison import means_of
from cka_nb.core import seeded
from cka_nb.data import Unlabelled, random_affine, uniform, view_of
from cka_nb.files import read_json, versions, write_json
from cka_nb.information import InformationOwnership
from cka_nb.models import SmallResNet
from cka_nb.settings import HEAP_SETTINGS, make_teachers
from cka_nb.teaching import train_witness
from cka_nb.witness import Witness, WitnessOwnership

OUT, SEEDS, VIEWS = Path("results/witness.json"), (100, 101), 8
STEPS = 360  # of the witness, about


def of_seed(name, seed):
    "witness -> what `rightness` says, and its weight"
    setting = HEAP_SETTINGS[name]
    split = setting.split(seed)
    heap = split.heap
    teachers = make_teachers(setting, split.taught, seed, device="cpu")
    said = ask_all(teachers, Unlabelled(heap.images), "cpu", 64, VIEWS, setting.augment)
    x, space = heap.images, LabelSpace(teachers)
    with seeded(seed):
        net = SmallResNet(1, x.shape[1])
    made = train_witness(net, x, epochs=max(1, STEPS // max(1, len(x) // 128)), seed=seed,
                         augment=setting.augment or random_affine, device="cpu")

    def seen(witness):  # mean over the views that teachers are asked about
        each, parts = torch.arange(len(x)), []
        for part in each.split(256):
            looks = [view_of(x[part], part, 0, -k, setting.augment)
                     for k in (range(1, 1 + VIEWS) if setting.augment else [0])]
            parts.append(torch.stack([witness(look) for look in looks]).mean(0))
        return torch.cat(parts)

    sights = {"from the heap": seen(made), "random weights": seen(Witness(net)),
              "random numbers": uniform(torch.arange(len(x)), seed, 0, 64),
              "first teacher": said[1][0]}
    judge = lambda estimator, its: rightness(teachers, estimator, its, heap.labels, heap.classes)
    rows = {"no witness": judge(InformationOwnership(space), said)}
    for what, its in sights.items():
        estimator = WitnessOwnership(space)
        rows[what] = judge(estimator, (*said, its)) | {"weight": float(estimator.state["weight"])}
    return rows


def main(names):
    warnings.simplefilter("ignore")  # what is left out is not the question here
    rows = read_json(OUT)["rows"] if OUT.is_file() else {}
    for name in names or [n for n in HEAP_SETTINGS if "_32_" not in n]:
        if name not in rows:
            rows[name] = means_of([of_seed(name, seed) for seed in SEEDS])
            write_json(OUT, {"what": "the default's belief with several witnesses",
                             "command": "python studies/witness.py", "seeds": [*SEEDS],
                             "device": "cpu", "threads": torch.get_num_threads(),
                             "versions": versions(), "rows": rows})
        print(f"{name:24}{'owner':>16}{'class':>8}{'NLL':>8}{'weight':>8}")
        for what, its in rows[name].items():
            print(f"{what:>24}{100 * its['owner']:16.1f}{100 * its['class']:8.1f}{its['nll']:8.3f}"
                  f"{its.get('weight', 0):8.3f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

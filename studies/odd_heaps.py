"""What do estimators say of heaps and teachers that no setting has?

usage: python studies/odd_heaps.py

Heaps of ten images, a teacher without images, rare and missing classes, classes that teachers
share, teachers of two classes or of all. Teachers learn from the first half of the training digits
(25 epochs); heaps are of the second. Nothing that is fitted sees a label, labels only judge, and no
test image is opened. Printed is right owner / right class / the class's negative log-likelihood,
means of three seeds, and written to results/odd_heaps.json.
"""

import statistics
import sys
import warnings
from functools import partial
from inspect import signature
from pathlib import Path

import torch

from cka_nb.asking import MeanAnswers
from cka_nb.classes import LabelSpace
from cka_nb.core import seeded
from cka_nb.data import TensorImages, Unlabelled, random_affine
from cka_nb.files import versions, write_json
from cka_nb.information import InformationOwnership
from cka_nb.labels import digits
from cka_nb.models import SmallResNet, SmallVGG
from cka_nb.moments import MomentOwnership
from cka_nb.ownership import ClassConditionalOwnership
from cka_nb.teaching import train_teacher

OUT, SEEDS = Path("results/odd_heaps.json"), (100, 101, 102)
ESTIMATORS = {"classes": ClassConditionalOwnership, "moments": MomentOwnership,
              "noisy moments": partial(MomentOwnership, noise=0.3, ridge=0.003),
              "information": InformationOwnership}
LOW_HIGH, PAIRS = ("01234", "56789"), ("01", "23", "45", "67", "89")
ALL = lambda y: torch.ones(len(y), dtype=torch.bool)
FIRST = lambda n: lambda y: torch.arange(len(y)) < n
SITUATIONS = { # the teachers' classes, the images of the heap by their labels
    "two teachers": (LOW_HIGH, ALL), **{f"... {n} images": (LOW_HIGH, FIRST(n))
                                        for n in (10, 20, 40, 80)},
    "... 5 to 9 one in ten": (LOW_HIGH, lambda y: (y < 5) | (torch.arange(len(y)) % 10 == 0)),
    "... only 0 to 4": (LOW_HIGH, lambda y: y < 5),
    "... only 0, 1 and 5": (LOW_HIGH, lambda y: (y < 2) | (y == 5)),
    "eight classes and two": (("01234567", "89"), ALL),
    "four classes shared": (("0123456", "3456789"), ALL),
    "all classes and three": (("0123456789", "789"), ALL),
    "the same classes twice": (("01234", "01234"), lambda y: y < 5),
    "five teachers of two": (PAIRS, ALL), "... 40 images of them": (PAIRS, FIRST(40))}


def rightness(teachers, estimator, said, labels, classes):
    "owner, class, nll of a belief fitted to mean answers; foreign images are fitted, not judged"
    space = LabelSpace(teachers)
    handed = said[:len(signature(estimator.fit).parameters)]
    estimator.fit(*handed)
    belief, owner = estimator.posterior(*handed).double(), estimator(*handed).argmax(1)
    known = torch.tensor([classes[y] in space.classes for y in labels.tolist()])
    belief, owner = belief[known], owner[known]
    right = torch.tensor([space.classes.index(classes[y]) for y in labels[known].tolist()])
    knows = torch.tensor([[c in its for its in space.columns] for c in right.tolist()])
    at = torch.arange(len(right))
    return {"owner": knows[at, owner].double().mean().item(),
            "class": (belief.argmax(1) == right).double().mean().item(),
            "nll": -belief[at, right].clamp_min(1e-8).log().mean().item()}


def judged(teachers, images, labels, classes, augment=random_affine):
    "estimator -> owner, class, nll of a heap"
    said = MeanAnswers(teachers, Unlabelled(images), views=8, augment=augment).fill().all_means()
    return {name: rightness(teachers, make(LabelSpace(teachers)), said, labels, classes)
            for name, make in ESTIMATORS.items()}


def of_seed(seed):
    "situation -> what `judged` says"
    train, taught = digits(seed=seed)[0], {}
    half = len(train) // 2
    learnt = TensorImages(train.images[:half], train.labels[:half], train.classes)
    heap, labels = train.images[half:], train.labels[half:]

    def teacher(place, classes):
        if (place, classes) not in taught:
            with seeded(seed + place):
                net = (SmallVGG if place else SmallResNet)(len(classes), in_channels=1)
            taught[place, classes] = train_teacher(net, learnt, list(classes), 25, device="cpu",
                                                   seed=seed + place)
        return taught[place, classes]
    for name, (label_sets, chosen) in SITUATIONS.items():
        teachers = [teacher(min(place, 1), classes) for place, classes in enumerate(label_sets)]
        some = chosen(labels)
        yield name, judged(teachers, heap[some], labels[some], train.classes)


def main():
    warnings.simplefilter("ignore")  # what is left out is not the question here
    rows = {}
    for seed in SEEDS:
        for name, its in of_seed(seed):
            rows.setdefault(name, []).append(its)
    mean = {name: {e: {k: statistics.mean(s[e][k] for s in per_seed) for k in per_seed[0][e]}
                   for e in ESTIMATORS} for name, per_seed in rows.items()}
    write_json(OUT, {"what": "right owners and classes of odd heaps; negative log-likelihood",
                     "command": "python studies/odd_heaps.py", "seeds": [*SEEDS], "device": "cpu",
                     "threads": torch.get_num_threads(), "versions": versions(), "rows": mean,
                     "per_seed": rows})
    print(" " * 24 + "".join(f"{e:>20}" for e in ESTIMATORS))
    for name, its in mean.items():
        print(f"{name:24}" + "".join(
            f"{100 * its[e]['owner']:9.1f}{100 * its[e]['class']:6.1f}{its[e]['nll']:5.2f}"
            for e in ESTIMATORS))
    return 0


if __name__ == "__main__":
    sys.exit(main())

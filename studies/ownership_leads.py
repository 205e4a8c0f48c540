"""Which ownership estimator finds owners where choices are made? Trials of its settings.

usage: python studies/ownership_leads.py [SETTING ...]   (default: the trial settings of digits)

Rows are the package's estimators, and `InformationOwnership` with other settings than its own, the
same for every trial setting. Nothing that is fitted sees a label. Printed is the share of own
images of the heap that get the right owner, and the class's mean negative log-likelihood; labels
only judge. No test image is opened. The teachers' answers are kept in runs/ownership_leads and used
again. The rows go to results/ownership_leads.json, where those of settings that were not asked for
stay.

Before these trials other forms were tried on the same images. Directions that are not whitened find
fewer owners of four teachers. Entropies of classes and of teachers with weights of their own need
two settings, one for digits beside natural images. A choice between the two by whether two halves
of the heap agree found more owners than the form that was kept, most in four_groupnorm_new (90 % of
them). It asks that teachers own equally many images whatever they know, which suits these label
sets of two and three classes; we know of no reason why it should suit others, and left it out.

Do two halves of the heap also tell whether these owners are better than the first belief? Mutual
information of the beliefs of two estimators, fitted to a half each, was compared in 15 runs. It
prefers the first belief in 11, whose class has the larger negative log-likelihood in 9 of these.
Between weights of 0, 1/2 and 1 for the teachers' shares it is within half a point of the best in
12. So it may choose between forms of one kind, and is no check against the first belief.
"""

import json
import statistics
import sys
import warnings
from functools import partial
from inspect import signature
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from cka_nb.asking import ask_all
from cka_nb.classes import LabelSpace
from cka_nb.data import Unlabelled
from cka_nb.files import versions, write_json
from cka_nb.information import InformationOwnership
from cka_nb.moments import MomentOwnership, known_by
from cka_nb.ownership import ClassConditionalOwnership, owners_of
from cka_nb.settings import TRIAL_SETTINGS, make_teachers

OUT, KEPT, SEEDS = Path("results/ownership_leads.json"), Path("runs/ownership_leads"), (100, 101)
DIGITS = [name for name, its in TRIAL_SETTINGS.items() if its.steps and "other" not in name]
TRIALS = [{}, *({"ridge": r} for r in (0.01, 0.1)), *({"balance": b} for b in (0.0, 1.0)),
          *({"trust": k} for k in (0.0, 0.25, 0.5, 1.0)), {"directions": 32}]
ROWS = {"classes": ClassConditionalOwnership, "moments": MomentOwnership,
        "noisy moments": partial(MomentOwnership, noise=0.3, ridge=0.003),
        **{" ".join(["information", *(f"{k} {v:g}" for k, v in its.items())]):
           partial(InformationOwnership, **its) for its in TRIALS}}


def beliefs(space, *said):
    "name -> (N, C); nothing here sees a label"
    for name, make in ROWS.items():
        estimator = make(space)
        handed = said[:len(signature(estimator.fit).parameters)]
        estimator.fit(*handed)
        yield name, estimator.posterior(*handed).double()


def answers(name, seed):
    "logits, features and traces of a trial's heap, its labels (-1: foreign), and the label space"
    setting, path = TRIAL_SETTINGS[name], KEPT / f"{name}-{seed}.safetensors"
    if not path.is_file():
        split = setting.split(seed)
        teachers = make_teachers(setting, split.taught, seed)
        asked = ask_all(teachers, Unlabelled(split.heap.images), "cpu", 256, 8, setting.augment,
                        seed)
        classes = LabelSpace(teachers).classes
        place = torch.tensor([classes.index(c) if c in classes else -1 for c in split.heap.classes])
        kinds = zip(("logits", "features", "traces"), asked)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"labels": place[split.heap.labels], **{
            f"{kind}{t}": x.contiguous() for kind, its in kinds for t, x in enumerate(its)}}, path)
    kept, count = load_file(path), len(setting.teachers)
    return [[kept[f"{kind}{t}"] for t in range(count)]
            for kind in ("logits", "features", "traces")], kept["labels"]


class _Taught:
    def __init__(self, name, classes):
        self.name, self.classes, self.named = name, classes, True


def one(name, seed):
    said, labels = answers(name, seed)
    space = LabelSpace([_Taught(t, its) for t, (_, its) in TRIAL_SETTINGS[name].teachers.items()])
    own, truth = labels >= 0, known_by(space.columns)[:, labels.clamp_min(0)].argmax(0)
    rows = {}
    for row, belief in beliefs(space, *said):
        owner = owners_of(belief, space.columns).argmax(1)
        rows[row] = {"owner": (owner == truth)[own].double().mean().item(),
                     "nll": -belief.clamp_min(1e-9).log()[own, labels[own]].mean().item()}
    return rows


def main(*names):
    kept = json.loads(OUT.read_text())["settings"] if OUT.is_file() else {}
    for name in names or DIGITS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            per_seed = [one(name, seed) for seed in SEEDS]
        kept[name] = {row: {k: statistics.mean(its[row][k] for its in per_seed)
                            for k in per_seed[0][row]} for row in per_seed[0]}
        print(f"{name:22}", *(f"{row} {100 * its['owner']:.1f} {its['nll']:.2f};"
                              for row, its in kept[name].items()), flush=True)
        write_json(OUT, {"what": "right owners on the heap; negative log-likelihood of the class",
                         "command": "python studies/ownership_leads.py", "seeds": list(SEEDS),
                         "versions": versions(), "settings": kept})


if __name__ == "__main__":
    main(*sys.argv[1:])

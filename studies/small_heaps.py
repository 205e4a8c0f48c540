"""What helps where there are few images: mixed images, more views, more steps?

usage: python studies/small_heaps.py

Heaps of 50 and 160 new digits of two teachers, and of 160 of four. `mixed`: each image of a batch
is laid over another one, weights between a half and one, and so are their beliefs and owners; `kd`
asks its teachers about the mixed image itself. `32 views`: over so many looks the belief is
averaged instead of eight. `3 x steps`: three times as many. Students are judged on held-out images,
which no other choice has seen from these seeds. Written to results/small_heaps.json after each seed
of a setting, from where a run goes on.
"""

import statistics
import sys
import warnings
from pathlib import Path

import torch
from torch import nn

import cka_nb as cka
from cka_nb.asking import ask_all
from cka_nb.baselines import OBJECTIVES
from cka_nb.data import Unlabelled
from cka_nb.files import read_json, versions, write_json
from cka_nb.settings import HEAP_SETTINGS, make_student, make_teachers

OUT, SEEDS = Path("results/small_heaps.json"), range(100, 103)
SETTINGS = ("digits_50", "digits_160", "four_160")
ROWS = {  # row -> objective, mixed, views of the belief, times the setting's steps
    "kd": ("kd", False, 8, 1), "kd, mixed": ("kd", True, 8, 1),
    "kd, 3 x steps": ("kd", False, 8, 3),
    "cka": ("cka", False, 8, 1), "cka, mixed": ("cka", True, 8, 1),
    "cka, 32 views": ("cka", False, 32, 1), "cka, 3 x steps": ("cka", False, 8, 3),
    "cka, mixed, 3 x steps": ("cka", True, 8, 3)}


class Known:
    "The belief that was found before: of all images, in their order."

    def __init__(self, space, posterior):
        self.columns, self.kept = space.columns, posterior

    def fit(self, logits, features):
        pass

    def posterior(self, logits, features):
        assert len(logits[0]) == len(self.kept)
        return self.kept

    def __call__(self, logits, features):
        return torch.stack([self.kept[:, its].sum(1) for its in self.columns], 1).clamp(0, 1)


class Mixed(nn.Module):
    "Views laid over each other, and an objective that hears of it."
    takes_posterior = True

    def __init__(self, objective, augment):
        super().__init__()
        self.objective, self.plain, self.how = objective, augment, None
        if hasattr(objective, "build"):
            self.build = objective.build

    def view(self, images, random):
        x, u = self.plain(images, random), random(2).to(images)
        weight, other = (1 + u[:, 0]) / 2, u[:, 1].argsort()
        self.how = weight[:, None], other
        weight = weight[:, None, None, None]
        return weight * x + (1 - weight) * x[other]

    def forward(self, student, teachers, ownership, space, posterior=None):
        weight, other = self.how
        mixed = lambda q: weight * q + (1 - weight) * q[other]
        more = {}
        if getattr(self.objective, "takes_posterior", False):
            more = {"posterior": mixed(posterior)}
        return self.objective(student, teachers, mixed(ownership), space, **more)


def of_seed(name, seed):
    "row -> accuracy on held-out images"
    setting = HEAP_SETTINGS[name]
    split = setting.split(seed)
    teachers = make_teachers(setting, split.taught, seed, device="cpu")
    space, beliefs = cka.LabelSpace(teachers), {}
    for views in (8, 32):
        said = ask_all(teachers, Unlabelled(split.heap.images), "cpu", 64, views, setting.augment)
        estimator = cka.InformationOwnership(space)
        estimator.fit(*said)
        beliefs[views] = estimator.posterior(*said)
    found = {"concatenated": cka.evaluate(teachers, split.held_out, device="cpu")["joint"]}
    for row, (what, mix, views, times) in ROWS.items():
        objective, augment = OBJECTIVES[what](), setting.augment
        if mix:
            objective = Mixed(objective, augment)
            augment = objective.view
        student = make_student(setting, space, split.heap.images, seed)
        cka.amalgamate(teachers, student, split.heap.images, objective, views=1, device="cpu",
                       seed=seed, batch_size=min(setting.batch_size, len(split.heap)),
                       augment=augment, ownership=Known(space, beliefs[views]),
                       epochs=times * setting.epochs_for(len(split.heap)))
        found[row] = cka.evaluate(student, split.held_out, device="cpu")["joint"]
    return found


def main():
    warnings.simplefilter("ignore")  # what is left out is not the question here
    done = read_json(OUT)["per_seed"] if OUT.is_file() else {}
    for name in SETTINGS:
        its = done.setdefault(name, {})
        for seed in SEEDS:
            if str(seed) in its:
                continue
            its[str(seed)] = of_seed(name, seed)
            write_json(OUT, {
                "what": "accuracy on held-out images of students from few images",
                "command": "python studies/small_heaps.py", "device": "cpu",
                "threads": torch.get_num_threads(), "versions": versions(), "rows": {
                    k: {row: statistics.mean(s[row] for s in v.values()) for row in its[str(seed)]}
                    for k, v in done.items()}, "per_seed": done})
    for name, rows in read_json(OUT)["rows"].items():
        print(f"{name}, {len(done[name])} seeds")
        for row, joint in rows.items():
            print(f"  {row:24}{100 * joint:6.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

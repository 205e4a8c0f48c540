"""Methods against wrong labels, given our belief as labels: results/noisy_labels.json.

usage: python tools/noisy_labels.py [SEED ...]     (default: all; goes on where it stopped)

The setting of the natural trials (tools/tune.py), judged on its held-out images; no test image. All
students start from the same weights and see the same images in the same order.
"""

import json
import statistics
import sys
from pathlib import Path

import torch
from torch import nn
from tune import FAMILIES

from cka_nb.asking import ask_all
from cka_nb.core import seeded, versions, write_json
from cka_nb.data import Unlabelled, random_crop_flip, uniform, view_of
from cka_nb.evaluation import answers_of, scores
from cka_nb.experiments import make_student, make_teachers
from cka_nb.ownership import MomentOwnership, balancing
from cka_nb.soft_targets import concatenated, mixture
from cka_nb.teachers import LabelSpace
from cka_nb.loop import engine_for, fit

SETTING, _, SEEDS = FAMILIES["natural"]
LR, WEIGHT_DECAY = 2e-3, 1e-2  # as amalgamate's


def cross_entropy(logits, target):
    return -(target * logits.log_softmax(1)).sum(1)


class Plain:
    "The belief as a soft target, of temperature 1."

    def __init__(self, belief, students, steps):
        self.belief, self.students, self.steps = belief, students, steps

    def __call__(self, view, index, step):
        return {"joint": cross_entropy(self.students[0](view(index)).logits,
                                       self.belief[index]).mean()}


class Hard(Plain):
    "Its most probable class as a label."

    def __init__(self, belief, students, steps):
        super().__init__(torch.eye(belief.shape[1])[belief.argmax(1)], students, steps)


class EarlyLearning(Plain):
    "Early-learning regularisation (Liu et al., 2020), weight 3, averages of momentum 0.7."

    def __init__(self, belief, students, steps):
        super().__init__(belief, students, steps)
        self.average = torch.full_like(belief, 1 / belief.shape[1])

    def __call__(self, view, index, step):
        logits = self.students[0](view(index)).logits
        said = logits.softmax(1).clamp(1e-4, 1 - 1e-4)
        self.average[index] = 0.7 * self.average[index] + 0.3 * said.detach()
        agree = (said * self.average[index]).sum(1).clamp(max=1 - 1e-4)
        return {"joint": cross_entropy(logits, self.belief[index]).mean(),
                "early": 3 * (1 - agree).log().mean()}


class Mixup(Plain):
    "Mixup (Zhang et al., 2018): images and beliefs mixed in pairs, shares from Beta(0.4, 0.4)."

    def __call__(self, view, index, step):
        with seeded(step):
            share = torch.distributions.Beta(0.4, 0.4).sample((len(index), 1))
            other = torch.randperm(len(index))
        x, q, part = view(index), self.belief[index], share[:, :, None, None]
        logits = self.students[0](part * x + (1 - part) * x[other]).logits
        return {"joint": cross_entropy(logits, share * q + (1 - share) * q[other]).mean()}


class CoTeaching(Plain):
    """Co-teaching (Han et al., 2018): two students, each learns from the images whose hard label
    costs the other least; the share left out grows over half of training to the belief's doubt."""

    def __init__(self, belief, students, steps):
        super().__init__(torch.eye(belief.shape[1])[belief.argmax(1)], students, steps)
        self.doubt = 1 - belief.amax(1).mean().item()

    def __call__(self, view, index, step):
        x = view(index)
        losses = [cross_entropy(s(x).logits, self.belief[index]) for s in self.students]
        kept = round(len(index) * (1 - self.doubt * min(1, 2 * step / self.steps)))
        small = [loss.detach().argsort()[:kept] for loss in losses]
        return {"first": losses[0][small[1]].mean(), "second": losses[1][small[0]].mean()}


class Consistency(Plain):
    "The belief, made from weak views, as the target of a strong one (after Sohn et al., 2020)."

    def __call__(self, view, index, step):
        x = view(index)
        u = uniform(index, 1, step, 5)[:, :, None, None]
        x = (x - 0.5) * (0.5 + u[:, :1]) + 0.5 + 0.4 * (u[:, 1:2] - 0.5)  # contrast, brightness
        side = x.shape[2]
        at = (u[:, 2:4] * side).long()
        rows, columns = torch.arange(side)[:, None], torch.arange(side)[None]
        hole = ((rows - at[:, :1]).abs() < side / 6) & ((columns - at[:, 1:]).abs() < side / 6)
        x = torch.where(hole, torch.full_like(x, 0.5), x).clamp(0, 1)
        return {"joint": cross_entropy(self.students[0](x).logits, self.belief[index]).mean()}


class SelfTraining(Plain):
    "From 40 % of training on, the belief times the student's averaged own, balanced as before."

    def __init__(self, belief, students, steps):
        super().__init__(belief.clone(), students, steps)
        self.start, self.average = belief, torch.full_like(belief, 1 / belief.shape[1])
        self.every = len(belief) // SETTING.batch_size

    def __call__(self, view, index, step):
        logits = self.students[0](view(index)).logits
        self.average[index] = 0.7 * self.average[index] + 0.3 * logits.detach().softmax(1)
        if step > 0.4 * self.steps and step % self.every == 0:
            score = self.start.clamp_min(1e-6).log() + self.average.clamp_min(1e-4).log()
            self.belief = (score + balancing(score, 0.5)).softmax(1)
        return {"joint": cross_entropy(logits, self.belief[index]).mean()}


class Concatenation(Plain):
    "One softmax over the teachers' averaged logits as target, instead of our belief."


class PoorSelfTraining(SelfTraining):
    "Self-training that starts from the concatenation."


class OwnerKnown(Plain):
    "A bound: labels say who owns an image, and only the owner is asked."


class Labels(Hard):
    "The upper reference: labels."


METHODS = {"belief": Plain, "its argmax": Hard, "early-learning regularisation": EarlyLearning,
           "mixup": Mixup, "co-teaching": CoTeaching, "strong views": Consistency,
           "self-training": SelfTraining, "concatenation": Concatenation,
           "concatenation, self-training": PoorSelfTraining, "owner known": OwnerKnown,
           "labels": Labels}


def one_seed(seed, path):
    rows = json.loads(path.read_text()) if path.is_file() else {}
    if rows.keys() >= METHODS.keys():
        return rows
    train, held_out, _ = SETTING.data(seed)
    teachers = make_teachers(SETTING, train, seed)
    space, images = LabelSpace(teachers), Unlabelled(train.images)
    place = torch.tensor([space.classes.index(c) for c in train.classes])
    answers = logits, *_ = ask_all(teachers, images, "cpu", 64, 8, SETTING.augment, seed)
    ownership = MomentOwnership(space)
    ownership.fit(*answers)
    beliefs = {"labels": torch.eye(len(place))[place[train.labels]],
               "concatenation": concatenated(logits, space.columns)}
    beliefs["concatenation, self-training"] = beliefs["concatenation"]
    knows = torch.zeros(len(teachers), len(place))
    for row, columns in zip(knows, space.columns):
        row[columns] = 1
    known = mixture(logits, knows[:, place[train.labels]].T, space.columns)
    beliefs["owner known"] = known / known.sum(1, keepdim=True)
    steps = SETTING.epochs * (len(train) // SETTING.batch_size)
    for name, method in METHODS.items():
        if name in rows:
            continue
        students = [make_student(SETTING, space, train.images, s).train()
                    for s in ((seed, seed + 1) if name == "co-teaching" else (seed,))]
        belief = beliefs.get(name, ownership.posterior(*answers))
        learn = method(belief, students, steps)

        def parts(prepared, x, index, whole, step, epoch, learn=learn):
            show = lambda i: view_of(images.batch(i), i, seed, step, random_crop_flip)
            return learn(show, index, step), {}

        with seeded(seed):
            fit(engine_for("cpu", "no"), nn.ModuleList(students), parts, images, seed,
                SETTING.epochs, SETTING.batch_size, LR, WEIGHT_DECAY, name)
        held, seen = (scores(answers_of(students[0].eval(), d)) for d in (held_out, train))
        right = (belief.argmax(1) == place[train.labels]).float().mean().item()
        rows[name] = {"held_out": held["joint"], "training_images": seen["joint"],
                      "owner": held["owner"], "ece": held["ece"], "target_right": right}
        write_json(path, rows)
        print(seed, name, rows[name], flush=True)
    return rows


def main(*seeds):
    paths = {seed: Path(f"runs/noisy_labels/{seed}.json") for seed in SEEDS}
    for seed in map(int, seeds or SEEDS):
        one_seed(seed, paths[seed])
    if not all(path.is_file() for path in paths.values()):
        return
    per_seed = [json.loads(path.read_text()) for path in paths.values()]
    if not all(rows.keys() >= METHODS.keys() for rows in per_seed):
        return
    write_json("results/noisy_labels.json", {
        "what": "methods against wrong labels, given our belief as labels; joint accuracy on "
                "held-out images, and on training images, whose labels no student saw",
        "about": SETTING.about, "epochs": SETTING.epochs, "seeds": list(SEEDS), "device": "cpu",
        "command": "python tools/noisy_labels.py", "versions": versions(),
        "rows": [{"name": name, "what": " ".join((method.__doc__ or "").split()),
                  **{k: statistics.mean(rows[name][k] for rows in per_seed)
                     for k in per_seed[0][name]}} for name, method in METHODS.items()],
        "per_seed": {name: [rows[name] for rows in per_seed] for name in METHODS}})


if __name__ == "__main__":
    main(*sys.argv[1:])

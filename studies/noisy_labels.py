"""Methods against wrong labels, given our belief as labels: results/noisy_labels.json.

usage: python studies/noisy_labels.py [SEED ...]     (default: 100 101; goes on where it stopped)

The setting of the natural trials, judged on its held-out images; no test image. All students start
from the same weights and see the same images in the same order, by the recipe of `amalgamate`.
"""

import json
import statistics
import sys
from pathlib import Path

import torch

from cka_nb.asking import ask_all
from cka_nb.classes import LabelSpace
from cka_nb.core import seeded
from cka_nb.data import Unlabelled, epoch_order, random_crop_flip, uniform, view_of
from cka_nb.evaluation import answers_of, scores
from cka_nb.files import versions, write_json
from cka_nb.information import InformationOwnership
from cka_nb.loop import one_cycle
from cka_nb.ownership import balancing
from cka_nb.settings import TRIAL_SETTINGS, make_student, make_teachers
from cka_nb.soft_targets import concatenated, mixture

SETTING, SEEDS = TRIAL_SETTINGS["natural"], range(100, 102)


def cross_entropy(logits, target):
    return -(target * logits.log_softmax(1)).sum(1)


class Plain:
    "The belief as a soft target, of temperature 1."

    def __init__(self, belief, students, steps):
        self.belief, self.students, self.steps = belief, students, steps
        self.average = torch.full_like(belief, 1 / belief.shape[1])

    def ask(self, x):
        return self.students[0](x).logits

    def remember(self, index, said):
        self.average[index] = 0.7 * self.average[index] + 0.3 * said.detach()

    def __call__(self, x, index, step):
        return cross_entropy(self.ask(x), self.belief[index]).mean()


class Hard(Plain):
    "Its most probable class as a label."

    def __init__(self, belief, students, steps):
        super().__init__(torch.eye(belief.shape[1])[belief.argmax(1)], students, steps)


class EarlyLearning(Plain):
    "Early-learning regularisation (Liu et al., 2020), weight 3, averages of momentum 0.7."

    def __call__(self, x, index, step):
        logits = self.ask(x)
        said = logits.softmax(1).clamp(1e-4, 1 - 1e-4)
        self.remember(index, said)
        agree = (said * self.average[index]).sum(1).clamp(max=1 - 1e-4)
        return cross_entropy(logits, self.belief[index]).mean() + 3 * (1 - agree).log().mean()


class Mixup(Plain):
    "Mixup (Zhang et al., 2018): images and beliefs mixed in pairs, shares from Beta(0.4, 0.4)."

    def __call__(self, x, index, step):
        with seeded(step):
            share = torch.distributions.Beta(0.4, 0.4).sample((len(index), 1))
            other = torch.randperm(len(index))
        q, part = self.belief[index], share[:, :, None, None]
        logits = self.ask(part * x + (1 - part) * x[other])
        return cross_entropy(logits, share * q + (1 - share) * q[other]).mean()


class CoTeaching(Hard):
    """Co-teaching (Han et al., 2018): two students, each learns from the images whose hard label
    costs the other least; the share left out grows over half of training to the belief's doubt."""

    def __init__(self, belief, students, steps):
        super().__init__(belief, students, steps)
        self.doubt = 1 - belief.amax(1).mean().item()

    def __call__(self, x, index, step):
        losses = [cross_entropy(s(x).logits, self.belief[index]) for s in self.students]
        kept = round(len(index) * (1 - self.doubt * min(1, 2 * step / self.steps)))
        small = [loss.detach().argsort()[:kept] for loss in losses]
        return losses[0][small[1]].mean() + losses[1][small[0]].mean()


class Consistency(Plain):
    "The belief, made from weak views, as the target of a strong one (after Sohn et al., 2020)."

    def __call__(self, x, index, step):
        u = uniform(index, 1, step, 5)[:, :, None, None]
        x = (x - 0.5) * (0.5 + u[:, :1]) + 0.5 + 0.4 * (u[:, 1:2] - 0.5)  # contrast, brightness
        rows, at = torch.arange(x.shape[2]), (u[:, 2:4] * x.shape[2]).long()
        near = [(place - at[:, k:k + 1]).abs() < x.shape[2] / 6
                for k, place in enumerate((rows[:, None], rows[None]))]
        x = torch.where(near[0] & near[1], torch.full_like(x, 0.5), x).clamp(0, 1)
        return super().__call__(x, index, step)


class SelfTraining(Plain):
    "From 40 % of training on, the belief times the student's averaged own, balanced as before."

    def __call__(self, x, index, step):
        if step == 0:
            self.start = self.belief
        logits = self.ask(x)
        self.remember(index, logits.softmax(1))
        if step > 0.4 * self.steps and step % (len(self.belief) // SETTING.batch_size) == 0:
            score = self.start.clamp_min(1e-6).log() + self.average.clamp_min(1e-4).log()
            self.belief = (score + balancing(score, 0.5)).softmax(1)
        return cross_entropy(logits, self.belief[index]).mean()


METHODS = {  # row -> method, and what it is given where that is not our belief
    "belief": (Plain, ""), "its argmax": (Hard, ""),
    "early-learning regularisation": (EarlyLearning, ""), "mixup": (Mixup, ""),
    "co-teaching": (CoTeaching, ""), "strong views": (Consistency, ""),
    "self-training": (SelfTraining, ""),
    "concatenation": (Plain, "One softmax over the teachers' averaged logits as target."),
    "concatenation, self-training": (SelfTraining, "Self-training from the concatenation."),
    "owner known": (Plain, "A bound: labels say who owns an image; only the owner is asked."),
    "labels": (Hard, "The upper reference: labels.")}


def beliefs_of(teachers, space, train, seed):
    "The target of each method, and the true classes."
    place = torch.tensor([space.classes.index(c) for c in train.classes])[train.labels]
    answers = logits, *_ = ask_all(teachers, Unlabelled(train.images), "cpu", 64, 8,
                                   SETTING.augment, seed)
    ownership = InformationOwnership(space)
    ownership.fit(*answers)
    knows = torch.zeros(len(teachers), len(space.classes))
    for row, columns in zip(knows, space.columns):
        row[columns] = 1
    known = mixture(logits, knows[:, place].T, space.columns)
    whole = concatenated(logits, space.columns)
    others = {"labels": torch.eye(len(space.classes))[place], "concatenation": whole,
              "concatenation, self-training": whole,
              "owner known": known / known.sum(1, keepdim=True)}
    return dict.fromkeys(METHODS, ownership.posterior(*answers)) | others, place


def learn(method, belief, students, images, seed):
    "Train the students in place."
    per_epoch = len(images) // SETTING.batch_size
    steps = per_epoch * SETTING.epochs
    loss_of = method(belief, students, steps)
    weights = [p for s in students for p in s.train().parameters()]
    optimiser = torch.optim.AdamW(weights, lr=2e-3, weight_decay=1e-2, fused=True)
    for step in range(steps):
        epoch, k = divmod(step, per_epoch)
        order = epoch_order(len(images), seed, epoch)
        index = order[k * SETTING.batch_size:][:SETTING.batch_size]
        optimiser.param_groups[0]["lr"] = 2e-3 * one_cycle(step, steps)
        optimiser.zero_grad()
        x = view_of(images.batch(index), index, seed, step, random_crop_flip)
        loss_of(x, index, step).backward()
        optimiser.step()


def one_seed(seed, path):
    rows = json.loads(path.read_text()) if path.is_file() else {}
    if rows.keys() >= METHODS.keys():
        return
    train, held_out, _ = SETTING.data(seed)
    teachers = make_teachers(SETTING, train, seed, device="cpu")
    space = LabelSpace(teachers)
    beliefs, place = beliefs_of(teachers, space, train, seed)
    for name in [name for name in METHODS if name not in rows]:
        students = [make_student(SETTING, space, train.images, s)
                    for s in ((seed, seed + 1) if name == "co-teaching" else (seed,))]
        learn(METHODS[name][0], beliefs[name], students, Unlabelled(train.images), seed)
        held, seen = (scores(answers_of(students[0].eval(), d)) for d in (held_out, train))
        right = (beliefs[name].argmax(1) == place).float().mean().item()
        rows[name] = {"held_out": held["joint"], "training_images": seen["joint"],
                      "owner": held["owner"], "ece": held["ece"], "target_right": right}
        write_json(path, rows)
        print(seed, name, rows[name], flush=True)


def main(*seeds):
    paths = [Path(f"runs/noisy_labels/{seed}.json") for seed in SEEDS]
    for seed in map(int, seeds or SEEDS):
        one_seed(seed, Path(f"runs/noisy_labels/{seed}.json"))
    per_seed = [json.loads(path.read_text()) for path in paths if path.is_file()]
    if len(per_seed) < len(SEEDS) or not all(rows.keys() >= METHODS.keys() for rows in per_seed):
        return
    what = lambda name: METHODS[name][1] or " ".join(METHODS[name][0].__doc__.split())
    write_json("results/noisy_labels.json", {
        "what": "methods against wrong labels, given our belief as labels; joint accuracy on "
                "held-out images, and on training images, whose labels no student saw",
        "about": SETTING.about, "epochs": SETTING.epochs, "seeds": list(SEEDS), "device": "cpu",
        "command": "python studies/noisy_labels.py", "versions": versions(),
        "rows": [{"name": name, "what": what(name), **{
            k: statistics.mean(rows[name][k] for rows in per_seed) for k in per_seed[0][name]}}
                 for name in METHODS],
        "per_seed": {name: [rows[name] for rows in per_seed] for name in METHODS}})


if __name__ == "__main__":
    main(*sys.argv[1:])

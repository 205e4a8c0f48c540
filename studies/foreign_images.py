"""Who sees that an image shows nothing that a teacher knows?

usage: python studies/foreign_images.py

Three in ten images of the heap are foreign: of other classes of the same data set (near) or of
another one (far). Four settings; the students are kd, cka, cka in an open world, and the twin that
was trained with the labels of the heap's own images. Printed is the AUROC of own against foreign
images, for test images by what a model says of each, for the heap by the belief, and the students'
joint accuracy on own test images; means over seeds, written to results/foreign_images.json after
each seed of a setting, from where a run goes on.
"""

import sys
import warnings
from pathlib import Path

import torch
from sklearn.metrics import roc_auc_score

import cka_nb as cka
from cka_nb.asking import MeanAnswers
from cka_nb.baselines import NATURAL_OBJECTIVES, OBJECTIVES
from cka_nb.comparison import means_of
from cka_nb.data import TensorImages, Unlabelled
from cka_nb.files import read_json, versions, write_json
from cka_nb.images import as_float
from cka_nb.scores import energy
from cka_nb.settings import HEAP_SETTINGS, make_student, make_teachers
from cka_nb.soft_targets import concatenated
from cka_nb.splits import with_foreign
from cka_nb.teaching import train_teacher

OUT = Path("results/foreign_images.json")
SETTINGS = ("seven_near", "seven_far", "seven_natural_near", "seven_natural_far")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def auroc(score, own):
    return float(roc_auc_score(own.numpy(), score.detach().double().cpu().numpy()))


def parts_of(setting, seed):
    "The split, and test images of which three in ten are foreign."
    split, foreign = setting.split(seed), setting.heap["foreign"]
    if foreign == "near":
        test = setting.data(seed)[2]
        its = [c not in split.test.classes for c in test.classes]
        others = test.images[torch.tensor(its)[test.labels]]
    else:
        others = foreign(seed)[2].images
    most = int(len(others) * 7 / 3)  # own images, of which there may be too many
    own = TensorImages(split.test.images[:most], split.test.labels[:most],
                                split.test.classes)
    return split, with_foreign(own, others, seed=seed)


def said_of(model, images):
    with torch.no_grad():
        said = [model(x) for x in images.to(DEVICE).split(256)]
    return tuple(torch.cat([getattr(s, k).float() for s in said])
                 for k in ("logits", "features"))


def nearest(features, heap_features, heap_classes):
    "The cosine to the nearest class mean of the heap."
    unit = torch.nn.functional.normalize
    centre = features.new_tensor(heap_features.mean(0).tolist())
    means = torch.stack([unit(heap_features - centre).T @ one for one in heap_classes.softmax(1).T])
    return (unit(features - centre) @ unit(means).T).amax(1)


def teachers_say(teachers, heap, heap_own, views, augment, test, test_own):
    space, found = cka.LabelSpace(teachers), {}
    said = MeanAnswers(teachers, Unlabelled(heap), views=views, augment=augment,
                       device=torch.device(DEVICE)).fill().all_means()
    loudest = lambda logits: torch.stack([energy(l) for l in logits]).amax(0)
    inner = cka.InformationOwnership(space)
    around = cka.OpenWorldOwnership(space, inner)
    around.fit(*said)
    found["heap"] = {"P(known)": auroc(around.known(*said), heap_own),
                     "belief": auroc(inner.posterior(*said).amax(1), heap_own),
                     "concatenation": auroc(concatenated(said[0], space.columns).amax(1), heap_own),
                     "energy": auroc(loudest(said[0]), heap_own)}
    logits = [said_of(t, test)[0].cpu() for t in teachers]
    found["concatenated"] = {
        "largest": auroc(concatenated(logits, space.columns).amax(1), test_own),
        "energy": auroc(loudest(logits), test_own)}
    return found


def student_says(student, heap, test, test_own, labels):
    student.to(DEVICE).eval()
    logits, features = said_of(student, test)
    heap_logits, heap_features = said_of(student, heap)
    right = logits.argmax(1).cpu()[test_own] == labels[test_own]
    return {"largest": auroc(logits.softmax(1).amax(1), test_own),
            "energy": auroc(energy(logits), test_own),
            "space": auroc(nearest(features, heap_features, heap_logits), test_own),
            "joint": right.double().mean().item()}


def of_seed(name, seed):
    "What is asked -> AUROC, and the students' accuracy."
    setting = HEAP_SETTINGS[name]
    split, test = parts_of(setting, seed)
    makes = NATURAL_OBJECTIVES if "natural" in name else OBJECTIVES
    teachers = make_teachers(setting, split.taught, seed, device=DEVICE)
    heap, space = split.heap, cka.LabelSpace(teachers)
    heap_own, test_own = (d.labels < len(space.classes) for d in (heap, test))
    x, t = (as_float(d.images) for d in (heap, test))
    found = teachers_say(teachers, x, heap_own, 8, setting.augment, t, test_own)
    options = dict(seed=seed, batch_size=setting.batch_size, device=DEVICE,
                   augment=setting.augment)
    for row, make, more in (("kd", makes["kd"], dict(views=0)), ("cka", makes["cka"], {}),
                            ("cka, open world", makes["cka"], dict(open_world=True))):
        student = make_student(setting, space, heap.images, seed)
        cka.amalgamate(teachers, student, heap.images, make(), **options | more,
                       epochs=setting.epochs_for(len(heap)))
        found[row] = student_says(student, x, t, test_own, test.labels)
    own = TensorImages(heap.images[heap_own], heap.labels[heap_own], space.classes)
    student = make_student(setting, space, heap.images, seed)
    twin = train_teacher(student, own, student.classes, epochs=setting.epochs_for(len(own)),
                         **options)
    student.load_state_dict(twin.model.state_dict())
    found["labels"] = student_says(student, x[heap_own], t, test_own, test.labels)
    return found


def main():
    warnings.simplefilter("ignore")  # what is left out is not the question here
    done = read_json(OUT)["per_seed"] if OUT.is_file() else {}
    for name in SETTINGS:
        for seed in range(HEAP_SETTINGS[name].seeds):
            its = done.setdefault(name, {})
            if str(seed) in its:
                continue
            its[str(seed)] = of_seed(name, seed)
            write_json(OUT, {
                "what": "AUROC of own against foreign images; accuracy on own test images",
                "command": "python studies/foreign_images.py", "device": DEVICE,
                "threads": torch.get_num_threads(), "versions": versions(),
                "settings": {k: means_of([*v.values()]) for k, v in done.items()},
                "per_seed": done})
            print(name, seed, its[str(seed)], flush=True)
    for name, its in read_json(OUT)["settings"].items():
        print(f"{name}, {len(done[name])} seeds")
        for row, of in its.items():
            print(f"  {row:16}" + "".join(f"{k:>16} {v:.3f}" for k, v in of.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())

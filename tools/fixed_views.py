"""What K fixed views of each image cost against fresh ones: results/fixed_views.json.

usage: python tools/fixed_views.py

Students of the settings `digits` and `digits_four`, cached answers about K = 1, 4 and 16 views
against a fresh view at every step, the same teachers, five seeds; accuracy over all classes on
test images that were used for no choice, and the seconds of the run, asking included.
"""

import tempfile

import torch

from cka_nb.core import versions, write_json
from cka_nb.evaluation import evaluate
from cka_nb.experiments import SETTINGS, make_student, make_teachers, spread
from cka_nb.teachers import LabelSpace
from cka_nb.training import amalgamate

KINDS = {"fresh": 0, "1": 1, "4": 4, "16": 16}


def run(setting, teachers, data, seed, views):
    student = make_student(setting, LabelSpace(teachers), data[0].images, seed)
    with tempfile.TemporaryDirectory() as folder:
        history = amalgamate(teachers, student, data[0].images, epochs=setting.epochs,
                             batch_size=setting.batch_size, augment=setting.augment, seed=seed,
                             device="cpu", fixed_views=views, cache=folder if views else None)
    return {"joint": evaluate(student, data[2])["joint"],
            "held_out": evaluate(student, data[1])["joint"], "seconds": history[-1]["seconds"]}


def main():
    result = {"what": "joint accuracy on test images with K fixed views of each image",
              "command": "python tools/fixed_views.py", "seeds": list(range(5)), "device": "cpu",
              "threads": torch.get_num_threads(), "versions": versions(), "settings": {}}
    for name in ("digits", "digits_four"):
        setting, rows = SETTINGS[name], {kind: [] for kind in KINDS}
        for seed in result["seeds"]:
            data = setting.data(seed)
            teachers = make_teachers(setting, data[0], seed)
            for kind, views in KINDS.items():
                rows[kind].append(run(setting, teachers, data, seed, views))
                print(name, seed, kind, rows[kind][-1], flush=True)
        result["settings"][name] = {
            "epochs": setting.epochs,
            "rows": {kind: {k: spread([r[k] for r in its]) for k in its[0]}
                     for kind, its in rows.items()}}
    write_json("results/fixed_views.json", result)


if __name__ == "__main__":
    main()

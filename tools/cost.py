"""What one student costs against the teachers it replaces: results/cost.json.

usage: python tools/cost.py

Parameters; multiply-adds of one image, counted by torch; milliseconds for 1 and for 64 images on
this machine's CPU, one thread, medians of alternating repetitions. Weights do not matter here.
"""

import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from cka_nb.core import versions, write_json
from cka_nb.experiments import NATURAL_SETTINGS, SETTINGS, make_student
from cka_nb.models import build_backbone
from cka_nb.teachers import LabelSpace, Teacher

SHAPES = {**{name: (1, 8, 8) for name in SETTINGS}, **{n: (3, 16, 16) for n in NATURAL_SETTINGS}}


def ask(models, x):
    with torch.no_grad():
        return [m(x) for m in models]


def flops(models, shape):
    ask(models, torch.rand(1, *shape))  # the first call also finds a teacher's features
    with FlopCounterMode(display=False) as counted:
        ask(models, torch.rand(1, *shape))
    return counted.get_total_flops()


def milliseconds(rivals, shape, batch, repetitions=40):
    x, times = torch.rand(batch, *shape), {name: [] for name in rivals}
    for k in range(repetitions + 3):
        for name, models in rivals.items():
            start = time.perf_counter()
            ask(models, x)
            if k >= 3:
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(t) for name, t in times.items()}


def main():
    torch.set_num_threads(1)
    found = {}
    for name, setting in (SETTINGS | NATURAL_SETTINGS).items():
        shape = SHAPES[name]
        teachers = [
            Teacher(build_backbone(backbone, len(classes), shape[0], width=setting.teacher_width),
                    classes, t) for t, (backbone, classes) in setting.teachers.items()]
        student = make_student(setting, LabelSpace(teachers), torch.rand(1, *shape), 0).eval()
        rivals = {"teachers": teachers, "student": [student]}
        found[name] = {who: {
            "models": len(models), "flops": flops(models, shape),
            "parameters": sum(p.numel() for m in models for p in m.parameters())}
            for who, models in rivals.items()}
        for batch in (1, 64):
            for who, ms in milliseconds(rivals, shape, batch).items():
                found[name][who][f"milliseconds_{batch}"] = ms
        print(name, found[name], flush=True)
    write_json("results/cost.json", {
        "what": "all teachers of a setting, asked one after another, and its student",
        "command": "python tools/cost.py", "device": "cpu, one thread", "versions": versions(),
        "settings": found})


if __name__ == "__main__":
    main()

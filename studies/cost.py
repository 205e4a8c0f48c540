"""What one student costs against the teachers it replaces: results/cost.json.

usage: python studies/cost.py

Parameters; multiply-adds of one image, counted by torch; milliseconds for 1 and for 64 images on
this machine's CPU, one thread, medians of alternating repetitions; and the memory that a fresh
process needs above its imports to hold the networks and answer 64 images, at its highest. Weights
do not matter here. Besides our settings, ResNets of a size that is in use.
"""

import multiprocessing
import re
import statistics
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from torch.utils.flop_counter import FlopCounterMode

from cka_nb.classes import LabelSpace
from cka_nb.files import versions, write_json
from cka_nb.models import build_backbone
from cka_nb.settings import NATURAL_SETTINGS, SETTINGS, make_student
from cka_nb.student import Student
from cka_nb.teachers import Teacher

RESNETS = {f"resnets_{count}": SimpleNamespace(teacher_width=16, teachers={
    f"{name}:{t}": (name, [f"{t}:{c}" for c in range(25)])
    for t, name in zip(range(count), ["resnet18", "resnet34"] * 2)}) for count in (2, 4)}
SHAPES = {**dict.fromkeys(RESNETS, (3, 224, 224)),
          **{name: (1, 8, 8) for name in SETTINGS}, **{n: (3, 16, 16) for n in NATURAL_SETTINGS}}


def ask(models, x):
    with torch.no_grad():
        return [m(x) for m in models]


def flops(models, shape):
    ask(models, torch.rand(1, *shape))  # the first call also finds a teacher's features
    with FlopCounterMode(display=False) as counted:
        ask(models, torch.rand(1, *shape))
    return counted.get_total_flops()


def milliseconds(rivals, shape, batch, repetitions):
    x, times = torch.rand(batch, *shape), {name: [] for name in rivals}
    for k in range(repetitions + 3):
        for name, models in rivals.items():
            start = time.perf_counter()
            ask(models, x)
            if k >= 3:
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(t) for name, t in times.items()}


def teachers_of(name, setting):
    return [Teacher(build_backbone(backbone, len(classes), SHAPES[name][0],
                                   width=setting.teacher_width), classes, t)
            for t, (backbone, classes) in setting.teachers.items()]


def student_of(name, setting, classes):
    if name in RESNETS:
        return Student("resnet18", classes, input_size=SHAPES[name]).eval()
    return make_student(setting, classes, torch.rand(1, *SHAPES[name]), 0).eval()


def most_held():
    "Bytes that this process has held at most; Linux says it."
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024


def megabytes(name, setting, who):
    """What a fresh process needs above its imports; to be called in one."""
    ask([build_backbone("resnet_small", 2)], torch.rand(2, 3, 16, 16))  # PyTorch's own start
    classes, before = [c for _, its in setting.teachers.values() for c in its], most_held()
    models = (teachers_of(name, setting) if who == "teachers" else
              [student_of(name, setting, list(dict.fromkeys(classes)))])
    ask(models, torch.rand(64, *SHAPES[name]))
    return (most_held() - before) / 1e6


def main():
    torch.set_num_threads(1)
    found = {}
    for name, setting in (SETTINGS | NATURAL_SETTINGS | RESNETS).items():
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as fresh:
            memory = {who: fresh.apply(megabytes, (name, setting, who))
                      for who in ("teachers", "student")}
        teachers, shape = teachers_of(name, setting), SHAPES[name]
        student = student_of(name, setting, LabelSpace(teachers))
        rivals = {"teachers": teachers, "student": [student]}
        found[name] = {who: {
            "models": len(models), "flops": flops(models, shape), "megabytes": memory[who],
            "parameters": sum(p.numel() for m in models for p in m.parameters())}
            for who, models in rivals.items()}
        for batch in (1, 64):
            repetitions = 8 if name in RESNETS and batch > 1 else 40
            for who, ms in milliseconds(rivals, shape, batch, repetitions).items():
                found[name][who][f"milliseconds_{batch}"] = ms
        print(name, found[name], flush=True)
    write_json("results/cost.json", {
        "what": "all teachers of a setting, asked one after another, and its student",
        "command": "python studies/cost.py", "device": "cpu, one thread", "versions": versions(),
        "settings": found})


if __name__ == "__main__":
    main()

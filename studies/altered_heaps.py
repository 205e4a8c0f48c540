"""What is lost when the heap was scaled, stored or viewed in another way than the taught images?

usage: python studies/altered_heaps.py

Teachers learn from one half of the training images; the heap is the other half, as it is and
altered: scaled by another filter, stored as JPEG, blurred, lighter, with less contrast, or asked
about in other views. Seven natural classes of CIFAR-100 (two teachers, scaled from 32 to 16 pixels)
and the digits of four teachers. Nothing that is fitted sees a label, labels only judge, and no test
image is opened. Printed is right owner / right class / the class's negative log-likelihood, means
of three seeds, and written to results/altered_heaps.json after each of them.
"""

import io
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from odd_heaps import ESTIMATORS, judged
from PIL import Image

from cka_nb.comparison import means_of
from cka_nb.data import random_affine, random_crop_flip
from cka_nb.files import read_json, versions, write_json
from cka_nb.images import as_float
from cka_nb.settings import HEAP_SETTINGS, make_teachers

OUT, SEEDS = Path("results/altered_heaps.json"), (100, 101, 102)
NATURAL, DIGITS = (HEAP_SETTINGS[name] for name in ("seven_natural_new", "four_new"))


def scaled(mode, **how):
    return lambda x: F.interpolate(x, (16, 16), mode=mode, **how).clamp(0, 1)


def stored(quality):
    def change(x):
        def once(image):
            image = Image.fromarray((image * 255).round().byte().permute(1, 2, 0).squeeze().numpy())
            image.save(kept := io.BytesIO(), "JPEG", quality=quality)
            back = torch.tensor([*Image.open(kept).tobytes()], dtype=torch.uint8)
            return back.view(image.height, image.width, -1).permute(2, 0, 1)
        return as_float(torch.stack([once(image) for image in x]))
    return change


def blurred(x):
    kernel = torch.tensor([1., 2., 1.]) / 4
    kernel = (kernel[:, None] * kernel).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=x.shape[1])


usual = scaled("bilinear", antialias=True)  # as the taught images were scaled
CHANGES = {  # of images; or the views in which the teachers are asked
    "lighter by a tenth": lambda x: (x + .1).clamp(0, 1),
    "half the contrast": lambda x: .5 + .5 * (x - .5),
    "blurred": blurred,
    "JPEG, quality 75": stored(75), "JPEG, quality 30": stored(30)}
SITUATIONS = {
    "seven natural classes": (NATURAL, {
        "as taught": usual, "bicubic": scaled("bicubic", antialias=True),
        "mean of 2 x 2": lambda x: F.avg_pool2d(x, 2), "nearest pixel": scaled("nearest"),
        **{name: (lambda x, change=change: usual(change(x))) for name, change in CHANGES.items()}},
        random_affine),
    "four teachers of digits": (DIGITS, {"as taught": lambda x: x, **CHANGES}, random_crop_flip)}


def of_seed(seed):
    "setting -> alteration -> what `judged` says"
    for name, (setting, changes, others) in SITUATIONS.items():
        split = setting.split(seed)
        teachers, whole = make_teachers(setting, split.taught, seed, device="cpu"), split.heap
        if setting is NATURAL:  # the same images before they were scaled
            whole = replace(setting, data=partial(setting.data, size=32)).split(seed).heap
        assert torch.equal(whole.labels, split.heap.labels)
        ask = partial(judged, teachers, labels=whole.labels, classes=whole.classes)
        rows = {change: ask(make(as_float(whole.images)), augment=setting.augment)
                for change, make in changes.items()}
        clean = changes["as taught"](as_float(whole.images))
        rows["other views"], rows["no views"] = ask(clean, augment=others), ask(clean, augment=None)
        yield name, rows


def main():
    warnings.simplefilter("ignore")  # what is left out is not the question here
    done = read_json(OUT)["per_seed"] if OUT.is_file() else {}
    for seed in SEEDS:
        if str(seed) in done:
            continue
        done[str(seed)] = dict(of_seed(seed))
        write_json(OUT, {
            "what": "right owners and classes of altered heaps; negative log-likelihood",
            "command": "python studies/altered_heaps.py", "seeds": [*map(int, done)],
            "device": "cpu", "threads": torch.get_num_threads(), "versions": versions(),
            "rows": means_of([*done.values()]), "per_seed": done})
    for setting, rows in means_of([*done.values()]).items():
        print(f"{setting:24}" + "".join(f"{e:>20}" for e in ESTIMATORS))
        for name, its in rows.items():
            print(f"{name:24}" + "".join(
                f"{100 * its[e]['owner']:9.1f}{100 * its[e]['class']:6.1f}{its[e]['nll']:5.2f}"
                for e in ESTIMATORS))
    return 0


if __name__ == "__main__":
    sys.exit(main())

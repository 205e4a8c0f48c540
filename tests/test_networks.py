"""Networks as people have them: quantised, compiled, wrapped, pruned, shared, in half precision,
without values, trained further; names as people write them; what published networks want done to a
picture.

Each is compared with an independent reading: the network called by hand, the library's transform.
"""

import copy
import itertools
import json
import os
import random
import subprocess
import sys
import threading
import unicodedata
import warnings
from types import SimpleNamespace

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pytest
import timm
import torch
import torch.nn.utils.parametrizations as parametrizations
import torch.nn.utils.prune as prune
import torchvision
import transformers
from conftest import ROOT, python
from onnx import helper
from PIL import Image
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import cka_nb as cka
from cka_nb.classes import made_up_names, near_names
from cka_nb.models import build_backbone, image_channels
from cka_nb.networks import own_copy, usual_sizes
from cka_nb.saving import architecture_of

pytestmark = pytest.mark.filterwarnings("ignore")
X = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def small(*middle, out=3):
    """A small network, always the same."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), *middle, nn.ReLU(),
                         nn.Linear(16, out)).eval()


def one_line(error):
    assert "\n" not in str(error) and len(str(error)) < 600, error
    return str(error)


# ---------------------------------------------------------------- any network that answers

class Shared(nn.Module):
    """One layer used twice, one weight in two layers."""

    def __init__(self):
        super().__init__()
        self.inner = self.again = nn.Linear(64, 64)
        self.tied = nn.Linear(64, 64)
        self.tied.weight = self.inner.weight
        self.fc = nn.Linear(64, 3)

    def forward(self, x):
        return self.fc(self.tied(self.again(self.inner(x.flatten(1)).relu()).relu()))


class Buffers(nn.Module):
    """Buffers of all kinds count in its answer."""

    def __init__(self, seed=0):
        super().__init__()
        self.fc = nn.Linear(64, 3)
        gen = torch.Generator().manual_seed(seed)
        values = torch.randn(3, generator=gen)
        self.register_buffer("whole", (9 * values).to(torch.int32))
        self.register_buffer("complex", torch.complex(values, -values))
        self.register_buffer("eighth", values.to(torch.float8_e4m3fn))
        self.register_buffer("flag", values > 0)
        self.register_buffer("beside", values.clone(), persistent=False)

    def forward(self, x):
        more = self.whole + self.complex.abs() + self.eighth.float() + self.flag + self.beside
        return self.fc(x.flatten(1)) + more


class Told(nn.Module):
    """A state that is no tensor."""

    def __init__(self, told):
        super().__init__()
        self.fc, self.told = nn.Linear(64, 3), told

    def get_extra_state(self):
        return self.told

    def set_extra_state(self, told):
        self.told = told

    def forward(self, x):
        return self.fc(x.flatten(1))


class LowRank(nn.Module):
    """A layer with a small correction, as LoRA's."""

    def __init__(self, base):
        super().__init__()
        self.base, self.down = base, nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows, self.fc = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x):
        return self.fc(self.rows(x.flatten(1, 2))[0][:, -1])


def with_hook():
    net = small()
    net[1].register_forward_hook(lambda module, args, out: out + 1)
    return net


def dynamic(net=None):
    return torch.ao.quantization.quantize_dynamic(net or small(), {nn.Linear, nn.LSTM},
                                                  dtype=torch.qint8)


def static():
    from torch.ao.quantization import get_default_qconfig_mapping, quantize_fx
    net = quantize_fx.prepare_fx(small(), get_default_qconfig_mapping(), (X,))
    net(X)
    return quantize_fx.convert_fx(net)


def both(model, x):
    return model(x), model(x).relu()


by_hand = dict(features=both)
# name -> (makes it, how Teacher is told of its features, saves and loads)
NETWORKS = {
    "dynamic int8": (dynamic, dict(features="2"), False),
    "dynamic int8 LSTM": (lambda: dynamic(Recurrent()), dict(features="fc"), False),
    "static int8": (static, by_hand, False),
    "scripted": (lambda: torch.jit.script(small()), by_hand, True),
    "traced": (lambda: torch.jit.trace(small(), X), by_hand, True),
    "frozen program": (lambda: torch.jit.freeze(torch.jit.script(small())), by_hand, True),
    "symbolically traced": (lambda: torch.fx.symbolic_trace(small()), {}, True),
    "compiled": (lambda: torch.compile(small(), backend="eager"), {}, True),
    "compiled inside": (lambda: small(torch.compile(nn.Linear(16, 16), backend="eager")), {}, True),
    "data parallel": (lambda: nn.DataParallel(small()), {}, True),
    "data parallel inside": (lambda: small(nn.DataParallel(nn.Linear(16, 16))), {}, True),
    "weight norm": (lambda: small(nn.utils.weight_norm(nn.Linear(16, 16))), {}, True),
    "spectral norm": (lambda: small(nn.utils.spectral_norm(nn.Linear(16, 16)).eval()), {}, True),
    "parametrised": (lambda: small(parametrizations.orthogonal(nn.Linear(16, 16))), {}, True),
    "parametrised norm": (lambda: small(parametrizations.weight_norm(nn.Linear(16, 16))), {}, True),
    "pruned": (lambda: small(prune.l1_unstructured(nn.Linear(16, 16), "weight", .5)), {}, True),
    "low rank": (lambda: small(LowRank(nn.Linear(16, 16))), {}, True),
    "shared": (Shared, {}, True),
    "buffers": (Buffers, by_hand, True),
    "numbers beside": (lambda: Told({"step": 3, "names": ["a"]}), {}, True),
    "nothing beside": (lambda: Told(None), {}, True),
    "tensors beside": (lambda: Told(torch.arange(3)), {}, True),
    "objects beside": (lambda: Told({"a": {1, 2}}), {}, False),
    "hooked": (with_hook, {}, True),
    "bfloat16": (lambda: small().bfloat16(), {}, True),
    "float16": (lambda: small().half(), {}, True),
    "float64": (lambda: small().double(), {}, True),
}


def made(name):
    torch.manual_seed(0)
    return NETWORKS[name][0]().eval() if name != "frozen program" else NETWORKS[name][0]()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_any_kind_teaches_is_told_and_is_saved_or_refused(name, tmp_path):
    model, (_, how, saves) = made(name), NETWORKS[name]
    dtype = next((p.dtype for p in model.parameters() if p.dtype in (
        torch.float16, torch.bfloat16, torch.float64)), torch.float32)
    with torch.no_grad():
        expected = cka.networks.logits_of(model(X.to(dtype)))
    teacher = cka.Teacher(model, list("abc"), input_size=(1, 8, 8), **how)
    assert torch.equal(teacher(X).logits, expected) and not teacher(X).logits.requires_grad
    assert all(p.requires_grad for p in model.parameters() if p.is_floating_point())  # the caller's
    print_ = cka.fingerprint(teacher)
    assert len(print_) == 64
    assert print_ == cka.fingerprint(cka.Teacher(made(name), list("abc"), **how))
    assert print_ == cka.fingerprint(copy.deepcopy(teacher))
    again = cka.Teacher(teacher.model, list("abc"), **how)  # a teacher of a teacher's network
    assert torch.equal(again(X).logits, expected)
    assert torch.equal(again(X).features, teacher(X).features)
    if not saves:
        with pytest.raises(ValueError,
                           match="cannot be saved: its state .* safetensors do not hold") as e:
            teacher.save(tmp_path)
        assert one_line(e.value) and not any(tmp_path.iterdir())
        return
    teacher.save(tmp_path)
    with pytest.raises(ValueError, match="hand-written or modified"):
        cka.Teacher.load(tmp_path)
    fresh = made(name)
    for x in itertools.chain(fresh.parameters(), fresh.buffers()):
        x.data.zero_()
    if name == "nothing beside":
        fresh.told = 1
    loaded = cka.Teacher.load(tmp_path, fresh,
                              features=how.get("features") if how is by_hand else None)
    if name != "frozen program":  # its weights are constants: what is handed in is what is loaded
        assert cka.fingerprint(loaded) == print_
    assert torch.equal(loaded(X).logits, expected)


@pytest.mark.parametrize("name", ["dynamic int8 LSTM", "static int8", "weight norm",
                                  "data parallel inside"])
def test_an_odd_teacher_makes_a_student(name):
    teacher = cka.Teacher(made(name), list("abc"), **NETWORKS[name][1])
    student = cka.Student("resnet_small", cka.LabelSpace([teacher]), input_size=(1, 8, 8))
    history = cka.amalgamate([teacher], student, X.repeat(4, 1, 1, 1), epochs=1, views=1)
    assert np.isfinite(history[-1]["loss"])


def test_another_weight_is_another_fingerprint():
    def change(net):
        for value in net.state_dict().values():
            if isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel():
                value.view(-1)[-1] += 1
                return net
    other = small()
    other[1].weight.data[0, 0] += .05
    for make in (dynamic, torch.jit.script, lambda n: torch.jit.freeze(torch.jit.script(n))):
        assert (cka.fingerprint(make(small())) == cka.fingerprint(make(small()))
                != cka.fingerprint(make(other)))
    assert cka.fingerprint(Buffers(0)) != cka.fingerprint(Buffers(1))
    for a, b in (({"x": (1, [2])}, {"x": (1, [3])}), (torch.int8, torch.int16), ("1", 1),
                 (torch.zeros(2), torch.zeros(2).double()),
                 ({"x": torch.ones(1)}, {"x": torch.zeros(1)})):
        nets = [Told(v) for v in (a, a, b)]
        for net in nets:
            net.fc = nets[0].fc
        prints = [cka.fingerprint(n) for n in nets]
        assert prints[0] == prints[1] != prints[2]
    assert cka.fingerprint(change(Shared())) != cka.fingerprint(Shared())


def test_fingerprints_do_not_depend_on_the_process():
    code = """
import warnings; warnings.simplefilter("ignore")
import torch
from torch import nn
from cka_nb.saving import fingerprint
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(8, 4), nn.LSTM(4, 4)).eval()
packed = torch.ao.quantization.quantize_dynamic(net, {nn.Linear, nn.LSTM}, dtype=torch.qint8)
frozen = torch.jit.freeze(torch.jit.script(nn.Sequential(net[0], nn.ReLU()).eval()))
prints = [*map(fingerprint, (packed, frozen))]
"""
    here = {}
    exec(code, here)
    there = python("-W", "ignore", "-c", code + "print(*prints)",
                   env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert there.split() == here["prints"] and len({*here["prints"]}) == 2


# -------------------------------------------------------- what cannot be copied, what has no values

class Holds(nn.Module):
    def __init__(self, it):
        super().__init__()
        self.fc, self.it = nn.Linear(64, 3), it

    def forward(self, x):
        return self.fc(x.flatten(1))


@pytest.fixture(scope="module")
def session():
    """A linear classifier, as ONNX Runtime runs it."""
    sides = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape) for n, shape in (
        ("images", ["B", 1, 8, 8]), ("logits", ["B", 3]))]
    nodes = [helper.make_node("Flatten", ["images"], ["x"]),
             helper.make_node("MatMul", ["x", "w"], ["logits"])]
    weight = onnx.numpy_helper.from_array(np.ones((64, 3), np.float32), "w")
    model = helper.make_model(helper.make_graph(nodes, "net", sides[:1], sides[1:], [weight]),
                              ir_version=10,
                              opset_imports=[helper.make_opsetid("", 17)])
    return onnxruntime.InferenceSession(model.SerializeToString())


def hooked_to_a_lock():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    net[1].register_forward_hook(Locked().hook)
    return net


class Locked:
    def __init__(self):
        self.lock = threading.Lock()

    def hook(self, module, args, out):
        return out


@pytest.mark.parametrize("what, named", [
    (Holds, "its it is a InferenceSession"),
    (lambda session: nn.Sequential(Holds(threading.Lock())), "its 0.it is a lock"),
    (lambda session: Holds((i for i in range(3))), "its it is a generator"),
    (lambda session: Holds(open(os.devnull)), "its it is a TextIOWrapper"),  # noqa: SIM115
    (lambda session: Holds({"deep": [threading.Event()]}), "its it is a "),
    (lambda session: hooked_to_a_lock(), "its 1._forward_hooks is a method")])
def test_what_cannot_be_copied_is_named(what, named, session):
    model = what(session)
    for use in (lambda: cka.Teacher(model, list("abc")), lambda: cka.Student(model, list("abc"))):
        with pytest.raises(TypeError, match="cannot be copied") as error:
            use()
        assert named in one_line(error.value) and "__deepcopy__" in str(error.value)


def test_the_cures_for_what_cannot_be_copied_help(session):
    class Asks(nn.Module):
        def __init__(self):
            super().__init__()
            self.ask = lambda x: torch.from_numpy(session.run(["logits"], {"images": x.numpy()})[0])

        def forward(self, x):
            return self.ask(x)

    class Opens(Holds):
        def __deepcopy__(self, memo):
            return Opens(threading.Lock())
    assert cka.Teacher(Asks(), list("abc"), features=both)(X).logits.shape == (4, 3)
    cka.Teacher(Opens(threading.Lock()), list("abc"), input_size=(1, 8, 8))


def on_meta():
    with torch.device("meta"):
        return cka.SmallResNet(3, 1)


def only(kind):
    net = cka.SmallResNet(3, 1)
    if kind == "parameter":
        net.fc.weight = nn.Parameter(net.fc.weight.to("meta"))
    else:
        net.stem[1].running_mean = net.stem[1].running_mean.to("meta")
    return net


def faked():
    with FakeTensorMode():
        return cka.SmallResNet(3, 1)


def beside():
    net = Buffers()
    net.beside = net.beside.to("meta")
    return net


def lazily():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(3))


def empty_weights():
    from accelerate import init_empty_weights
    with init_empty_weights():
        return timm.create_model("test_resnet", num_classes=3)


@pytest.mark.parametrize("make, named", [
    (on_meta, "'stem.0.weight' of SmallResNet"), (lambda: only("parameter"), "'fc.weight'"),
    (lambda: only("buffer"), "'stem.1.running_mean'"), (faked, "'stem.0.weight'"),
    (beside, "'beside'"),
    (lazily, "'1.weight'"), (empty_weights, "of ResNet")])
def test_a_network_without_values_is_refused(make, named):
    for use in (lambda: cka.Teacher(make(), list("abc")), lambda: cka.Student(make(), list("abc"))):
        with pytest.raises(ValueError) as error:
            use()
        assert named in one_line(error.value)


# ---------------------------------------------------------------- features of what lies inside

def hugging_face(kind):
    small_ = dict(image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=1,
                  num_attention_heads=2,
                  intermediate_size=64, num_labels=3)
    torch.manual_seed(0)
    if kind == "vit":
        return transformers.ViTForImageClassification(transformers.ViTConfig(**small_)).eval()
    return transformers.ResNetForImageClassification(transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8], depths=[1], num_labels=3)).eval()


@pytest.mark.parametrize("kind, place, read", [
    ("vit", "vit", lambda m, x: m.vit(x).last_hidden_state.mean(1)),
    ("vit", "vit.embeddings", lambda m, x: m.vit.embeddings(x).mean(1)),
    ("resnet", "resnet", lambda m, x: m.resnet(x).pooler_output.flatten(1)),
    ("resnet", "resnet.encoder", lambda m, x: m.resnet(x).last_hidden_state.mean((2, 3)))])
def test_features_of_an_inner_model(kind, place, read):
    model, x = hugging_face(kind), torch.rand(2, 3, 32, 32)
    teacher = cka.Teacher(model, list("abc"), features=place, input_size=(3, 32, 32))
    with torch.no_grad():
        torch.testing.assert_close(teacher(x).features, read(model, x))
    if "." not in place:
        student = cka.Student(getattr(model, place), list("ab"), features="output",
                              input_size=(3, 32, 32))
        assert student.eval()(x).features.shape == teacher(x).features.shape


class Gives(nn.Module):
    def __init__(self, it):
        super().__init__()
        self.inner, self.fc = nn.Identity(), nn.Linear(64, 3)
        self.inner.register_forward_hook(lambda module, args, out: it(args[0]))

    def forward(self, x):
        self.inner(x.flatten(1))
        return self.fc(x.flatten(1))


@pytest.mark.parametrize("it, good", [
    (lambda x: (x, 3), True), (lambda x: {"a": None, "b": x}, True), (lambda x: [[x]], True),
    (lambda x: SimpleNamespace(mask=x > 0, tokens=x[:, None]), True),
    (lambda x: (x.mean(), x), True),
    (lambda x: 3, False), (lambda x: {}, False), (lambda x: x.long(), False),
    (lambda x: x.sum(), False)])
def test_features_are_found_in_what_a_submodule_gives_or_refused(it, good):
    if good:
        assert torch.equal(cka.Teacher(Gives(it), list("abc"), features="inner")(X).features,
                           X.flatten(1))
        return
    with pytest.raises(ValueError,
                       match="features='inner' of teacher 'Gives' gives a .* name another") as e:
        cka.Teacher(Gives(it), list("abc"), features="inner", input_size=(1, 8, 8))
    assert "transform=" not in one_line(e.value)


# ---------------------------------------------------------- by name, at the network's own precision

LIBRARIES = {
    "ours": lambda: cka.SmallResNet(3),
    "torchvision": lambda: build_backbone("mobilenet_v3_small", 3),
    "timm": lambda: timm.create_model("test_resnet", num_classes=3),
    "a timm ViT": lambda: timm.create_model("test_vit", num_classes=3, img_size=32),
    "Hugging Face": lambda: hugging_face("resnet"),
    "a Hugging Face ViT": lambda: hugging_face("vit")}
FORMATS = {
    "bfloat16": lambda net: net.bfloat16(), "float16": lambda net: net.half(),
    "float64": lambda net: net.double(),
    "channels last": lambda net: net.to(memory_format=torch.channels_last)}


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_known_network_in_another_format_loads_by_name(library, format_, tmp_path):
    torch.manual_seed(0)
    x = torch.rand(2, 3, 32, 32)
    teacher = cka.Teacher(FORMATS[format_](LIBRARIES[library]()), list("abc"),
                          input_size=(3, 32, 32))
    again = cka.Teacher.load(teacher.save(tmp_path))
    assert again(x).logits.dtype == teacher(x).logits.dtype
    assert torch.equal(again(x).logits, teacher(x).logits)
    assert cka.fingerprint(again) == cka.fingerprint(teacher)


def mixed(net):
    net.fc.double()
    net.fc.register_forward_pre_hook(to_double)
    return net


def to_double(module, args):
    return args[0].double()


MODIFIED = {
    "pruned": lambda net: prune.l1_unstructured(net.fc, "weight", .5),
    "low rank": lambda net: setattr(net, "fc", LowRank(net.fc)),
    "quantised": lambda net: setattr(net, "fc", dynamic(nn.Sequential(net.fc))),
    "normed": lambda net: parametrizations.weight_norm(net.fc),
    "another epsilon": lambda net: setattr(net.bn1, "eps", .1),
    "hooked": lambda net: net.layer1.register_forward_hook(lambda module, args, out: out + 1),
    "mixed": mixed}


@pytest.mark.parametrize("what", MODIFIED)
def test_a_modified_network_is_not_taken_for_the_known_one(what, tmp_path):
    net = timm.create_model("test_resnet", num_classes=3)
    MODIFIED[what](net)
    assert architecture_of(net.eval(), 3, (3, 32, 32)) is None
    teacher = cka.Teacher(net, list("abc"), features="layer4", input_size=(3, 32, 32))
    if what == "quantised":
        with pytest.raises(ValueError, match="cannot be saved"):
            teacher.save(tmp_path)
        return
    with pytest.raises(ValueError, match="hand-written or modified ResNet: hand in") as error:
        cka.Teacher.load(teacher.save(tmp_path))
    one_line(error.value)


def test_who_hands_in_half_precision_gets_it(tmp_path):
    teacher = cka.Teacher(small(), list("abc"), input_size=(1, 8, 8))
    again = cka.Teacher.load(teacher.save(tmp_path), small().bfloat16())
    assert again(X).logits.dtype == torch.bfloat16
    student = cka.Student("resnet_small", list("abc"),
                          input_size=(1, 8, 8)).to(torch.bfloat16).eval()
    again = cka.Student.load(student.save(tmp_path / "student"))
    assert again.head.weight.dtype == torch.bfloat16
    assert torch.equal(again.predict(X)[1], student.predict(X)[1])


# ---------------------------------------------------------------- trained further

DATA = cka.TensorImages(torch.rand(16, 1, 8, 8), torch.arange(16) % 2, ["a", "b"])


@pytest.mark.parametrize("where", [None, "blocks", "fc"])
def test_the_network_of_a_teacher_may_be_trained_further(where, tmp_path):
    cka.Teacher(cka.SmallResNet(2, 1), ["a", "b"], features=where,
                input_size=(1, 8, 8)).save(tmp_path)
    teacher = cka.Teacher.load(tmp_path)
    net, before = teacher.model, teacher(X)
    with pytest.raises(ValueError, match="all weights of SmallResNet are frozen.*requires_grad_"):
        cka.train_teacher(net, DATA, epochs=1)
    for start in (net, copy.deepcopy(net)):
        start.requires_grad_(True)
        further = cka.train_teacher(start, DATA, epochs=1, features=where,
                                    out=tmp_path / str(id(start)))
        assert cka.fingerprint(further.model) != cka.fingerprint(net)
        assert torch.equal(teacher(X).logits, before.logits)
        assert torch.equal(teacher(X).features, before.features)
        again = cka.train_teacher(start, DATA, epochs=1, features=where, resume=True,
                                  out=tmp_path / str(id(start)))
        assert torch.equal(again(X).logits, further(X).logits)
    fresh = cka.SmallResNet(2, 1)
    fresh.load_state_dict(net.state_dict())
    torch.save(net, tmp_path / "whole.pt")
    for start in (fresh, torch.load(tmp_path / "whole.pt", weights_only=False)):
        assert torch.equal(cka.Teacher(start, ["a", "b"])(X).logits, before.logits)
    once = cka.Teacher(own_copy(net), ["a", "b"])
    assert torch.equal(once(X).logits, before.logits)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in own_copy(net).modules())


def test_a_student_is_trained_further_and_teaches():
    student = cka.Student("resnet_small", ["a", "b"], input_size=(1, 8, 8))
    teacher = cka.train_teacher(student, DATA, epochs=1)
    assert teacher(X).features.shape == (4, 64) and student.head.weight.requires_grad
    more = cka.Student(student.backbone, ["a", "b", "c"], features="output", input_size=(1, 8, 8))
    assert more(X).logits.shape == (4, 3)


def test_a_compiled_teacher_answers_as_before():
    teacher = cka.Teacher(cka.SmallResNet(2, 1), ["a", "b"], input_size=(1, 8, 8))
    expected = teacher(X)
    teacher.model.compile(backend="eager")
    for x in (X, X[:2], X):
        for now, then in zip(teacher(x), expected):
            torch.testing.assert_close(now, then[:len(x)])
    assert torch.equal(copy.deepcopy(teacher)(X).logits, expected.logits)


# ---------------------------------------------------------------- names

NFC, NFD = (unicodedata.normalize(form, "pâté") for form in ("NFC", "NFD"))
ALIKE = [(NFC, NFD), ("hot dog", "hot  dog"), ("cat", " cat"), ("cat", "cat\u200b"),
         ("cat", "cat\n"),
         ("hot dog", "hot\u00a0dog"), ("cat", "\ufeffcat"), ("Å", "\u212b")]


@pytest.mark.parametrize("pair", ALIKE, ids=ascii)
def test_names_that_look_the_same_are_refused(pair):
    for use in (lambda: cka.Teacher(cka.SmallResNet(2), pair),
                lambda: cka.Student("resnet_small", pair),
                lambda: cka.LabelSpace([cka.Teacher(cka.SmallResNet(2), [pair[0], "x"], "linux"),
                                        cka.Teacher(cka.SmallResNet(2), [pair[1], "y"], "mac")])):
        with pytest.raises(ValueError, match="look the same to a reader") as error:
            use()
        text = one_line(error.value)
        assert ascii(pair[0]) in text and ascii(pair[1]) in text
    assert "teacher.renamed(" in text and "'linux'" in text and "'mac'" in text


def noted(*sets, made=()):
    """What is said when these label sets meet."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        teachers = [SimpleNamespace(classes=list(s), name=f"t{k}", named=True,
                                    made_up=list(s) if k in made else [])
                    for k, s in enumerate(sets)]
        cka.LabelSpace(teachers)
    return [one_line(w.message) for w in told]


@pytest.mark.parametrize("names", [
    ["LABEL_0", "LABEL_1"], ["class_0", "class_1"], ["class 0", "class 1"], ["Class 1", "Class 2"],
    ["label0", "label1"], ["category-1", "category-2"], ["CLS_3"], ["output 7"], ["Unknown_1"]])
def test_placeholders_of_two_teachers_are_noted(names):
    (note,) = noted(names, [*names, "cat"])
    assert all(repr(n) in note for n in names) and "renamed" in note and "'t0' and 't1'" in note
    assert not noted(names) and not noted(names, ["cat"])


@pytest.mark.parametrize("names",
                         [list("0123456789"), ["n01440764", "n01443537"], ["classic", "label"],
                                   ["type 1", "type 2"], ["boeing 747"], ["B12"]])
def test_names_that_somebody_gave_are_not_noted(names):
    assert not noted(names, names) and not noted(names, [*names, "other"])


def test_names_that_say_little_are_noted_where_two_teachers_have_them():
    assert "share '0', '1', '2'." in noted(list("012"), list("012"))[0]
    assert not noted(list("012"), list("234")) and not noted(list("012"), list("34"))
    assert "share 'Other'." in noted(["cat", "Other"], ["dog", "Other"])[0]


def test_probabilities_nan_and_features_are_no_logits():
    net = cka.SmallResNet(3, 3).eval()
    squashed = torch.nn.Sequential(net, torch.nn.Softmax(1))
    x = torch.rand(2, 3, 16, 16)
    said = lambda model, x: (model(x), x.flatten(1))
    for features in (None, "0.pool", said):
        with pytest.raises(ValueError,
                           match="gives probabilities .*, not logits: leave the softmax"):
            cka.Teacher(squashed, list("abc"), features=features)(x)
    logarithm = cka.Teacher(squashed, list("abc"), features=lambda m, x: (m(x).log(), x.flatten(1)))
    torch.testing.assert_close(logarithm(x).logits.softmax(1), net(x).softmax(1))
    with pytest.raises(ValueError, match="gives 96 numbers for an image, but has 3 class names"):
        cka.Teacher(timm.create_model("test_resnet", num_classes=0, in_chans=3), list("abc"))(
            torch.rand(2, 3, 64, 64))
    broken = copy.deepcopy(net)
    broken.fc.bias.data[0] = torch.nan
    with pytest.raises(ValueError, match="gives NaN or infinite numbers"):
        cka.Teacher(torch.nn.Sequential(broken, torch.nn.Identity()), list("abc"))(x)


def test_names_that_were_made_up_are_remembered(tmp_path):
    unnamed = cka.TensorImages(torch.rand(8, 1, 8, 8), torch.arange(8) % 2)
    teachers = [cka.train_teacher(cka.SmallResNet(2, 1), unnamed, epochs=1, name=n,
                                  out=tmp_path / n)
                for n in "ab"]
    assert teachers[0].classes == ["0", "1"] and json.loads(
        (tmp_path / "a/config.json").read_text())["made_up"] == ["0", "1"]
    loaded = [cka.Teacher.load(tmp_path / n) for n in "ab"]
    for these in (teachers, loaded, [teachers[0], copy.deepcopy(loaded[1])]):
        with pytest.warns(UserWarning, match="'a' and 'b' share '0', '1'. Such a name says little"):
            cka.LabelSpace(these)
    named = loaded[0].renamed({"0": "cat", "1": "dog"})
    assert not named.made_up
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cka.LabelSpace([named, loaded[1]])
    assert "made_up" not in json.loads((named.save(tmp_path / "c") / "config.json").read_text())
    config = json.loads((tmp_path / "a/config.json").read_text())
    for wrong in (3, {"0": 1}, None):
        (tmp_path / "a/config.json").write_text(json.dumps(config | {"made_up": wrong}))
        try:
            assert cka.Teacher.load(tmp_path / "a").classes == ["0", "1"]
        except ValueError as error:
            assert "damaged" in one_line(error)
    assert made_up_names(2) == ["0", "1"]


NEAR = [("plane", "airplane"), ("cat", "cats"), ("Cat", "cat"), ("hot_dog", "hot dog"),
        ("hot-dog", "hotdog"),
        ("aeroplane", "airplane"), ("phone", "telephone"), ("bus", "buses"), ("city", "cities"),
        ("wolf", "wolves"), ("TV", "tv"), ("yogurt", "yoghurt"), ("potted plant", "pottedplant"),
        ("sunflower", "sun flower"), ("café", "cafe"), ("T-shirt", "tshirt"),
        ("orangutan", "orangutang"),
        ("pick-up truck", "pickup_truck"), ("DOG", "dog"), ("Golden Retriever", "golden_retriever"),
        ("leaf", "leaves"), ("tumor", "tumour"), ("carcinomas", "carcinoma"),
        ("no_entry", "No entry")]
FAR = [("1", "11"), ("bed", "bee"), ("plain", "plane"), ("man", "woman"), ("castle", "cattle"),
       ("bear", "pear"), ("C", "C++"), ("A", "a"), ("01", "0.1"), ("male", "female"),
       ("mouse", "house"),
       ("benign", "malignant"), ("left", "right"), ("type1", "type2"), ("hot dog", "dog"),
       ("sea", "seal"),
       ("normal", "abnormal"), ("healthy", "unhealthy"), ("symmetric", "asymmetric"),
       ("Type A", "Type B"),
       ("complete", "incomplete"), ("smoking", "nonsmoking"), ("x", "xs"), ("2", "2s"), ("", " x")]
CIFAR100 = """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab
crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard
lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout
tulip turtle wardrobe whale willow_tree wolf woman worm""".split()


@pytest.mark.parametrize("pair", NEAR, ids=ascii)
def test_near_names_of_two_teachers_are_noted_once(pair):
    (note,) = noted([pair[0], "x"], [pair[1], "y"])
    assert all(repr(n) in note for n in pair) and "renamed(" in note and "--rename" in note
    assert not noted([*pair], [pair[0]]) and not noted([*pair])  # who knows both tells them apart
    assert not noted([pair[0]], [pair[1]], [*pair])


def test_other_words_are_not_noted():
    assert [p for p in FAR if noted([p[0], "other"], [p[1], "words"])] == []
    assert len(CIFAR100) == 100
    for seed in range(20):
        names = random.Random(seed).sample(CIFAR100, 100)
        cut = random.Random(seed).randrange(10, 90)
        assert noted(names[:cut], names[cut:]) == [] and noted(names[:60], names[40:]) == []
    many = [f"{a}{b}{c}ling{d}" for a in "bcdfgh" for b in "aeiou" for c in "klmnprst"
            for d in "aeiouy"]
    near_names(many)  # thousands take no time worth mentioning


# ---------------------------------------------------------------- what is published

PROCESSORS = [
    ("ViTImageProcessor", {}),
    ("ViTImageProcessor", dict(rescale_factor=1 / 127.5, image_mean=[1.] * 3)),
    ("ViTImageProcessor", dict(do_normalize=False, rescale_factor=1 / 127.5)),
    ("ViTImageProcessor", dict(do_normalize=False)), ("ViTImageProcessor", dict(resample=3)),
    ("ViTImageProcessor", dict(size={"height": 40, "width": 56})),
    ("ViTImageProcessor", dict(do_convert_rgb=True)),
    ("ViTImageProcessorPil", {}), ("DeiTImageProcessor", {}),
    ("BeitImageProcessor", dict(do_center_crop=True,
     size={"height": 64, "width": 64}, crop_size={"height": 41, "width": 48})),
    ("CLIPImageProcessor", {}), ("CLIPImageProcessorPil", {}),
    ("CLIPImageProcessor", dict(do_center_crop=False)),
    ("CLIPImageProcessor", dict(size={"shortest_edge": 50}, crop_size={"height": 61, "width": 40})),
    ("ConvNextImageProcessor", {}), ("ConvNextImageProcessor", dict(size={"shortest_edge": 96})),
    ("ConvNextImageProcessor", dict(size={"shortest_edge": 96}, crop_pct=.7)),
    ("PoolFormerImageProcessor", {}), ("LevitImageProcessor", {}), ("BitImageProcessor", {}),
    ("MobileNetV2ImageProcessor", {}), ("SegformerImageProcessor", {}), ("PvtImageProcessor", {}),
    ("ViTImageProcessor", dict(do_rescale=False)), ("ViTImageProcessor", dict(do_resize=False)),
    ("ViTImageProcessor", dict(do_pad=True, pad_size={"height": 300, "width": 300})),
    ("ViTImageProcessor", dict(resample=0)),
    ("ViTImageProcessor", dict(data_format="channels_last")),
    ("EfficientNetImageProcessor", {}), ("EfficientNetImageProcessor", dict(include_top=False)),
    ("EfficientNetImageProcessor", dict(include_top=False, rescale_offset=True)),
    ("MobileViTImageProcessor", {}), ("MobileViTImageProcessor", dict(do_flip_channel_order=False)),
    ("PerceiverImageProcessor", {}), ("ImageGPTImageProcessor", {}), ("DonutImageProcessor", {}),
    ("TextNetImageProcessor", {}), ("Siglip2ImageProcessor", {}), ("VideoMAEImageProcessor", {}),
    ("NougatImageProcessor", {}), ("DPTImageProcessor", {}), ("FlavaImageProcessor", {})]


@pytest.mark.parametrize("name, settings", PROCESSORS, ids=lambda v: str(v)[:40])
def test_a_processor_is_done_exactly_or_refused(name, settings):
    processor = getattr(transformers, name)(**settings)
    try:
        wants = cka.Preprocess.of(processor)
    except ValueError as error:
        assert "which Preprocess cannot do" in one_line(error)
        assert any(f"{k}=" in str(error) for k in vars(processor)) or "something else" in str(error)
        return
    wants = cka.Preprocess(**json.loads(json.dumps(wants.config())))  # as it is saved
    spread = wants.std if wants.normalises else torch.ones(1)
    for high, wide in (wants.size[1:], (120, 173), (300, 87)):
        picture = soft(high, wide)
        theirs = torch.as_tensor(processor(images=picture, return_tensors="pt")["pixel_values"])
        ours = wants(torch.from_numpy(picture).permute(2, 0, 1)[None])
        assert ours.shape == theirs.shape and ((ours - theirs) * spread).abs().max() < 3 / 255


def soft(high, wide):
    """A picture without sharp edges: rounding to bytes on the way changes it little."""
    x = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(x).resize((wide, high), Image.Resampling.BICUBIC))


def test_settings_that_nobody_has_heard_of_are_refused():
    usual = dict(size={"height": 32, "width": 32}, image_mean=[.5] * 3, image_std=[.5] * 3)
    assert cka.Preprocess.of(SimpleNamespace(**usual)).size == (3, 32, 32)
    for key, value in (("do_wave", True), ("offset", 1), ("do_grayscale", True),
                       ("size_divisor", 8)):
        with pytest.raises(ValueError, match=f"has {key}={value}, which Preprocess cannot do"):
            cka.Preprocess.of(SimpleNamespace(**usual, **{key: value}))
    for size in ({"longest_edge": 32}, {"max_height": 3, "max_width": 3}, None):
        with pytest.raises(ValueError, match="has size="):
            cka.Preprocess.of(SimpleNamespace(**usual | {"size": size}))


@pytest.mark.parametrize("changes", [
    {}, dict(crop_pct=1.), dict(crop_mode="squash"), dict(crop_mode="squash", crop_pct=1.),
    dict(interpolation="bilinear"), dict(input_size=(3, 97, 97)), dict(crop_mode="border"),
    dict(interpolation="lanczos"), dict(input_size=(3, 64, 96)), dict(mean=None)], ids=str)
def test_what_timm_publishes_is_done_exactly_or_refused(changes):
    model = timm.create_model("test_resnet", num_classes=2)
    model.pretrained_cfg = model.pretrained_cfg | changes
    wrapper = transformers.models.timm_wrapper.image_processing_timm_wrapper
    processor = wrapper.TimmWrapperImageProcessor(
        model.pretrained_cfg) if "border" not in str(changes) else None
    try:
        wants = cka.Preprocess.of(model)
    except ValueError as error:
        assert any(k in one_line(error) for k in ("crop_mode=", "interpolation=", "its mean"))
        return
    assert processor is None or cka.Preprocess.of(processor).config() == wants.config()
    theirs = timm.data.create_transform(**timm.data.resolve_data_config(model.pretrained_cfg))
    for high, wide in (wants.size[1:], (120, 173), (210, 87)):
        picture = soft(high, wide)
        ours = wants(torch.from_numpy(picture).permute(2, 0, 1)[None])[0]
        assert ((ours - theirs(Image.fromarray(picture))) * wants.std).abs().max() < 3 / 255


def test_what_torchvision_publishes_is_done_exactly_or_refused():
    for name in torchvision.models.list_models(module=torchvision.models):
        for weights in torchvision.models.get_model_weights(name):
            wants, theirs = cka.Preprocess.of(weights), weights.transforms()
            picture = torch.from_numpy(soft(120, 173)).permute(2, 0, 1)[None]
            if max(wants.size) < 300:
                apart = ((wants(picture) - theirs(picture)) * wants.std).abs().max()
                assert apart < 3 / 255, weights
    video = torchvision.models.video.R3D_18_Weights.DEFAULT
    with pytest.raises(ValueError,
                       match="VideoClassification, which is not about classifying images"):
        cka.Preprocess.of(video)
    with pytest.raises(TypeError, match="got Compose"):
        cka.Preprocess.of(torchvision.transforms.Compose([]))


def test_how_a_teacher_wants_its_pictures_is_saved_with_it(tmp_path):
    wants = cka.Preprocess.of(transformers.ConvNextImageProcessor(size={"shortest_edge": 32}))
    teacher = cka.Teacher(cka.SmallResNet(2), ["a", "b"], transform=wants, input_size=(3, 40, 50))
    x = torch.rand(2, 3, 40, 50)
    assert torch.equal(cka.Teacher.load(teacher.save(tmp_path))(x).logits, teacher(x).logits)
    config = json.loads((tmp_path / "config.json").read_text())
    for wrong in (10**9, [10**6, 10**6], "x", [1, 2, 3], 0, True):
        (tmp_path / "config.json").write_text(json.dumps(
            config | {"transform": config["transform"] | {"resize": wrong}}))
        with pytest.raises(ValueError, match="damaged"):
            cka.Teacher.load(tmp_path)


def channels_and_sizes(names):
    """Of timm's networks, those whose channels are not read as three."""
    wrong = []
    for name in names:
        with torch.device("meta"):
            net = timm.create_model(name, num_classes=2)
        try:
            wished = cka.Preprocess.of(net).size[0]
        except ValueError as error:  # a crop that it cannot make; channels are told all the same
            assert "crop_mode=" in one_line(error)
            wished = 3
        told = wished, {size[0] for size in usual_sizes(net)}, image_channels(net)
        if told != (3, {3}, 3):
            wrong.append((name, *told))
    return wrong


def test_channels_are_read_from_what_timm_noted():
    odd = ["tresnet_m", "naflexvit_base_patch16_gap"]
    usual = ["resnet10t", "test_vit", "test_efficientnet", "mixer_s32_224", "edgenext_xx_small"]
    assert channels_and_sizes([n for n in odd if n in timm.list_models()] + usual) == []
    for name, channels in (("test_resnet", 1), ("test_vit", 4), ("tresnet_m", 1)):
        with torch.device("meta"):
            net = timm.create_model(name, num_classes=2, in_chans=channels)
        assert image_channels(net) == channels and usual_sizes(net)[0] == (channels, 64, 64)
        if channels == 1:
            assert cka.Preprocess.of(net).size[0] == 1
    assert image_channels(transformers.ViTForImageClassification(transformers.ViTConfig(
        num_channels=2, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8))) == 2


@pytest.mark.slow
def test_channels_of_all_networks_of_timm():
    assert channels_and_sizes(timm.list_models()) == []


# ---------------------------------------------------------------- the size of the images

@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "pit_ti_224", "test_vit", "test_resnet"])
def test_a_student_is_made_for_the_size_asked_for(name, tmp_path):
    student = cka.Student(f"timm/{name}", ["a", "b"], input_size=(3, 96, 96)).eval()
    x = torch.rand(2, 3, 32, 32)
    again = cka.Student.load(student.save(tmp_path))
    assert torch.equal(again(x).logits, student(x).logits)
    assert again.architecture == student.architecture
    fixed = name not in ("test_vit", "test_resnet")
    assert student.architecture.get("config") == ({"img_size": [96, 96]} if fixed else None)


def test_sizes_that_cannot_be_are_one_line(tmp_path, capsys):
    for name, size in (("timm/vit_tiny_patch16_224", (3, 8, 8)), ("mixer_s32_224", (3, 8, 8))):
        with pytest.raises(ValueError, match="read images of") as error:
            cka.Student(name, ["a", "b"], input_size=size)
        one_line(error.value)
    for sort in "ab":
        (tmp_path / "data" / sort).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(soft(40, 40 + i)).save(tmp_path / "data" / sort / f"{i}.png")
    line = ["train-teacher", "--data", str(tmp_path / "data"), "--backbone", "timm/pit_ti_224",
            "--epochs", "1", "--device", "cpu"]
    from cka_nb.cli import main
    assert main([*line, "--size", "48", "--out", str(tmp_path / "out")]) == 0
    assert cka.Teacher.load(tmp_path / "out").input_size == (3, 48, 48)
    capsys.readouterr()
    assert main([*line, "--size", "8", "--out", str(tmp_path / "bad")]) == 2
    assert "does not read images of 8 x 8" in capsys.readouterr().err


# ---------------------------------------------------------------- saving, whole or not at all

def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_what_is_somebody_elses_is_not_replaced(kind, tmp_path):
    teacher = cka.Teacher(cka.SmallResNet(2, 1), ["a", "b"], input_size=(1, 8, 8))
    student = cka.Student("resnet_small", ["a", "b"], input_size=(1, 8, 8))
    save, other = ((teacher.save, student.save) if kind == "teacher"
                   else (student.save, teacher.save))
    foreign = {
        "a model of Hugging Face's": lambda f: hugging_face("vit").save_pretrained(f),
        "an application's settings": lambda f: (f / "config.json").write_text("[1]"),
        "no JSON": lambda f: (f / "config.json").write_text("name = x"),
        "weights alone": lambda f: (f / "model.safetensors").write_text("theirs"),
        "a folder of that name": lambda f: (f / "config.json").mkdir(),
        "a link to elsewhere": lambda f: (f / "config.json").symlink_to(tmp_path / "elsewhere"),
        "the other kind": other}
    if kind == "student":
        foreign["a project"] = lambda f: (f / "README.md").write_text(
            "# Mine\nlibrary_name: cka_nb")
        foreign["another card"] = lambda f: (f / "README.md").write_text("---\nlicense: mit\n---\n")
    for k, put in enumerate(foreign.values()):
        folder = tmp_path / str(k)
        folder.mkdir()
        put(folder)
        before = (sorted(p.name for p in folder.rglob("*")),
                  [p.read_bytes() for p in folder.rglob("*") if p.is_file()])
        savers = [save] if kind == "teacher" else [save, student.save_pretrained]
        for attempt in savers:
            with pytest.raises(ValueError,
                               match="saving would replace it: choose another folder") as error:
                attempt(folder)
            assert str(folder) in one_line(error.value)
        after = (sorted(p.name for p in folder.rglob("*")),
                 [p.read_bytes() for p in folder.rglob("*") if p.is_file()])
        assert before == after
    for folder in (tmp_path / "own", tmp_path / "own"):  # its own is replaced
        save(folder)
    (tmp_path / "own" / "notes.txt").write_text("stays")
    save(tmp_path / "own")
    assert (tmp_path / "own" / "notes.txt").read_text() == "stays"


def test_training_says_at_once_that_a_folder_is_taken(tmp_path):
    hugging_face("vit").save_pretrained(tmp_path / "theirs")
    with pytest.raises(ValueError, match="config.json is not that of a teacher"):
        cka.train_teacher(cka.SmallResNet(2, 1), DATA, epochs=10**6, out=tmp_path / "theirs")
    (tmp_path / "run/student").mkdir(parents=True)
    (tmp_path / "run/student/README.md").write_text("# Mine")
    teacher = cka.Teacher(cka.SmallResNet(2, 1), ["a", "b"], input_size=(1, 8, 8))
    student = cka.Student("resnet_small", ["a", "b"], input_size=(1, 8, 8))
    with pytest.raises(ValueError, match="README.md is not that of a student"):
        cka.amalgamate([teacher], student, X, epochs=10**6, views=0, out=tmp_path / "run")


def killed_before(step, save):
    """Save in another process, which ends before a change of the folder; whether it got through."""
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, 9)
        return status == 0
    changes = itertools.count()

    def stop(event, args):
        changing = event in ("os.rename", "os.remove") or event == "open" and "x" in str(args[1])
        if changing and next(changes) == step:
            os._exit(9)
    try:
        sys.addaudithook(stop)
        save()
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_a_kill_leaves_the_old_model_or_the_new_one(kind, tmp_path):
    torch.manual_seed(0)
    if kind == "teacher":
        old, new = (cka.Teacher(net, its, "t", input_size=(1, 8, 8)) for net, its in (
            (cka.SmallResNet(2, 1), ["a", "b"]), (cka.SmallVGG(2, 1), ["c", "d"])))
    else:
        old, new = (cka.Student(net, its, input_size=(1, 8, 8)) for net, its in (
            ("resnet_small", ["a", "b"]), ("vgg_small", ["c", "d"])))
    load, seen = type(old).load, []
    for step in itertools.count():
        folder = tmp_path / str(step)
        old.save(folder)
        done = killed_before(step, lambda: new.save(folder))
        found = load(folder)
        expected = old if found.classes == old.classes else new
        assert cka.fingerprint(found) == cka.fingerprint(expected)
        assert found.classes == expected.classes
        seen.append(expected is new)
        old.save(folder)
        assert cka.fingerprint(load(folder)) == cka.fingerprint(old)
        if done:
            break
    assert len(seen) > 6 and seen == sorted(seen) and {*seen} == {False, True}, seen


def test_a_reader_that_may_not_write_reads_what_a_kill_left(tmp_path):
    old, new = (cka.Teacher(net, ["a", "b"], "t", input_size=(1, 8, 8)) for net in (
        cka.SmallResNet(2, 1), cka.SmallVGG(2, 1)))
    old.save(tmp_path)
    new.save(tmp_path / "aside")
    (tmp_path / "model.safetensors.part").write_bytes(
        (tmp_path / "aside/model.safetensors").read_bytes())
    assert cka.fingerprint(cka.Teacher.load(tmp_path)) == cka.fingerprint(old)
    (tmp_path / "config.json").write_bytes((tmp_path / "aside/config.json").read_bytes())
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").mkdir()  # what no file can replace
    assert cka.fingerprint(cka.Teacher.load(tmp_path)) == cka.fingerprint(new)
    assert (tmp_path / "model.safetensors.part").is_file()


def test_our_small_networks_are_built_and_loaded_without_torchvision(tmp_path):
    """Its import takes seconds, and a prediction with a small student waited for it."""
    code = ("import sys, torch, cka_nb as cka; t = cka.Teacher(cka.SmallResNet(2, 1), ['a', 'b'],"
            " input_size=(1, 8, 8)); t = cka.Teacher.load(t.save('t')); "
            "s = cka.Student('vgg_small', ['a', 'b'], input_size=(1, 8, 8)); "
            "s = cka.Student.load(s.save('s')); s.predict(torch.rand(1, 1, 8, 8)); "
            "print({'torchvision', 'torch._dynamo'} & {*sys.modules})")
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True)
    assert run.stdout.strip() == "set()", run.stdout + run.stderr

"""What a run is made with, told apart: nothing that differs is the same, nor the reverse."""

import copy
import functools
import json
import random
import re
import subprocess
import sys
import threading
from collections import OrderedDict, deque, namedtuple
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from properties import examples
from torch import nn
from torchvision import transforms as v1
from torchvision.transforms import v2

import cka_nb as cka
from cka_nb.identity import differences, structure, told

# whatever holds a number --------------------------------------------------------------------------

@dataclass
class Card:
    size: object


@dataclass(frozen=True, slots=True)
class Slim:
    size: object


class Plain:
    def __init__(self, size):
        self.size = size

    def method(self, x):
        return x * self.size

    def __call__(self, x):
        return x + self.size


class Private(Plain):
    def __init__(self, size):
        self._size = size


class Rebuilt:
    """Says how it is made again, and has no attributes."""

    __slots__ = ("inner",)

    def __init__(self, size):
        self.inner = size

    def __reduce__(self):
        return Rebuilt, (self.inner,)


class Config(Plain):
    def config(self):
        return {"size": self.size}


class Wrapped(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size, self.layers = size, nn.ModuleList([nn.Identity()])

    def forward(self, x):
        return x


Pair = namedtuple("Pair", "a b")


def over(size):
    return lambda x: x + size


def defaulted(size):
    def inner(x, by=size, *, more=(size,)):
        return x + by
    return inner


def decorated(size):
    @functools.wraps(over)
    def inner(x):
        return over(size)(x)
    return inner


def hooked(size):
    net = nn.Identity()
    net.register_forward_hook(over(size))
    return net


def buffered(size):
    net = nn.Module()
    net.register_buffer("size", torch.as_tensor(size), persistent=False)
    return net


def itself(size):
    held = Plain(size)
    held.me = [held]
    return held


HOLDERS = [
    lambda s: s, lambda s: [s], lambda s: (1, [s]), lambda s: {"a": {"b": s}}, lambda s: {s: 1},
    lambda s: {s, 100}, lambda s: frozenset([s]), lambda s: OrderedDict(a=s), lambda s: deque([s]),
    lambda s: Pair(1, s), Card, Slim, Plain, Private, Rebuilt, Config, Wrapped, over, defaulted,
    decorated, hooked, buffered, itself, lambda s: Plain(s).method, lambda s: [[Plain([s])]],
    lambda s: functools.partial(over, s), lambda s: functools.partial(over(s), x=1),
    lambda s: functools.partial(functools.partial(Plain, s), more=2),
    lambda s: np.array([s]), lambda s: np.int64(s), lambda s: torch.tensor([s]),
    lambda s: torch.tensor([s], dtype=torch.bfloat16),
    lambda s: nn.Parameter(torch.tensor(float(s))),
    lambda s: range(s), lambda s: slice(s), lambda s: complex(s), lambda s: bytes([s]),
    lambda s: Path(str(s)), lambda s: re.compile(str(s)), lambda s: str(s), lambda s: float(s),
    lambda s: nn.Sequential(nn.Dropout(s / 100)), lambda s: nn.Conv2d(1, 1, 3, padding=s),
    lambda s: v2.Compose([v2.Resize(s), v2.Normalize([.5], [1.])]),
    lambda s: v2.RandomErasing(s / 100),
    lambda s: v2.Compose([v2.Compose([v2.Normalize([s / 100], [1.])])]),
    lambda s: v2.Lambda(over(s)), lambda s: v2.RandomApply([v2.Pad(s)]),
    lambda s: v1.Compose([v1.Resize(s), v1.ToTensor()]), lambda s: v1.ColorJitter(s / 100),
    lambda s: v1.RandomChoice([v1.Pad(s), v1.Pad(1)]),
    lambda s: v2.ToDtype({torch.Tensor: torch.float32, "x": s}),
    lambda s: cka.Preprocess((1, s, s), [.5], [1.]), lambda s: [cka.Preprocess((1, s, s))],
    lambda s: cka.ContrastiveAmalgamation(width=s), lambda s: cka.SmallResNet(s),
]


@pytest.mark.parametrize("hold", HOLDERS, ids=range(len(HOLDERS)))
def test_another_number_is_another_thing(hold):
    def account(size):
        torch.manual_seed(0)
        return told(hold(size), "it")
    one = account(7)
    assert one == account(7) == json.loads(json.dumps(one))
    assert one != account(8), one
    assert "0x" not in json.dumps(one)
    torch.manual_seed(0)
    held = hold(7)
    try:
        twin = copy.deepcopy(held)
    except TypeError:
        return
    assert told(twin, "it") == one


plain = some.recursive(
    some.none() | some.booleans() | some.integers(-3, 3)
    | some.sampled_from([.5, -0., "a", "b", ""]),
    lambda inner: some.lists(inner, max_size=3)
    | some.dictionaries(some.sampled_from("ab"), inner, max_size=2),
    max_leaves=6)


@given(plain, plain)
@settings(max_examples=examples(300), deadline=None, derandomize=True)
def test_nested_values_are_the_same_if_json_says_so(one, other):
    alike = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (not differences(told(one, "it"), told(other, "it"))) == alike


# what is the same ---------------------------------------------------------------------------------

PROGRAM = """
import functools, sys, torch
sys.path.insert(0, sys.argv[1])
import test_identity as t
from cka_nb.identity import structure, told
torch.manual_seed(0)
held = [hold(7) for hold in t.HOLDERS]
print(t.json.dumps([told(h, 'it') for h in held] + [structure(t.cka.SmallResNet(3))]))
"""


def test_another_program_gives_the_same_account():
    run = subprocess.run([sys.executable, "-c", PROGRAM, str(Path(__file__).parent)], text=True,
                         capture_output=True, check=True)
    torch.manual_seed(0)
    held = [hold(7) for hold in HOLDERS]
    here = [told(h, "it") for h in held] + [structure(cka.SmallResNet(3))]
    assert json.loads(run.stdout) == json.loads(json.dumps(here))


def test_source_counts_and_its_layout_does_not(tmp_path):
    text = ("def made():\n    pair = ({0}), (lambda x: x * 2)\n    return pair[0]\n")
    def account(function, name):
        file = tmp_path / f"{name}.py"
        file.write_text(text.format(function))
        space = {"__name__": "nowhere"}
        exec(compile(file.read_text(), str(file), "exec"), space)
        return told(space["made"](), "it")
    one = account("lambda x: x + 1", "one")
    assert one == account("lambda  x :  x+1", "two") != account("lambda x: x + 2", "three")
    assert one != account("lambda x: x * 2", "four")  # the second of its line
    assert (account("lambda x: (lambda y: y)(x)", "five")
            != account("lambda x: (lambda y: -y)(x)", "six"))


def test_random_generators_and_counters_are_nobodys_settings():
    used = random.Random(1)
    used.random()
    assert told(used, "it") == told(random.Random(1), "it")
    objective = cka.ContrastiveAmalgamation()
    before = told(objective, "it", values=False)
    objective._steps = 7
    assert told(objective, "it", values=False) == before


@pytest.mark.parametrize("held",
                         [threading.Lock(), (i for i in range(3)), open(__file__), sys._getframe()],  # noqa: SIM115
                         ids=["lock", "generator", "file", "frame"])
def test_what_cannot_be_told_is_refused_with_a_way_out(held):
    with pytest.raises(ValueError,
                       match=r"transform\.size is a .*, which cannot be told .*config\(\)"):
        told(Plain(held), "transform")
    assert told(Plain(held), "it", strict=False)


# networks -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("change", [
    lambda net: net.fc.requires_grad_(False), lambda net: setattr(net, "scale", 2.),
    lambda net: setattr(net, "fc", nn.Linear(64, 3, bias=False)),
    lambda net: setattr(net.blocks[0].path[2], "inplace", True), lambda net: net.half(),
    lambda net: setattr(net.stem[1], "eps", 1e-3), lambda net: setattr(net, "pool", nn.Identity())],
    ids=["frozen", "attribute", "layer", "hidden", "half", "eps", "less"])
def test_another_structure(change):
    net = cka.SmallResNet(3)
    before = structure(net)
    assert before == structure(cka.SmallResNet(3))
    change(net)
    assert structure(net) != before


# runs ---------------------------------------------------------------------------------------------

def go(out, transform=None, features=None, scale=1., cache=None, **settings):
    class Scaled(cka.SmallResNet):
        def forward(self, x):
            return super().forward(x) * self.scale
    torch.manual_seed(0)
    net = Scaled(3, 1)
    net.scale = scale
    teacher = cka.Teacher(net, list("abc"), "t", features=features or "blocks", transform=transform)
    student = cka.Student("resnet_small", cka.LabelSpace([teacher]), input_size=(1, 8, 8))
    return cka.amalgamate([teacher], student, torch.rand(32, 1, 8, 8), out=out,
                          resume=out is not None,
                          ownership=cka.EnergyOwnership(), device="cpu", cache=cache,
                          **dict(epochs=1, batch_size=32, views=1, fixed_views=1) | settings)


def normalised(mean):
    return v2.Compose([v2.Normalize([mean], [1.])])


CHANGES = [
    (dict(transform=normalised(.5)), dict(transform=normalised(.1)),
     r"teachers\.t\.transform.*mean"),
    (dict(transform=over(1)), dict(transform=over(2)), r"teachers\.t\.transform\.size"),
    (dict(transform=None), dict(transform=normalised(.1)), r"teachers\.t\.transform"),
    (dict(scale=1.), dict(scale=2.), r"teachers\.t\.network"),
    (dict(features="blocks"), dict(features="stem"), r"teachers\.t\.features"),
    (dict(augment=functools.partial(cka.random_affine, degrees=1.)),
     dict(augment=functools.partial(cka.random_affine, degrees=2.)), r"augment\.degrees"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("one, other, said", CHANGES, ids=[c[2] for c in CHANGES])
def test_neither_a_run_nor_a_cache_is_used_by_another_run(one, other, said, tmp_path):
    go(tmp_path / "run", **one)
    go(tmp_path / "run", **one)
    with pytest.raises(ValueError, match=f"belongs to another run.*{said}"):
        go(tmp_path / "run", **other)
    go(None, cache=tmp_path / "kept", **one)
    go(None, cache=tmp_path / "kept", seed=1, **one)
    with pytest.raises(ValueError, match=f"belongs to another cache.*{said}"):
        go(None, cache=tmp_path / "kept", **other)

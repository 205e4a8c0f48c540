"""Any state goes to disk and comes back bit by bit; anything done to its folder is noticed."""

import shutil
import tempfile
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from properties import examples

from cka_nb.checkpoints import Checkpoints
from cka_nb.identity import check_same

often = settings(max_examples=examples(300), deadline=None, derandomize=True, database=None)
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32,
          torch.uint8, torch.int8, torch.bool)


@some.composite
def tensors(draw):
    """Any kind of tensor, with whatever bits: not-a-numbers with a payload, minus zeros."""
    dtype, shape = draw(some.sampled_from(DTYPES)), draw(some.lists(some.integers(0, 4),
                                                                    max_size=4))
    gen = torch.Generator().manual_seed(draw(some.integers(0, 2**32)))
    count = torch.Size(shape).numel()
    if dtype == torch.bool:
        x = torch.randint(2, (count,), generator=gen).bool()
    else:
        x = torch.randint(256, (count * dtype.itemsize,), generator=gen).byte().view(dtype)
    x = x.reshape(shape)
    return x.transpose(0, -1) if x.ndim > 1 and draw(some.booleans()) else x


names = some.text(min_size=1, max_size=20).filter(lambda s: s != "__metadata__" and _encodable(s))
numbers = some.recursive(
    some.none() | some.booleans() | some.integers(-2**60, 2**60) | some.text(max_size=9)
    | some.floats(allow_nan=False, allow_infinity=False),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=5), inner,
                                                                    max_size=3), max_leaves=8)


def _encodable(text):
    return text == text.encode("utf-8", "ignore").decode()


def same(a, b):
    bits = lambda x: x.contiguous().flatten().view(torch.uint8)
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(bits(a), bits(b))


@given(some.dictionaries(names, tensors(), max_size=5),
       some.dictionaries(names, numbers, max_size=4))
@often
def test_a_state_comes_back_bit_by_bit(state, noted):
    noted = {f"its {k}": v for k, v in noted.items()}
    with tempfile.TemporaryDirectory() as folder:
        Checkpoints(folder, {"lr": .1}).save(7, state, noted)
        found, said = Checkpoints(folder, {"lr": .1}).latest()
    assert found.keys() == state.keys() and all(same(found[k], v) for k, v in state.items())
    assert said["step"] == 7 and {k: said[k] for k in noted} == noted


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    for step in (1, 2):
        Checkpoints(folder, {}).save(step, {"w": torch.arange(9.)}, {"history": [step]})
    return folder


@given(some.data())
@often
def test_whatever_is_done_to_its_files_is_noticed(sound, data):
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder) / "kept"
        shutil.copytree(sound, top)
        newest = top / "step-00000002"
        file = data.draw(some.sampled_from(sorted(newest.iterdir())))
        before = file.read_bytes()
        at = data.draw(some.integers(0, len(before) - 1))
        how = data.draw(some.sampled_from(["flip", "cut", "more", "delete", "swap", "add", "link",
                                           "folder"]))
        if how == "flip":
            file.write_bytes(before[:at] + bytes([before[at] ^ 1 << at % 8]) + before[at + 1:])
        elif how == "cut":
            file.write_bytes(before[:at])
        elif how == "more":
            file.write_bytes(before[:at] + data.draw(some.binary(min_size=1, max_size=9))
                             + before[at:])
        elif how == "delete":
            file.unlink()
        elif how == "swap":
            file.write_bytes((top / "step-00000001" / file.name).read_bytes())
        elif how == "add":
            (newest / "more").write_bytes(before[:at])
        else:
            file.rename(Path(folder) / "away")
            file.symlink_to(Path(folder) / "away") if how == "link" else file.mkdir()
        unharmed = how == "swap" and before == file.read_bytes()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = Checkpoints(top, {}).latest()
        assert found[1]["step"] == (2 if unharmed else 1)
        assert len(told) == (0 if unharmed else 1)
        assert all("step-00000002 is not used" in str(w.message) and "\n" not in str(w.message)
                   for w in told)


@given(some.dictionaries(names, numbers, max_size=5), some.dictionaries(names, numbers, max_size=5))
@often
def test_runs_are_the_same_or_their_difference_is_named(then, now):
    check_same(then, then, "it")
    if then == now and [*map(str, then.values())] == [*map(str, now.values())]:
        return
    differing = {k for k in {*then, *now} if then.get(k) != now.get(k) or (k in then) != (k in now)}
    if not differing:
        check_same(then, now, "it")
        return
    with pytest.raises(ValueError, match="it belongs to another run"):
        check_same(then, now, "it")

"""What a run shares with its checkpoints, what it leaves alone, and odd but legal objectives.

Runs are interrupted in a step by an exception; test_faults.py kills them.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from functools import partial
from unittest.mock import patch

import pytest
import torch
from torch import nn

import cka_nb as cka
from cka_nb import training
from cka_nb.diagnostics import evidence_line
from cka_nb.training import Amalgamation

CLASSES = (list("012"), list("34"))


def network(classes):
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
                         nn.Linear(144, 8), nn.Dropout(.1), nn.Linear(8, classes))


def parts():
    torch.manual_seed(0)
    teachers = [cka.Teacher(network(len(c)), c, f"t{k}") for k, c in enumerate(CLASSES)]
    return teachers, torch.rand(48, 1, 8, 8), cka.LabelSpace(teachers)


def go(out, dies_in=None, images=None, student=None, **settings):
    """12 steps with a checkpoint after every second one; the student, or None if it died."""
    teachers, its, space = parts()
    student = student or cka.Student(network(5), space, input_size=(1, 8, 8))

    inputs = Amalgamation.inputs

    def dying(task, batch):
        if batch.step == dies_in:
            raise KeyboardInterrupt
        return inputs(task, batch)
    with patch.object(Amalgamation, "inputs", dying):
        try:
            cka.amalgamate(teachers, student, its if images is None else images, out=out, **dict(
                epochs=4, batch_size=16, views=1, device="cpu", resume=True, save_steps=2)
                           | settings)
        except KeyboardInterrupt:
            return None
    return student


def told(call, *args, **kwargs):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        result = call(*args, **kwargs)
    return result, [str(w.message) for w in said]


pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_run_that_goes_on_says_what_its_owners_rest_on(tmp_path, monkeypatch):
    lines, plain = [], network

    def taught(classes):  # its batch norm has seen images, so it remembers some
        net = plain(classes)
        net[1].num_batches_tracked.fill_(9)
        return net
    monkeypatch.setitem(globals(), "network", taught)
    monkeypatch.setattr(training, "watched_by", lambda: "a terminal")
    monkeypatch.setattr(training, "say", lines.append)
    owners = lambda: [line for line in lines if "owners:" in line]
    assert go(tmp_path, dies_in=5) is None
    said = owners()
    lines.clear()
    student = go(tmp_path)
    assert owners() == said and len(said) == 1
    evidence = json.loads((tmp_path / "run.json").read_text())["evidence"]
    assert said == [f"  owners: {evidence_line(evidence)}"]
    assert evidence == student.provenance["evidence"]
    assert evidence["ownership"] == "InformationOwnership"
    assert sorted(evidence["remembers"] + evidence["left_out"]) == ["t0", "t1"]


# settings that differ are refused -----------------------------------------------------------------

def weighed(w):
    return lambda s, t, o, space: {"joint": w * s.logits.square().mean()}


class Own(nn.Module):
    """An objective of one's own, which may hold its settings anywhere."""

    def __init__(self, **settings):
        super().__init__()
        self.settings = settings

    def forward(self, student, teachers, ownership, space):
        return {"joint": student.logits.square().mean()}


class Outer(Own):
    def __init__(self, **settings):
        super().__init__()
        self.inner = Own(**settings)


class Noise:
    def __init__(self, size):
        self.size = size

    def __call__(self, images, draw):
        return images + self.size * draw(1)[:, :, None, None]


def moments(space, **settings):
    return cka.MomentOwnership(space, **settings)


SPACE = parts()[2]
OTHERS = [  # a setting, another value of it, and where the difference is said to be
    ("objective", lambda: weighed(1.), lambda: weighed(2.), "objective.w"),
    ("objective", lambda: Own(a=1), lambda: Own(a=2), "objective.settings.a"),
    ("objective", lambda: Outer(a=1), lambda: Outer(a=2), "objective.inner.settings.a"),
    ("objective", lambda: partial(weighed(1.)), lambda: partial(weighed(2.)), "objective.func.w"),
    ("objective", cka.ContrastiveAmalgamation, lambda: cka.ContrastiveAmalgamation(intra=0.),
     "objective.intra"),
    ("ownership", lambda: moments(SPACE), lambda: moments(SPACE, ridge=10.), "ownership.ridge"),
    ("ownership", lambda: moments(SPACE), lambda: moments(
        SPACE, start=cka.ClassConditionalOwnership(SPACE, weight=0.)), "ownership.start.weight"),
    ("augment", lambda: Noise(.1), lambda: Noise(.2), "augment.size"),
    ("ema", lambda: .9, lambda: None, "ema"),
    ("batch_size", lambda: 16, lambda: 8, "batch_size"),
]


@pytest.mark.parametrize("name, one, other, said", OTHERS, ids=[o[3] for o in OTHERS])
def test_another_setting_is_refused(name, one, other, said, tmp_path):
    assert go(tmp_path, dies_in=5, **{name: one()}) is None
    with pytest.raises(ValueError, match=f"belongs to another run.*{said}: "):
        go(tmp_path, **{name: other()})
    assert go(tmp_path, **{name: one()})  # the same one is not
    with pytest.raises(ValueError, match=f"belongs to another run.*{said}: "):
        go(tmp_path, **{name: other()})  # nor is the finished run taken for another one


# objectives that are odd, and legal ---------------------------------------------------------------

class Counts(cka.ContrastiveAmalgamation):
    """Warms up by a counter of its own, which no tensor holds."""

    def __init__(self):
        super().__init__()
        self.steps, self.last = 0, 0.

    def forward(self, *said, **more):
        self.steps += 1
        found = super().forward(*said, **more)
        self.last = float(found["joint"])
        return {k: v * min(1, self.steps / 6) for k, v in found.items()}


class Remembers(cka.ContrastiveAmalgamation):
    """In a buffer that is not saved, and in an extra state."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.ones(()), persistent=False)

    def forward(self, *said, **more):
        found = super().forward(*said, **more)
        self.mean = .5 * self.mean + .5 * found["joint"].detach()
        return {k: v / self.mean for k, v in found.items()}

    def get_extra_state(self):
        return {"format": 7}

    def set_extra_state(self, state):
        assert state == {"format": 7}


class Partly(Own):
    def forward(self, student, teachers, ownership, space, by=None):
        return {"joint": (student.logits * by).square().mean()}


@pytest.mark.parametrize("make",
                         [Counts, Remembers, lambda: partial(Partly().forward, by=torch.ones(5)),
                                  cka.joint_distillation, cka.CommonFeatureLearning],
                         ids=["counts", "remembers", "partial", "function", "cfl"])
@pytest.mark.parametrize("same_object", [False, True])
def test_odd_objectives_go_on_to_the_same_bits(make, same_object, tmp_path):
    made = make if make is cka.joint_distillation else make()
    objective = lambda: made if same_object or make is cka.joint_distillation else make()
    whole = go(tmp_path / "whole", objective=make if make is cka.joint_distillation else make())
    assert go(tmp_path / "parts", dies_in=5, objective=objective()) is None
    assert go(tmp_path / "parts", dies_in=9, objective=objective()) is None
    assert cka.fingerprint(go(tmp_path / "parts", objective=objective())) == cka.fingerprint(whole)


class Complex(Own):
    def __init__(self):
        super().__init__()
        self.register_buffer("z", torch.zeros(2, dtype=torch.complex128))


def test_what_no_checkpoint_can_hold_is_said_before_the_first_step(tmp_path):
    with pytest.raises(ValueError, match="a checkpoint cannot hold objective.z"):
        go(tmp_path, objective=Complex())


class Drawing(torch.utils.data.Dataset):
    """Images that are turned at random whenever they are read."""

    def __init__(self, draw):
        self.images, self.draw = parts()[1], draw

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i].flip(-1) if self.draw() > .5 else self.images[i]


@pytest.mark.parametrize("draw, exact",
                         [(lambda: torch.rand(()).item(), True), (random.random, False)])
def test_a_data_set_that_draws_at_random_can_be_resumed(draw, exact, tmp_path):
    whole = go(tmp_path / "whole", images=Drawing(draw))
    assert go(tmp_path / "parts", dies_in=7, images=Drawing(draw)) is None
    student = go(tmp_path / "parts", images=Drawing(draw))
    assert (cka.fingerprint(student) == cka.fingerprint(whole)) == exact


def test_other_frozen_weights_are_refused(tmp_path):
    teachers, _, space = parts()
    student = cka.Student(network(5), space, input_size=(1, 8, 8))
    assert go(tmp_path, dies_in=5) is None
    next(student.parameters()).requires_grad_(False)
    with pytest.raises(ValueError, match="network: "):
        go(tmp_path, student=student)


# files --------------------------------------------------------------------------------------------

def test_files_of_others_stay(tmp_path):
    theirs = [tmp_path / "checkpoints" / "epoch=3.ckpt", tmp_path / "checkpoints.old" / "x",
              tmp_path / "checkpoints.before" / "y"]
    for path in theirs:
        path.parent.mkdir()
        path.write_text("theirs")
    assert go(tmp_path, dies_in=5) is None
    assert go(tmp_path, dies_in=5, resume=False) is None  # put aside beside theirs
    assert go(tmp_path)
    assert [path.read_text() for path in theirs] == ["theirs"] * 3
    assert not list((tmp_path / "checkpoints").glob("step-*"))
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "checkpoints").write_text("theirs")
    with pytest.raises(ValueError, match="checkpoints is no folder"):
        go(tmp_path / "file")


def test_a_damaged_newest_one_does_not_push_out_the_good_ones(tmp_path):
    whole = go(tmp_path / "whole", save_steps=4)
    out = tmp_path / "run"
    assert go(out, dies_in=9, save_steps=4) is None
    newest = out / "checkpoints" / "step-00000008" / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    died, lines = told(go, out, dies_in=7, save_steps=1, keep=1)
    assert died is None and sum("step-00000008 is not used" in line for line in lines) == 1
    assert {p.name for p in (out / "checkpoints").iterdir()} == {
        "beliefs", "step-00000007", "step-00000008.damaged"}
    student, lines = told(go, out, keep=1, save_steps=1)
    assert not any("not used" in line or "nothing to resume" in line for line in lines)
    assert cka.fingerprint(student) == cka.fingerprint(whole)
    assert not (out / "checkpoints").exists()


def test_what_the_teachers_said_is_written_again_if_it_was_damaged(tmp_path):
    whole, beliefs = go(tmp_path / "whole"), tmp_path / "run" / "checkpoints" / "beliefs"
    assert go(tmp_path / "run", dies_in=5) is None
    (beliefs / "tensors.safetensors").write_bytes(b"?")
    died, lines = told(go, tmp_path / "run", dies_in=9)
    assert died is None and any("beliefs is not used" in line for line in lines)
    student, lines = told(go, tmp_path / "run")
    assert not any("beliefs is not used" in line for line in lines)
    assert cka.fingerprint(student) == cka.fingerprint(whole)


def test_a_finished_run_is_what_it_says_it_is(tmp_path):
    go(tmp_path)
    go(tmp_path / "other", seed=1).save(tmp_path / "student")
    with pytest.raises(ValueError, match="its student is another one .*overwrite=True"):
        go(tmp_path)
    (tmp_path / "history.json").unlink()
    with pytest.raises(ValueError, match="was finished, but .*overwrite=True"):
        go(tmp_path)


def test_a_run_that_replaces_a_finished_one_is_not_taken_for_it(tmp_path):
    go(tmp_path)
    first = sorted(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    # dies before its first checkpoint: nothing is replaced
    assert go(tmp_path, dies_in=1, seed=1, resume=False, overwrite=True) is None
    assert sorted(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()) == first
    with pytest.raises(ValueError, match="seed: '0' then, '1' now"):
        go(tmp_path, seed=1)
    # and after it: the finished one is no more
    assert go(tmp_path, dies_in=3, seed=1, resume=False, overwrite=True) is None
    assert not (tmp_path / "run.json").exists()
    assert cka.fingerprint(go(tmp_path, seed=1)) == cka.fingerprint(go(tmp_path / "alone", seed=1))
    assert not (tmp_path / "run.before.json").exists()


def test_a_run_made_in_parts_says_so(tmp_path):
    import json
    assert go(tmp_path, dies_in=5) is None
    go(tmp_path)
    parts_of = json.loads((tmp_path / "run.json").read_text())["parts"]
    assert [part["step"] for part in parts_of] == [0, 4] and parts_of[1]["versions"]["torch"]


def test_a_teacher_with_functions_is_found_finished(tmp_path):
    train = cka.digits(seed=0)[0]
    made = lambda **more: cka.train_teacher(cka.SmallResNet(10, 1), train, epochs=1, device="cpu",
                                            transform=lambda x: 2 * x - 1, out=tmp_path,
                                            resume=True,
                                            **dict(name="a") | more)
    assert cka.fingerprint(made().model) == cka.fingerprint(made().model)
    with pytest.raises(ValueError, match="name: 'a' then, 'b' now"):
        made(name="b")


@pytest.mark.parametrize("lr, step", [(1e38, 0), (1e25, 0)])
def test_weights_that_are_not_finite_are_not_kept(lr, step, tmp_path):
    with pytest.raises(FloatingPointError, match="is not finite|are not finite"):
        go(tmp_path, lr=lr, save_steps=1, epochs=2)
    assert not (tmp_path / "student").exists()


# signals ------------------------------------------------------------------------------------------

PROGRAM = """
import os, signal, subprocess, sys, time
sys.path.insert(0, os.environ["TESTS"])
import test_resume as its, cka_nb as cka, torch
out, what = sys.argv[1:]
if __name__ == "__main__":
    class Signals(cka.ContrastiveAmalgamation):
        seen = 0
        def forward(self, *said, **more):
            Signals.seen += 1
            if Signals.seen == (12 if what == "last" else 5):
                if what == "group":  # from outside, as a scheduler does
                    subprocess.run(["kill", "-TERM", "--", f"-{os.getpgrp()}"], process_group=0)
                else:
                    os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1)  # dead workers would be noticed by now
            return super().forward(*said, **more)
    data = torch.utils.data.DataLoader(its.parts()[1], batch_size=16,
                                       num_workers=2 * (what == "group"))
    teachers, _, space = its.parts()
    student = cka.Student(its.network(5), space, input_size=(1, 8, 8))
    try:
        cka.amalgamate(teachers, student, data, Signals(), epochs=4 + 36 * (what == "group"),
                       views=1, device="cpu", out=out)
    except KeyboardInterrupt as stop:
        print(type(stop).__name__, stop, os.path.isfile(out + "/run.json"))
"""


@pytest.mark.parametrize("what, said", [
    ("group", "Stopped amalgamation: stopped by SIGTERM after step 5 of 120"),
    ("last", "KeyboardInterrupt  True")])
def test_signals_at_odd_places(what, said, tmp_path):
    """To a whole group, workers that read images among it; and in the very last step: the run is
    finished, saved, and the signal then given on."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path / "run"), what], text=True,
                          capture_output=True, start_new_session=True, timeout=300,
                          env=os.environ | {"TESTS": os.path.dirname(__file__)})
    assert said in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0 and signal.getsignal(signal.SIGINT) is not None


def test_a_run_that_ends_while_another_waits_for_its_folder_is_not_replaced(tmp_path):
    import threading

    from cka_nb.checkpoints import alone_in
    begun = threading.Event()

    def other():  # ends a moment later, and leaves what a run leaves
        with alone_in(tmp_path / "run"):
            begun.set()
            time.sleep(1)
            (tmp_path / "run" / "run.json").write_text("{}")
    one = threading.Thread(target=other)
    one.start()
    begun.wait()
    with pytest.raises(ValueError, match="holds a finished run"):
        go(tmp_path / "run", resume=False)
    one.join()
    assert (tmp_path / "run" / "run.json").read_text() == "{}"

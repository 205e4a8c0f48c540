"""Whatever goes wrong in a run: it ends with a line that says so, and goes on to the same bits.

A fault is one line of FAULTS: what happens to the run, how it ends, and what its error says. Each
happens in a process of its own, at its worst moment; afterwards the run is resumed where that is
promised, and must end as the one that nobody disturbed.
"""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import kills
import pytest
import torch
from conftest import ROOT
from forked import forked
from kills import amalgamated, attempt, campaign, newest, outcome

import cka_nb as cka
from cka_nb.processes import launched, rank

SAVE = 4  # a checkpoint every so many steps, of 18


# what happens ------------------------------------------------------------------------------------

class Bad(torch.autograd.Function):
    """The same values, and a gradient of NaN."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("nan")


def in_step(step, act):
    """act(said) in that step of the objective, on every process; what it returns is used."""
    def fault(rank):
        real, count = kills.Logged.forward, [-1]

        def forward(self, student, *rest, **more):
            count[0] += 1
            if count[0] == step - fault.begins:
                student = act(student, rank) or student
            return real(self, student, *rest, **more)
        kills.Logged.forward = forward
    fault.begins = 0
    return fault


def signals(*numbers, rank=None):
    """Signals to one process or all of them, in step 6."""
    def act(student, its):
        for number in numbers if rank in (None, its) else ():
            os.kill(os.getpid(), number)
    return in_step(6, act)


def bad_gradient(of=None):
    """A gradient of NaN in step 6, of all processes or of one."""
    def act(student, rank):
        return student._replace(logits=Bad.apply(student.logits)) if of in (None, rank) else None
    return in_step(6, act)


def full_disk(at):
    """No file can be flushed any more, from the at-th one of the run on."""
    def fault(rank):
        real, count = os.fsync, [0]

        def fsync(fd):
            count[0] += 1
            if count[0] > at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(fd)
        os.fsync = fsync
    return fault


def nan_teacher(rank):
    """A teacher that answers with NaN from its 12th answer on."""
    real, count = cka.Teacher.forward, [0]

    def forward(self, x):
        logits, features = real(self, x)
        count[0] += self.name == "t1"
        return cka.Output(logits * (float("nan") if count[0] > 12 else 1), features)
    cka.Teacher.forward = forward


def moving_teacher(rank):
    """A teacher whose buffers somebody changes."""
    real = kills.Logged.forward

    def forward(self, student, teachers, *rest, **more):
        kills.Logged.teacher.model[1].running_mean += 1
        return real(self, student, teachers, *rest, **more)
    init = cka.Teacher.__init__

    def noted(self, *args, **kwargs):
        init(self, *args, **kwargs)
        kills.Logged.teacher = self
    cka.Teacher.__init__, kills.Logged.forward = noted, forward


# how it is damaged between two attempts -----------------------------------------------------------

def to_newest(act, file="tensors.safetensors"):
    """act(path) on a file of the newest checkpoint."""
    return lambda out: act(sorted((out / "checkpoints").glob("step-*"))[-1] / file)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


def pickled(path):
    """A pickle that would leave a trace, under the name of a file that is read."""
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(path.parent.parent.parent / "pwned"),)
    torch.save(Payload(), path)


class Fault(NamedTuple):
    what: str
    happens: object = None    # in the first attempt: (rank) -> None
    ends: int = 1             # its exit status; 1: an error, 143: SIGTERM, 130: SIGINT, 0: none
    says: str = ""            # what its error or its warnings say
    processes: int = 1
    least: int = 0            # steps in the newest whole checkpoint afterwards
    damage: object = None     # between the attempts: (folder of the run) -> None
    again: dict = {}          # other settings of the second attempt
    refused: str = ""         # what the second attempt says; "": it ends as if nothing had been


DIES = in_step(10, lambda student, rank: os.kill(os.getpid(), signal.SIGKILL))
FAULTS = [
    Fault("nothing", None, 0),
    Fault("killed", DIES, -9, least=8),
    Fault("one of two is killed", signals(9, rank=1), -9, processes=2, least=4),
    Fault("SIGTERM", signals(15), 143, "stopped by SIGTERM after step 7 of 18", least=7),
    Fault("SIGINT", signals(2), 130, "stopped by SIGINT after step 7 of 18", least=7),
    Fault("SIGTERM, to one of two", signals(15, rank=1), 143, "SIGTERM after step 7", 2, 7),
    Fault("SIGINT twice", signals(2, 2), 130, "KeyboardInterrupt", least=4),
    Fault("SIGTERM, then SIGINT", signals(15, 2), 130, "KeyboardInterrupt", least=4),
    Fault("NaN in a teacher", nan_teacher, 1, "the answer of teacher 't1'"),
    Fault("a gradient of NaN", bad_gradient(), 1, "the gradient (first of ", least=4),
    Fault("a gradient of NaN, in one of two", bad_gradient(of=1), 1, "the gradient (first", 2, 4),
    Fault("a teacher is changed", moving_teacher, 1, "teacher 't2' changed during amalgamation"),
    Fault("full disk, from the first file on", full_disk(0), 1, "No space left on device"),
    Fault("full disk, in the 1st checkpoint", full_disk(9), 1, "the run goes on", least=0),
    Fault("full disk, in the 2nd checkpoint", full_disk(15), 1,
          "can be continued from step-00000004",
          least=4),
    Fault("full disk, at the end", full_disk(32), 1, "No space left on device", least=12),
    Fault("newest cut", DIES, -9, damage=to_newest(lambda p: os.truncate(p, 999)), least=8,
          again=dict(says="tensors.safetensors is not what SHA256SUMS says")),
    Fault("newest flipped", DIES, -9, damage=to_newest(flip), least=8,
          again=dict(says="step-00000008 is not used")),
    Fault("a file of the newest is missing", DIES, -9, damage=to_newest(Path.unlink), least=8,
          again=dict(says="step-00000008 is not used")),
    Fault("no manifest", DIES, -9, damage=to_newest(Path.unlink, "SHA256SUMS"), least=8,
          again=dict(says="it has no SHA256SUMS")),
    Fault("a pickle among them", DIES, -9, damage=to_newest(pickled), least=8,
          again=dict(says="step-00000008 is not used")),
    Fault("a link among them", DIES, -9, least=8, again=dict(says="is no plain file"),
          damage=to_newest(
        lambda p: (p.rename(p.with_name("x")), p.symlink_to(p.with_name("x"))))),
    Fault("what the teachers said is lost", DIES, -9, least=8,
          damage=lambda out: flip(out / "checkpoints" / "beliefs" / "tensors.safetensors")),
    Fault("all of them are lost", DIES, -9, damage=lambda out: shutil.rmtree(out / "checkpoints"),
          least=8, again=dict(says="nothing to resume")),
    Fault("another learning rate", DIES, -9, least=8, again=dict(lr=1.),
          refused="lr: '0.002' then"),
    Fault("another seed", DIES, -9, least=8, again=dict(seed=1), refused="seed: '0' then, '1' now"),
    Fault("other teachers", DIES, -9, least=8, again=dict(teachers_seed=1),
          refused="teachers.t0.weights: "),
    Fault("other classes", DIES, -9, least=8,
          again=dict(classes=(list("abcde"), *kills.CLASSES[1:])),
          refused="classes: "),
    Fault("other images", DIES, -9, least=8, again=dict(images_seed=1), refused="data.sha256: "),
    Fault("another format", DIES, -9, least=8, damage=lambda out: rewritten(out, format="cka_nb 9"),
          again=dict(says="its format is 'cka_nb 9'", first_weights=0)),
    Fault("one process instead of two", signals(9, rank=0), -9, processes=2, least=4,
          again=dict(processes=1), refused="processes: '2' then, '1' now"),
]


def rewritten(out, **values):
    """The numbers of all checkpoints changed by somebody who knows how the manifest is made."""
    from cka_nb.checkpoints import MANIFEST, manifest_of, read_whole
    for there in (out / "checkpoints").glob("step-*"):
        files = read_whole(there)
        files["numbers.json"] = json.dumps(json.loads(files["numbers.json"]) | values).encode()
        for name, data in (files | {MANIFEST: manifest_of(files)}).items():
            (there / name).write_bytes(data)


# the test -----------------------------------------------------------------------------------------

def run(top, name, processes=1, happens=None, **settings):
    """An attempt: exit status of each process, and what they said in a line each."""
    errors = top / f"{name}.txt"

    def child(rank):
        warnings.resetwarnings()
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_: print(message, file=sys.stderr)
        kills.Logged.log = os.devnull
        if happens:
            happens(rank)
        try:
            amalgamated(top / "run", os.devnull, SAVE, **settings)
        except KeyboardInterrupt as stop:
            print("KeyboardInterrupt", stop, file=sys.stderr)
            sys.stderr.flush()
            os._exit(128 + getattr(stop, "number", 2))
    ended = attempt(child, processes, {}, errors)
    return ended, errors.read_text()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    found = {}

    def of(processes):
        if processes not in found:
            top = tmp_path_factory.mktemp(f"of{processes}")
            ended, said = run(top, "whole", processes)
            assert set(ended.values()) == {0}, said
            found[processes] = outcome(top / "run")
        return found[processes]
    return of


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what.replace(" ", "_"))
def test_a_fault_is_said_and_the_run_goes_on(fault, tmp_path, undisturbed):
    ended, said = run(tmp_path, "first", fault.processes, fault.happens)
    assert fault.ends in ended.values(), said
    assert fault.says in " ".join(said.split()), said
    if fault.ends:
        assert newest(tmp_path / "run") >= fault.least, said
        assert not (tmp_path / "run" / "run.json").exists()
    if fault.damage:
        fault.damage(tmp_path / "run")
    more = {"processes": fault.processes, "first_weights": 7 * bool(newest(tmp_path / "run"))}
    more |= fault.again
    expected = more.pop("says", "")
    ended, said = run(tmp_path, "second", **more)
    assert expected in " ".join(said.split()), said
    assert not (tmp_path / "run" / "pwned").exists() and not (tmp_path / "pwned").exists()
    if fault.refused:
        assert set(ended.values()) == {1} and fault.refused in " ".join(said.split()), said
        assert newest(tmp_path / "run") >= fault.least  # nothing is lost by it
    else:
        assert set(ended.values()) == {0}, said
        assert outcome(tmp_path / "run") == undisturbed(fault.processes)


def test_an_image_that_cannot_be_read_is_named_before_the_first_step(tmp_path):
    from PIL import Image
    for i in range(9):
        Image.effect_noise((8, 8), 50).save(tmp_path / f"{i}.png")
    (tmp_path / "7.png").write_bytes((tmp_path / "7.png").read_bytes()[:-30])
    teachers = [cka.Teacher(kills.network(5), c, c[0]) for c in (list("01234"), list("56789"))]
    student = cka.Student(kills.network(10), cka.LabelSpace(teachers), input_size=(1, 8, 8))
    with pytest.raises(ValueError, match=r"7\.png"):
        cka.amalgamate(teachers, student, cka.ImageFiles(tmp_path, (1, 8, 8)), epochs=1, views=1,
                       out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_port_that_is_taken_is_not_asked_for():
    import socket
    with socket.socket() as taken:
        with suppress(OSError):  # taken by somebody else: as well
            taken.bind(("127.0.0.1", 29500))
        assert launched(rank, 2) == [0, 1]


def print_campaigns():
    print(json.dumps(campaign(4, 1, (1,)) | campaign(2, 2, (2,))))


def test_kills_at_random_moments(tmp_path):
    """A few of the hundred of results/kills.json, with another seed; forked from a process without
    threads, since a child of one that has some may wait for ever."""
    status, said = forked(print_campaigns, log=tmp_path / "log.txt")
    assert status == 0, said
    for count, rows in json.loads(said.splitlines()[-1]).items():
        assert rows["runs_equal_to_the_last_bit"] == rows["runs"], (count, rows)
        assert rows["kills"] >= 2


def test_the_same_run_with_the_oldest_versions(tmp_path, undisturbed):
    """Another PyTorch rounds elsewhere: losses agree to 1e-5. (The same one under Python 3.13: all
    bits do.)"""
    oldest = ROOT / ".venv-colab" / "bin" / "python"
    program = ("import kills, sys, warnings; warnings.simplefilter('ignore'); "
               f"kills.amalgamated({str(tmp_path / 'run')!r}, '{os.devnull}', {SAVE})")
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    subprocess.run([oldest, "-c", program], check=True, env=os.environ | {"PYTHONPATH": paths})
    for its, ours in zip(outcome(tmp_path / "run")[1], undisturbed(1)[1], strict=True):
        assert its["loss"] == pytest.approx(ours["loss"], rel=1e-5)


# from outside -------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two teachers and a heap of pictures, as the command line wants them."""
    from PIL import Image
    top = tmp_path_factory.mktemp("folders")
    train = cka.digits(seed=0)[0]
    torch.manual_seed(0)
    for name, classes in (("low", list("01234")), ("high", list("56789"))):
        cka.train_teacher(cka.SmallResNet(5, 1), train, classes, epochs=1, name=name, device="cpu",
                          out=top / name)
    (top / "heap").mkdir()
    for i, x in enumerate(train.images[:96]):
        Image.fromarray((x[0] * 255).byte().numpy()).save(top / "heap" / f"{i}.png")
    return top


def started(top, out, *more, launcher=(sys.executable, "-m", "cka_nb")):
    """The command line, at work in a process of its own."""
    command = [*launcher, "amalgamate", "--teacher", top / "low", "--teacher", top / "high",
               "--images", top / "heap", "--backbone", "resnet_small", "--epochs", "200", "--ema",
               "0.9",
               "--batch-size", "32", "--views", "1", "--out", out, "--device", "cpu", *more]
    return subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, stdout=subprocess.PIPE,
                            text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def until(there, process, seconds=120):
    begun = time.monotonic()
    while not there() and process.poll() is None:
        assert time.monotonic() - begun < seconds, "nothing happens"
        time.sleep(.02)


@pytest.mark.parametrize("number, status", [
    (signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)])
def test_a_signal_to_the_command_line(number, status, folders, tmp_path):
    def stopped(*more):
        process = started(folders, tmp_path / "run", "--save-steps", "1", *more)
        begin = len(seen)
        until(lambda: newest_name(tmp_path / "run") not in (None, *seen), process)
        process.send_signal(number)
        out, said = process.communicate(timeout=120)
        assert process.returncode == status, said
        (line,) = [text for text in said.splitlines() if "stopped by" in text]
        assert f"stopped by {number.name} after step" in line and "--resume" in line
        assert "Traceback" not in said
        seen.append(newest_name(tmp_path / "run"))
        assert len(seen) == begin + 1 and seen[-1] in line
    seen = []
    stopped()
    stopped("--resume")
    assert seen[1] > seen[0]


def newest_name(out):
    names = sorted(p.name for p in (out / "checkpoints").glob("step-????????"))
    return names[-1] if names else None


@pytest.mark.slow
def test_a_signal_to_the_launcher_of_two(folders, tmp_path):
    torchrun = (Path(sys.executable).with_name("torchrun"), "--standalone", "--nproc_per_node", "2",
                "-m", "cka_nb")
    process = started(folders, tmp_path / "run", "--save-steps", "1", launcher=torchrun)
    until(lambda: newest_name(tmp_path / "run"), process)
    before = newest(tmp_path / "run")
    process.send_signal(signal.SIGTERM)
    out, said = process.communicate(timeout=120)
    assert process.returncode and said.count("stopped by SIGTERM after step") == 1, said
    assert newest(tmp_path / "run") >= before


def test_the_stop_button_of_a_notebook(tmp_path):
    """Interrupt a cell of a real kernel: it finishes its step; the next cell goes on and ends."""
    from jupyter_client.manager import start_new_kernel
    manager, client = start_new_kernel(env=os.environ | {"OMP_NUM_THREADS": "1"},
                                       startup_timeout=120)
    cell = (f"import sys; sys.path.insert(0, {str(Path(kills.__file__).parent)!r})\nimport kills\n"
            f"history = kills.amalgamated({str(tmp_path / 'run')!r}, '{os.devnull}', "
            "1, **settings)\n"
            "print(len(history), 'steps')")
    try:
        asked = client.execute("settings = dict(batch_size=8, ownership=None, epochs=15)\n" + cell,
                               stop_on_error=False)  # else the kernel drops what comes at once
        begun = time.monotonic()
        while not newest_name(tmp_path / "run") and time.monotonic() < begun + 120:
            time.sleep(.02)
        manager.interrupt_kernel()
        while (reply := client.get_shell_msg(timeout=120))["parent_header"]["msg_id"] != asked:
            pass  # a kernel slow to start answers its greeting more than once
        reply = reply["content"]
        assert reply["status"] == "error" and reply["ename"] == "Stopped", reply
        assert "stopped by SIGINT after step" in reply["evalue"]
        assert "resume=True" in reply["evalue"]
        done = newest(tmp_path / "run")
        assert f"step-{done:08}" in reply["evalue"]
        # the kernel's own handler is back, and the run goes on
        said = []
        client.execute_interactive(cell, timeout=300, output_hook=lambda message: said.append(
            message["content"].get("text", "")))
        assert "180 steps" in "".join(said), said
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_killed_after_its_last_word_a_run_is_finished(tmp_path, monkeypatch):
    torch.manual_seed(0)
    teachers = [cka.Teacher(cka.SmallResNet(2, 1, 4), [*names], names) for names in ("ab", "cd")]
    images, steps = torch.rand(64, 1, 8, 8), []

    class Counted(cka.ContrastiveAmalgamation):
        def forward(self, *said, **more):
            steps.append(1)
            return super().forward(*said, **more)

    def run():
        student = cka.Student("resnet_small", cka.LabelSpace(teachers), width=4)
        return cka.amalgamate(teachers, student, images, Counted(), epochs=3, batch_size=32,
                              views=1, device="cpu", out=tmp_path, resume=True, save_steps=1)

    def dies(self, *aside):
        raise KeyboardInterrupt
    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr("cka_nb.checkpoints.Checkpoints.remove", dies)
        run()
    assert (tmp_path / "run.json").is_file() and newest(tmp_path) == 5 and len(steps) == 6
    assert len(run()) == 6 and len(steps) == 6, "it was finished: no step is taken again"

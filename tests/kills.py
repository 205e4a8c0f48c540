"""Runs that are killed at random moments, resumed until they are done: results/kills.json.

usage: python tests/kills.py [KILLS] [SEED]     (default: 100 kills, seed 0)

A small amalgamation (batch norms, dropout, a running mean of the weights, contrast) runs on one
process and on two, and is killed by SIGKILL: in a random step, at a random operation on the disk
(with half of the file's bytes there), or after a random time. After every kill the newest
checkpoint that is whole is looked up, and the next attempt must begin with the step after it; in
the end the student's file and the history must be those of a run that nobody disturbed. With two
processes one of them dies, or both.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import accelerate  # noqa: F401  what a run imports, once for all the forked ones
import matplotlib.pyplot  # noqa: F401
import torch
from torch import nn

import cka_nb as cka
from cka_nb.checkpoints import Checkpoints, read_whole
from cka_nb.files import versions, write_json

STEPS, BATCH, IMAGES = 18, 16, 100  # three epochs of six steps
CLASSES = (list("01234"), list("4567"), list("89"))


def network(classes):
    """A small network with all that has a memory: batch norm, and dropout's random numbers."""
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(.2),
                         nn.Flatten(), nn.Linear(8 * 36, 12), nn.Tanh(), nn.Linear(12, classes))


class Logged(cka.ContrastiveAmalgamation):
    """The objective, which notes each step it is asked about, and can die in one."""

    log, dies_in = None, None

    def forward(self, *said, **more):
        with open(Logged.log, "a") as file:
            file.write("x\n")
        if Logged.dies_in is not None:
            if Logged.dies_in == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            Logged.dies_in -= 1
        return super().forward(*said, **more)


def amalgamated(out, log, save_steps, first_weights=0, teachers_seed=0, images_seed=0,
                classes=CLASSES, **settings):
    """The run itself, as a user would write it; the student's first weights are never the same."""
    Logged.log = log
    torch.manual_seed(teachers_seed)
    teachers = [cka.Teacher(network(len(c)), c, f"t{k}") for k, c in enumerate(classes)]
    torch.manual_seed(images_seed)
    images = torch.rand(IMAGES, 1, 8, 8)
    torch.manual_seed(first_weights)
    space = cka.LabelSpace(teachers)
    student = cka.Student(network(len(space)), space, input_size=(1, 8, 8))
    return cka.amalgamate(teachers, student, images, Logged(), device="cpu", out=out, resume=True,
                          save_steps=save_steps, save_minutes=0,
                          **dict(epochs=3, batch_size=BATCH, views=1, ema=.9) | settings)


def die_at_operation(count):
    """The count-th operation that changes the disk is not done: the process is killed there."""
    def counted(name, half=None):
        real = getattr(os, name)

        def called(*args, **kwargs):
            nonlocal count
            count -= 1
            if count < 0:
                if half:
                    half(*args)
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)
        setattr(os, name, called)

    def half_written(fd):
        if os.path.isfile(f"/proc/self/fd/{fd}"):
            os.truncate(fd, os.fstat(fd).st_size // 2)
    counted("fsync", half_written)
    for name in ("replace", "mkdir", "rename", "unlink", "rmdir"):
        counted(name)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def attempt(function, processes, deaths, errors=os.devnull, patience=120):
    """Fork processes that call function(rank), each with its death, if any; their ends, by rank.

    A death is ("step", n), ("operation", n) or ("time", seconds): the last one is ours to bring.
    Those who live print to `errors`, a file.
    """
    port, children = free_port(), {}
    for rank in range(processes):
        pid = os.fork()
        if pid == 0:
            _child(function, rank, processes, port, deaths.get(rank), errors)
        children[pid] = rank
    begun, ended = time.monotonic(), {}
    while len(ended) < processes:
        for pid, rank in children.items():
            if rank in ended:
                continue
            done, status = os.waitpid(pid, os.WNOHANG)
            passed = time.monotonic() - begun
            if done:
                ended[rank] = os.waitstatus_to_exitcode(status)
            elif (any(code for code in ended.values())  # who waits for the dead, waits for ever
                  or deaths.get(rank, "-")[0] == "time" and passed > deaths[rank][1]
                  or passed > patience):
                os.kill(pid, signal.SIGKILL)
        time.sleep(.005)
    return ended


def _child(function, rank, processes, port, death, errors):
    code, said = 1, os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for fd in (1, 2):
        os.dup2(said, fd)
    # a test may hold the old one
    sys.stderr = sys.stdout = open(said, "w", buffering=1)  # noqa: SIM115
    try:
        if processes > 1:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_PORT": str(port),
                           "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1"}
        if death and death[0] == "operation":
            die_at_operation(death[1])
        if death and death[0] == "step":
            Logged.dies_in = death[1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(rank)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def outcome(out):
    """What a finished run left: the student's bytes, and the history without its times."""
    history = json.loads((out / "history.json").read_text())
    return hashlib.sha256((out / "student" / "model.safetensors").read_bytes()).hexdigest(), [
        {k: v for k, v in record.items() if k not in ("seconds", "waiting")} for record in history]


def newest(out):
    """Steps in the newest checkpoint that is whole, looked up independently of the run."""
    for there in reversed(Checkpoints(out / "checkpoints", {}).folders()):
        try:
            return json.loads(read_whole(there)["numbers.json"])["step"]
        except ValueError:
            pass
    return 0


def death(chance, typical):
    kind = chance.choice(["step", "operation", "time"])
    return kind, {"step": lambda: chance.randrange(STEPS),
                  "operation": lambda: chance.randrange(90),
                  "time": lambda: chance.uniform(0, typical)}[kind]()


def killed_until_done(top, chance, processes, typical):
    """One run, killed up to three times, then left alone: [(kind, steps repeated), ...]."""
    out, kills, save_steps = top / "run", [], chance.choice([1, 2, 3, 5])
    wanted = chance.randrange(1, 4)
    while True:
        whole, log = newest(out), top / f"log{len(kills)}"
        finished = (out / "run.json").exists()
        its = {}
        if len(kills) < wanted:
            who = range(processes) if chance.random() < .3 else [chance.randrange(processes)]
            its = {rank: death(chance, typical) for rank in who}
        run = lambda rank: amalgamated(out, f"{log}.{rank}", save_steps,
                                       first_weights=len(kills) if whole else 0)
        ended = attempt(run, processes, its, top / "errors")
        path = Path(f"{log}.0")
        steps = len(path.read_text().split()) if path.exists() else 0
        path.unlink(missing_ok=True)
        if all(code == 0 for code in ended.values()):
            assert steps == (0 if finished else STEPS - whole), "not continued where it was whole"
            return kills
        assert -signal.SIGKILL in ended.values(), f"{ended} {(top / 'errors').read_text()[-3000:]}"
        done = max(whole + steps - 1, 0)  # the last of them was not finished
        kills.append((next(iter(its.values()))[0] if its else "none", done - newest(out)))
        assert its, "died unasked"
        assert newest(out) >= whole and done - newest(out) <= save_steps, \
            "more is lost than allowed"


def campaign(kills, seed, processes=(1, 2)):
    """At least so many runs and kills, shared out over the numbers of processes; what was found."""
    chance, found = random.Random(seed), {}
    for count in processes:
        with tempfile.TemporaryDirectory() as folder:
            top = Path(folder)
            begun = time.monotonic()
            ended = attempt(lambda rank: amalgamated(top / "whole", top / f"whole.{rank}", 0),
                            count,
                            {}, top / "errors")
            assert set(ended.values()) == {0}, (top / "errors").read_text()
            typical, whole = time.monotonic() - begun, outcome(top / "whole")
            done, runs, equal = [], 0, 0
            while min(len(done), runs) < kills // len(processes):
                place = top / str(runs)
                place.mkdir()
                done += killed_until_done(place, chance, count, typical)
                runs, equal = runs + 1, equal + (outcome(place / "run") == whole)
                shutil.rmtree(place)
                if sys.stderr.isatty() or kills >= 100:
                    print(f"{count} process(es): {len(done)} kills, {equal} of {runs} runs equal",
                          file=sys.stderr)
        kinds = [kind for kind, _ in done]
        found[f"{count} process" + "es" * (count > 1)] = {
            "kills": len(done), "by_kind": {k: kinds.count(k) for k in sorted(set(kinds))},
            "runs": runs, "runs_equal_to_the_last_bit": equal,
            "steps_repeated": {"most": max(n for _, n in done), "all": sum(n for _, n in done)}}
    return found


if __name__ == "__main__":
    kills, seed = (int(text) for text in (sys.argv[1:] + ["100", "0"][len(sys.argv) - 1:])[:2])
    begun = time.time()
    rows = campaign(kills, seed)
    write_json(Path(__file__).resolve().parent.parent / "results" / "kills.json", {
        "command": f"python tests/kills.py {kills} {seed}", "seed": seed, "steps_per_run": STEPS,
        "device": "cpu", "versions": versions(), "seconds": round(time.time() - begun),
        "rows": rows})
    print(json.dumps(rows, indent=1))

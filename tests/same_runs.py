"""Do two commits make the same runs? A matrix of tiny ones, compared to the last bit.

usage: python tests/same_runs.py COMMIT     (the commit to compare this checkout with)

Each commit runs the matrix in a process of its own, on this machine and this torch: weights,
histories without times, beliefs' summary, texts of errors, what run.json says. The second one also
goes on with a run that the first one began. Whatever differs is printed; the exit status is 1 then.
"""

import copy
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
TIMES = ("seconds", "waiting")


class Breaking:
    """Added to an objective: it raises when it is called for the n-th time."""

    dies_in = None  # of the class: nothing that a run could be told by

    def forward(self, *args, **kwargs):
        kind = type(self)
        if kind.dies_in is not None:
            kind.dies_in -= 1
            if kind.dies_in < 0:
                raise ZeroDivisionError("as if the machine had gone")
        return super().forward(*args, **kwargs)


def objectives(cka):
    """Objectives of ours with a flaw or a habit each."""
    class Dies(Breaking, cka.ContrastiveAmalgamation):
        pass

    class Counts(Breaking, cka.ContrastiveAmalgamation):
        seen = 0  # and of each object: a run goes on counting where it was stopped

        def forward(self, *args, **kwargs):
            self.seen += 1
            return {k: v / (1 + self.seen / 100)
                    for k, v in super().forward(*args, **kwargs).items()}

    def not_finite(student, teachers, ownership, space):
        return {"joint": student.logits.sum() * float("nan")}

    def wrong(student, teachers, ownership, space):
        return {"joint": student.logits}

    return Dies, Counts, not_finite, wrong


def plain(history):
    """A history, or one of several, without what the clock says."""
    return [{k: v for k, v in record.items() if k not in TIMES} for record in history]


def says(folder):
    """What a run left in its folder."""
    run = json.loads((folder / "run.json").read_text())
    return [sorted(p.name for p in folder.iterdir()), run]


def matrix(folder, begun):
    """Everything the matrix finds out, as JSON; `folder` is empty, `begun` has an earlier run."""
    import torch

    import cka_nb as cka
    from cka_nb.baselines import (
        CommonFeatureLearning,
        joint_distillation,
        owned_distillation,
        task_distillation,
        unified_distillation,
    )
    from cka_nb.processes import launched
    torch.set_num_threads(1)
    train, held, _ = cka.digits(0)
    found, x = {}, train.images[:160]

    def taught(make, classes, **more):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            net = make(len(classes), 1)
        return cka.train_teacher(net, train, list(classes), device="cpu",
                                 **dict(epochs=2, seed=1) | more)
    teachers = [taught(cka.SmallResNet, "01234"), taught(cka.SmallVGG, "56789")]
    found["teachers"] = [cka.fingerprint(t.model) for t in teachers]
    space = cka.LabelSpace(teachers)
    torch.manual_seed(0)
    fresh = cka.Student("resnet_small", space, input_size=(1, 8, 8))
    Dies, Counts, not_finite, wrong = objectives(cka)

    def run(objective=None, images=x, names=teachers, **more):
        student = copy.deepcopy(fresh)
        try:
            history = cka.amalgamate(names, student, images, objective, **dict(
                epochs=2, batch_size=32, views=2, device="cpu") | more)
        except (ValueError, FloatingPointError, TypeError, ZeroDivisionError) as error:
            text = str(error).replace(str(folder), "FOLDER")
            return [type(error).__name__, text]
        return [cka.fingerprint(student), plain(history)]
    items = [(image, 0) for image in (x * 255).byte()]
    loader = torch.utils.data.DataLoader(items, batch_size=32, num_workers=2)
    cases = dict(
        plain={}, ema_accumulate=dict(ema=.9, accumulate=2), fixed_views=dict(fixed_views=2),
        no_views=dict(views=0), no_augmentation=dict(augment=None),
        kd=dict(objective=joint_distillation), kd_task=dict(objective=task_distillation),
        uhc=dict(objective=unified_distillation), cfl=dict(objective=CommonFeatureLearning()),
        kd_owned=dict(objective=owned_distillation()),
        energies=dict(ownership=cka.EnergyOwnership()),
        class_conditional=dict(ownership=cka.ClassConditionalOwnership(space)),
        monitored=dict(monitor=held), bf16=dict(mixed_precision="bf16"),
        crops=dict(augment=cka.random_crop_flip), items=dict(images=items),
        loader=dict(images=loader, batch_size=None), counts=dict(objective=Counts()),
        not_finite=dict(objective=not_finite), wrong_parts=dict(objective=wrong),
        no_lr=dict(lr=0.), odd_batch=dict(batch_size=0), both=dict(resume=True, overwrite=True),
        cached=dict(fixed_views=2, cache=folder / "cache", out=folder / "cached"),
        cached_again=dict(fixed_views=2, cache=folder / "cache"),
        other_cache=dict(fixed_views=3, cache=folder / "cache"),
        kept=dict(out=folder / "kept", monitor=held),
        finished=dict(out=folder / "kept", resume=True),
        taken=dict(out=folder / "kept"), other=dict(out=folder / "kept", resume=True, lr=1e-3),
        over=dict(out=folder / "kept", overwrite=True, seed=3))
    for name, case in cases.items():
        found[name] = run(**case)

    def stopped(out, kind, **more):
        for n in (4, 3, None):  # in the fifth step, in the fourth after it, not at all
            kind.dies_in = n
            yield run(kind(), out=out, resume=True, save_steps=1, save_minutes=0, epochs=3, **more)
    found["stopped_twice"] = list(stopped(folder / "stopped", Dies, ema=.9))
    found["counts_stopped"] = list(stopped(folder / "counts", Counts))
    Dies.dies_in = 4
    begin = run(Dies(), out=folder / "begun", save_steps=1, save_minutes=0, epochs=3)
    Dies.dies_in = None
    found["goes_on"] = begin, run(Dies(), out=begun or copied(folder / "begun", folder / "went_on"),
                                  resume=True, save_steps=1, save_minutes=0, epochs=3)
    found["teacher_kept"] = cka.fingerprint(taught(cka.SmallVGG, "012", out=folder / "t").model)
    assert (folder / "counts" / "run.json").exists(), found["counts_stopped"]
    found["files"] = [says(folder / name) for name in ("cached", "kept", "stopped", "counts", "t")]
    student = cka.Student.load(folder / "kept" / "student")
    found["judged"] = [cka.evaluate(m, held, device="cpu", unknown="wrong")
                       for m in (student, teachers, teachers[0])]
    report = cka.inspect(teachers, x, views=2, device="cpu")
    found["inspected"] = report

    import workers
    found["two_processes"] = [[w.tolist(), plain(h)] for w, h in launched(workers.amalgamated, 2)]
    from card import simulated_card, skip_reason
    if not skip_reason():
        with simulated_card():
            found["simulated_card"] = run(device="cuda"), run(device="cuda", mixed_precision="bf16")
    return found


def copied(of, to):
    """A copy of a folder."""
    import shutil
    return shutil.copytree(of, to)


def differences(a, b, path=""):
    """Where two values of JSON differ, a line each."""
    if isinstance(a, dict) and isinstance(b, dict):
        for k in {**a, **b}:
            if k not in a or k not in b:
                yield f"{path}/{k}: only in the {'second' if k in b else 'first'}"
            else:
                yield from differences(a[k], b[k], f"{path}/{k}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for k, (one, other) in enumerate(zip(a, b, strict=True)):
            yield from differences(one, other, f"{path}/{k}")
    elif a != b:
        yield f"{path}: {str(a)[:300]} | {str(b)[:300]}"


def run_in(tree, folder, begun=""):
    """The matrix of one checkout, in a process of its own."""
    folder.mkdir()
    command = [sys.executable, Path(__file__), "--matrix", folder, begun]
    environment = os.environ | {"PYTHONPATH": f"{tree}:{tree / 'tests'}", "OMP_NUM_THREADS": "1"}
    subprocess.run([*map(str, command)], env=environment, cwd=folder, check=True)
    return json.loads((folder / "found.json").read_text())


def main():
    """Compare this checkout with a commit; the number of differences."""
    with tempfile.TemporaryDirectory() as top:
        top = Path(top)
        tree = top / "then"
        subprocess.run(["git", "worktree", "add", "--detach", "-q", tree, sys.argv[1]], cwd=HERE,
                       check=True)
        try:
            then = run_in(tree, top / "runs")
            (top / "begun").mkdir()
            now = run_in(HERE.parent, top / "runs_now", copied(top / "runs" / "begun", top / "old"))
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=HERE, check=True)
        found = list(differences(then, now))
        print(*found, f"{len(then)} cases, {len(found)} differences", sep="\n")
        return len(found)


if __name__ == "__main__":
    if sys.argv[1] != "--matrix":
        sys.exit(bool(main()))
    sys.path.remove(str(HERE))  # the tests beside the package that is looked at come first
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer = matrix(Path(sys.argv[2]), sys.argv[3] and Path(sys.argv[3]))
    Path(sys.argv[2], "found.json").write_text(json.dumps(answer, default=str))

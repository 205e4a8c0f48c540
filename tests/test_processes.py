"""The same run on one process and on several, cached or not, whole or in parts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from workers import amalgamated, from_a_sample, gradient_without_positives, seen_images

import cka_nb as cka
from cka_nb.processes import launched

EXACT = dict(rtol=1e-12, atol=1e-12)


@pytest.fixture(scope="module")
def alone():
    return amalgamated()


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_take_the_steps_of_one(processes, alone):
    for weights, history in launched(amalgamated, processes):
        assert_close(weights, alone[0], **EXACT)
        for record, its in zip(history, alone[1], strict=True):
            assert_close(record["loss"], its["loss"], rtol=1e-6, atol=1e-6)


def test_beliefs_fitted_to_a_sample_are_those_of_one_process(alone):
    by_sample = from_a_sample()
    for weights in launched(from_a_sample, 2):
        assert_close(weights, by_sample, **EXACT)
    assert (by_sample - alone[0]).abs().max() > 1e-6, "all images were held"


def test_the_steps_are_not_all_alike(alone):
    """The comparison above can fail: another batch, seed or objective leads elsewhere."""
    for other in (dict(seed=1), dict(batch_size=20), dict(objective=cka.owned_distillation())):
        assert (amalgamated(**other)[0] - alone[0]).abs().max() > 1e-6


def test_a_process_may_be_without_positives():
    for gradient in launched(gradient_without_positives, 2):
        assert_close(gradient, gradient_without_positives(), **EXACT)


def test_no_image_twice_in_an_epoch_and_one_process_writes(tmp_path):
    answers = launched(seen_images, 2, str(tmp_path / "run"))
    by_rank = [shown for _, shown, _ in answers]
    assert [rank for rank, _, _ in answers] == [0, 1]
    assert answers[0][2] == ["curves.png", "history.json", "run.json", "student"]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 2
    left_out = []
    for epoch in range(3):
        seen = {tuple(batch) for shown in by_rank for batch in _of_epoch(shown, epoch)}
        indices = [i for batch in seen for i in batch]
        assert len(indices) == len(set(indices)) == 96  # of 100 images, in batches of 24
        left_out.append(frozenset(range(100)) - set(indices))
    assert len(set(left_out)) == 3  # the remainder rotates


def _of_epoch(shown, epoch):
    """What a process showed in an epoch of 4 steps; each step's share is taken twice or so."""
    steps = list(dict.fromkeys(tuple(batch) for batch in shown))
    return steps[4 * epoch:4 * epoch + 4]


@pytest.mark.parametrize("fixed_views", [1, 3])
def test_cached_answers_lead_to_the_same_student(fixed_views, tmp_path):
    settings = dict(steps_by_sgd=True, fixed_views=fixed_views)
    asked, kept = (amalgamated(**settings, **more) for more in ({}, {"cache": tmp_path / "kept"}))
    again = amalgamated(**settings, cache=tmp_path / "kept")
    assert torch.equal(kept[0], again[0])
    for record, its in zip(asked[1], kept[1], strict=True):
        assert_close(record["loss"], its["loss"], rtol=1e-5, atol=1e-5)
    assert_close(asked[0], kept[0], rtol=1e-4, atol=1e-5)  # kept in float32
    assert (asked[0] - amalgamated()[0]).abs().max() > 1e-4  # fresh views lead elsewhere


def test_several_processes_share_a_cache(tmp_path):
    settings = dict(fixed_views=2, cache=str(tmp_path / "kept"))
    shared = launched(_kept, 2, settings)
    alone = amalgamated(**settings)  # asks nobody: the two have asked about everything
    for weights in shared:
        assert_close(weights, alone[0], **EXACT)


def _kept(settings):
    return amalgamated(**settings)[0]


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulation_is_exact_without_contrast(accumulate):
    owned = [amalgamated(objective=cka.owned_distillation(), accumulate=a)[0]
             for a in (1, accumulate)]
    assert_close(*owned, rtol=1e-6, atol=1e-8)  # teachers' shares are means in float32
    contrast = [amalgamated(accumulate=a)[0] for a in (1, accumulate)]
    assert (contrast[0] - contrast[1]).abs().max() > 1e-6  # it compares within a part


def test_accumulation_on_two_processes(alone):
    settings = dict(objective=cka.owned_distillation(), accumulate=3)
    for weights in launched(_kept, 2, settings):
        assert_close(weights, amalgamated(**settings)[0], **EXACT)


def test_running_mean_of_the_weights():
    """Against the recursion itself, over the weights that runs of 1, 2 and 3 epochs end with."""
    whole = dict(batch_size=100, augment=None, views=0)
    runs = []
    for steps in (1, 2):
        runs.append(amalgamated(**whole, epochs=2, ema=None if steps == 2 else 1e-9)[0])
    nearly_last, last = runs
    assert_close(nearly_last, last, rtol=0, atol=1e-6)  # a mean that forgets at once
    slow = amalgamated(**whole, epochs=2, ema=.9)[0]
    first = amalgamated_first_step(**whole)
    assert_close(slow, .9 * first + .1 * last, **EXACT)


def amalgamated_first_step(**settings):
    """The weights after the first of two steps: the mean with a decay of almost 1 starts there."""
    return amalgamated(**settings, epochs=2, ema=1 - 1e-15)[0]


def test_launched_from_the_command_line(tmp_path):
    """Two processes, started as `accelerate launch` starts them on GPUs: one report, one voice."""
    from PIL import Image
    train = cka.digits(seed=0)[0]
    torch.manual_seed(0)
    for name, classes in (("low", list("01234")), ("high", list("56789"))):
        teacher = cka.train_teacher(cka.SmallResNet(5, 1), train, classes, epochs=1, name=name)
        teacher(train.images[:1])  # learns the size of its images
        teacher.save(tmp_path / name)
    (tmp_path / "images").mkdir()
    for i, x in enumerate(train.images[:64]):
        Image.fromarray((x[0] * 255).byte().numpy()).save(tmp_path / "images" / f"{i}.png")
    launch = [Path(sys.executable).with_name("torchrun"), "--standalone", "--nproc_per_node",
              "2", "-m", "cka_nb"]
    command = ["amalgamate", "--teacher", tmp_path / "low", "--teacher", tmp_path / "high",
               "--images", tmp_path / "images", "--backbone", "resnet_small", "--epochs", "1",
               "--batch-size", "32", "--views", "1", "--fixed-views", "1",
               "--cache", tmp_path / "kept", "--out", tmp_path / "run", "--device", "cpu"]
    run = subprocess.run([*launch, *command], capture_output=True, text=True, cwd=tmp_path,
                         env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("a student of 10 classes") == 1
    made = json.loads((tmp_path / "run" / "run.json").read_text())
    assert made["processes"] == 2 and made["cached"] is True
    assert (tmp_path / "run" / "report.html").is_file()
    assert cka.Student.load(tmp_path / "run" / "student").classes == list("0123456789")

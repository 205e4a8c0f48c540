"""Everything that computes, on a simulated CUDA device: no device error, few waits, models at home.

The card is simulated (card.py): what these tests show is where tensors live and when the host
waits, not speed and not CUDA's rounding.
"""

import copy
import itertools
import random
import re
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from inspect import signature
from unittest.mock import patch

import pytest
import torch
from card import simulated_card, skip_reason
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

import cka_nb as cka
from cka_nb import baselines, core, data, devices, training
from cka_nb.asking import MeanAnswers, shared_backbones
from cka_nb.contrast import in_blocks

pytestmark = pytest.mark.skipif(bool(skip_reason()), reason=str(skip_reason()))
CLASSES = (list("012"), list("34"))
OBJECTIVES = {"cka": cka.ContrastiveAmalgamation, "kd": lambda: cka.joint_distillation,
              "kd_task": lambda: cka.task_distillation, "kd_owned": cka.owned_distillation,
              "uhc": lambda: cka.unified_distillation, "cfl": cka.CommonFeatureLearning}
OWNERSHIP = {"moments": None, "energy": lambda space: cka.EnergyOwnership(),
             "conditional": cka.ClassConditionalOwnership}
T4 = (7, 5)  # the capability of free Colab's card: no bf16, fp16 with a scaler


def network(classes, drop=0.0):
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 2),
                         nn.Flatten(), nn.Linear(150, 8), nn.Dropout(drop), nn.Linear(8, classes))


def parts(drop=0.0):
    """Two teachers, a student and 64 images, the same every time."""
    torch.manual_seed(0)
    teachers = [cka.Teacher(network(len(c)).train(), c, f"t{k}") for k, c in enumerate(CLASSES)]
    x = torch.rand(64, 1, 8, 8)
    for t in teachers:  # batch norms that remember
        t.model.train()(x + torch.randn(1))
    student = cka.Student(network(5, drop), cka.LabelSpace(teachers), input_size=(1, 8, 8))
    return teachers, student, (x * 255).byte()


def labelled(images):
    return cka.TensorImages(images, torch.arange(len(images)) % 5, list("01234"))


def go(objective=None, images=None, device=None, drop=0.0, **settings):
    """A run of two epochs of four steps; models, history."""
    teachers, student, x = parts(drop)
    quick = dict(epochs=2, batch_size=16, views=1,
                 ownership=cka.ClassConditionalOwnership(cka.LabelSpace(teachers), rounds=1))
    history = cka.amalgamate(teachers, student, x if images is None else images, objective,
                             device=device, **quick | settings)
    return teachers, student, history


def kinds_of(*models):
    return {p.device.type for m in models for p in [*m.parameters(), *m.buffers()]}


def losses(history):
    return torch.tensor([h["loss"] for h in history])


# every pair of options occurs in some run

OPTIONS = dict(
    images=["bytes", "floats", "not resident", "items", "loader", "folder"],
    objective=list(OBJECTIVES), ownership=list(OWNERSHIP), mixed_precision=["no", "bf16", "fp16"],
    views=[0, 8], keep=["nothing", "views", "answers"], ema=[None, .9], accumulate=[1, 2],
    monitor=[False, True])


def pairwise(options):
    """Rows of options in which every pair of two options' values occurs, chosen greedily."""
    draw, rows = random.Random(0), []
    left = {frozenset([(a, x), (b, y)]) for (a, xs), (b, ys) in
            itertools.combinations(options.items(), 2) for x in xs for y in ys}
    while left:
        new = lambda row: left & set(map(frozenset, itertools.combinations(row.items(), 2)))
        rows.append(max(({**{k: draw.choice(v) for k, v in options.items()},
                          **dict(min(left, key=sorted_text))} for _ in range(50)),
                        key=lambda row: len(new(row))))
        left -= new(rows[-1])
    return rows


def sorted_text(pair):
    return sorted(map(str, pair))


def images_of(kind, x, folder):
    if kind == "floats":
        return x / 255
    if kind == "items":
        return [{"image": i, "label": 0} for i in x]
    if kind == "loader":
        return DataLoader([(i, 0) for i in x], batch_size=16, num_workers=1)
    if kind == "folder":
        for k, i in enumerate(x):
            Image.fromarray(i[0].numpy()).save(folder / f"{k:02}.png")
        return cka.ImageFiles(folder, (1, 8, 8))
    return x


ROWS = pairwise(OPTIONS)
ALWAYS = 18  # every option in every setting, and most pairs; all pairs with `--flags slow`


def test_every_option_is_run_always():
    for name, its in OPTIONS.items():
        assert {row[name] for row in ROWS[:ALWAYS]} == {*its}, name


@pytest.mark.parametrize("row", [
    pytest.param(row, id="-".join(map(str, row.values())), marks=[pytest.mark.slow] * (k >= ALWAYS))
    for k, row in enumerate(ROWS)])
def test_every_pair_of_options_runs(row, tmp_path):
    row, (teachers, student, x) = dict(row), parts()
    before = [cka.fingerprint(t) for t in teachers]
    (tmp_path / "images").mkdir()
    kind, keep = row.pop("images"), row.pop("keep")
    objective, estimator = OBJECTIVES[row.pop("objective")](), OWNERSHIP[row.pop("ownership")]
    if row.pop("monitor"):
        row["monitor"] = labelled(x)
    if keep != "nothing":
        row["fixed_views"] = 2
    if keep == "answers":
        row["cache"] = tmp_path / "cache"
    capability = T4 if row["mixed_precision"] == "fp16" else (8, 0)
    with simulated_card(capability=capability) as card, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        full = patch.object(torch.cuda, "mem_get_info", lambda device=None: (0, 2**34))
        with full if kind == "not resident" else patch.object(devices, "DEVICES", devices.DEVICES):
            history = cka.amalgamate(
                teachers, student, images_of(kind, x, tmp_path / "images"), objective, epochs=1,
                batch_size=16, ownership=estimator and estimator(cka.LabelSpace(teachers)), **row)
        assert card.calls["convolution"] > 20, "nothing was computed there"
        assert kinds_of(*teachers, student) == {"cpu"}
        if isinstance(objective, nn.Module) and list(objective.parameters()):
            assert kinds_of(objective) == {"cpu"}
    assert len(history) == 4 and losses(history).isfinite().all()
    assert [cka.fingerprint(t) for t in teachers] == before


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_first_losses_are_those_of_the_cpu(name, precision):
    plain = losses(go(OBJECTIVES[name](), device="cpu")[2])[:4]
    with simulated_card(capability=T4 if precision == "fp16" else (8, 0)):
        there = losses(go(OBJECTIVES[name](), mixed_precision=precision)[2])[:4]
    # kernels of width .001 make its gradient, and in fp16 the first step overflow
    if name == "cfl":
        plain, there = plain[:1] / 50, there[:1] / 50
    within = 1e-4 if precision == "no" else 1e-2
    assert (there - plain).abs().max() < within


LIVES = None  # views until the program dies; in a view no graph is alive, which would not move here


def mortal_view(x, random):
    global LIVES
    if LIVES is not None:
        LIVES -= 1
        if LIVES < 0:
            raise KeyboardInterrupt
    return cka.random_affine(x, random)


@pytest.mark.parametrize("precision", ["no", "fp16"])
def test_killed_and_resumed_has_the_bits_of_one_go(precision, tmp_path):
    global LIVES
    settings = dict(mixed_precision=precision, ema=.9, save_steps=1, resume=True, drop=.3,
                    augment=mortal_view, monitor=labelled(parts()[2]))
    with simulated_card(capability=T4), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = cka.fingerprint(go(out=tmp_path / "whole", **settings)[1])
        for LIVES in (6, 3, None):  # four views are asked about first, then three steps are taken
            try:
                teachers, student, history = go(out=tmp_path / "pieces", **settings)
            except KeyboardInterrupt:
                assert LIVES == -1
    assert len(history) == 8 and cka.fingerprint(student) == whole
    assert student.provenance["device"] == "cuda"


def test_a_teacher_is_trained_there_saved_loaded_and_judged(tmp_path):
    x = labelled(parts()[2])
    settings = dict(classes=list("01234"), epochs=2, batch_size=16)
    plain = cka.train_teacher(network(5), x, device="cpu", out=tmp_path / "cpu", **settings)
    torch.manual_seed(0)
    first = network(5)
    with simulated_card(capability=T4), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        its = {p: cka.train_teacher(copy.deepcopy(first), x, mixed_precision=p, **settings)
               for p in ("no", "fp16", "auto")}
        here = cka.train_teacher(copy.deepcopy(first), x, device="cpu", **settings)
        taught = cka.train_teacher(copy.deepcopy(first), x,
                                   transform=cka.Preprocess(None, [.5], [.5]),
                                   out=tmp_path / "t", save_steps=1, **settings)
        assert kinds_of(first, *its.values(), here, taught) == {"cpu"}
        again = cka.Teacher.load(tmp_path / "t", network(5))
        assert cka.fingerprint(again) == cka.fingerprint(taught)
        judged = cka.evaluate(again, x)
        assert judged["count"] == 64 and kinds_of(again) == {"cpu"}
        there = cka.Teacher(network(5).to("cuda"), list("01234"),
                            transform=cka.Preprocess(None, [.5], [.5]))
        assert kinds_of(there) == {"cuda"} and there(x.images).logits.is_cuda
        moved = again.to("cuda")
        assert moved(x.images).logits.is_cuda, "an image of the CPU goes to the model"
        assert moved.traced(x.images[:4])[1].is_cuda
        assert cka.evaluate(moved, x, device="cpu")["joint"] == pytest.approx(judged["joint"])
        assert kinds_of(moved) == {"cuda"}, "a model of the card goes back to the card"
    torch.testing.assert_close(here(x.images).logits, its["no"](x.images).logits, atol=.02,
                               rtol=.02)
    assert not torch.equal(here(x.images).logits, plain(x.images).logits)


def test_a_student_of_the_card_predicts_is_saved_exported_and_teaches(tmp_path):
    with simulated_card(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        teachers, student, _ = go(out=tmp_path / "run", monitor=labelled(parts()[2]))
        x = parts()[2]
        names, p = student.predict(x)
        assert p.device.type == "cpu" and kinds_of(student) == {"cpu"} and len(names) == 64
        torch.testing.assert_close(p, student.predict(x, device="cpu")[1], atol=1e-5, rtol=1e-4)
        there = copy.deepcopy(student).to("cuda")
        assert there.predict(x)[1].is_cuda and there(x).logits.is_cuda
        assert there.predict(x.to("cuda"))[0] == names
        there.save(tmp_path / "there")
        again = cka.Student.load(tmp_path / "there", network(5))
        assert cka.fingerprint(again) == cka.fingerprint(student)
        teacher = cka.Teacher(student, student.classes, "student")
        pupil = cka.Student(network(5).to("cuda"), student.classes, input_size=(1, 8, 8))
        assert kinds_of(pupil) == {"cuda"}
        cka.amalgamate([teacher], pupil, x, epochs=1, batch_size=16, views=1)
        assert kinds_of(pupil) == {"cuda"} and kinds_of(teacher) == {"cpu"}
        finished = go(out=tmp_path / "run", resume=True, monitor=labelled(x))[1]
        assert cka.fingerprint(finished) == cka.fingerprint(student)
    # saved after it came home, in the order that its numbers have there: the same bits on a CPU
    kept = cka.Student.load(tmp_path / "run" / "student", network(5))
    assert [p.stride() for p in kept.parameters()] == [p.stride() for p in student.parameters()]
    assert torch.equal(*(s.predict(x, device="cpu")[1] for s in (kept, student)))
    # the tracing of an export has a meta device of its own, which the simulation takes for the card
    assert cka.export(student, tmp_path / "s.pt2") < 1e-5


def test_models_go_home_when_a_run_fails():
    def failing(x, random):  # a view of a step, in which no graph is alive yet
        raise KeyError("in a step")
    teachers, student, x = parts()
    with simulated_card():
        with pytest.raises(KeyError):
            cka.amalgamate(teachers, student, x, augment=failing, views=0)
        assert kinds_of(*teachers, student) == {"cpu"}
        halves = nn.Sequential(nn.Linear(2, 2).to("cuda"), nn.Linear(2, 2))  # of two devices
        with devices.placed(torch.device("cuda"), halves):
            assert kinds_of(halves) == {"cuda"}
        assert kinds_of(halves[0]) == {"cuda"} and kinds_of(halves[1]) == {"cpu"}


def test_a_visit_within_a_visit_moves_nothing():
    where = torch.device("cuda")
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    with simulated_card() as card, devices.placed(where, net):
        at = [x.data_ptr() for x in net.state_dict().values()]
        card.clear()
        with devices.placed(where, net):
            assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
        assert [x.data_ptr() for x in net.state_dict().values()] == at and not card.waited
    assert net[0].weight.is_contiguous() and kinds_of(net) == {"cpu"}


# the host does not wait

def waits(step_epochs=(1, 2), **settings):
    """Waits of the host and unblocked copies per step, from runs of one and of two epochs."""
    def of(epochs):
        with simulated_card() as card, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            go(epochs=epochs, **settings)
            return card.waited, sum(n for (kind, *_), n in card.copies.items() if "H2D" in kind)
    (few, copied), (many, copied_more) = map(of, step_epochs)
    return (many - few) / 4, (copied_more - copied) / 4


@pytest.mark.parametrize("posterior", [True, False])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_waits_for_its_loss_alone(name, posterior):
    waited, copied = waits(objective=OBJECTIVES[name](),
                           **{} if posterior else dict(ownership=cka.EnergyOwnership()))
    assert waited <= 1
    assert copied <= 5, "an index goes there once"


@pytest.mark.parametrize("kind", ["not resident", "items", "loader"])
def test_images_that_are_not_there_cost_no_wait(kind):
    images = images_of(kind, parts()[2], None)
    with patch.object(data.Unlabelled, "resident", lambda self, device: self):
        assert waits(images=images)[0] <= 1


@pytest.mark.parametrize("views", [0, 2])
def test_asking_waits_once_a_batch(views):
    teachers, _, x = parts()
    def of(count):
        with simulated_card() as card, devices.placed(torch.device("cuda"), *teachers):
            images = data.Unlabelled(x[:count])
            answers = MeanAnswers(teachers, images, views=views, augment=cka.random_affine,
                                  device=torch.device("cuda"), batch_size=8)
            card.clear()
            answers.fill()
            return card.waited
    assert (of(64) - of(32)) / 4 <= 1


def test_a_batch_of_bytes_travels_pinned_and_as_bytes():
    x = (torch.rand(32, 1, 8, 8) * 255).byte()
    order = list(torch.arange(32).split(8))
    with simulated_card() as card:
        read = list(data.numbered_batches(data.Unlabelled(x), order, torch.device("cuda")))
        assert not card.waited and card.copies.total() == 8
        assert all(a.is_cuda and i.is_cuda and a.dtype == torch.float32 for a, i in read)
        for (a, i), its in zip(read, order):
            assert i.tolist() == its.tolist()
            torch.testing.assert_close(a.cpu(), x[its].float() / 255)
        resident = data.Unlabelled(x).resident(torch.device("cuda"))
        assert resident.items.is_cuda and resident.items.dtype == torch.uint8


# faults that were found, one by one

def test_a_list_of_indices_reads_a_resident_tensor():
    x = torch.rand(8, 1, 4, 4)
    with simulated_card():
        there = data.Unlabelled(x).resident(torch.device("cuda"))
        for index in ([1, 3], range(1, 3), torch.tensor([5]), torch.tensor([5]).to("cuda")):
            places = index.tolist() if isinstance(index, torch.Tensor) else list(index)
            torch.testing.assert_close(there.batch(index).cpu(), x[places])
        assert there[2].is_cuda


class Infinite(torch.autograd.Function):
    """The same value, with a gradient that no scale makes finite."""
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("inf")


def test_a_gradient_that_overflows_for_ever_is_noticed():
    def loss(student, *others):
        return {"steep": Infinite.apply(student.logits.square().mean())}
    with simulated_card(capability=T4), pytest.raises(
            FloatingPointError, match="has overflowed for 21 steps, up to step 20"):
        go(loss, mixed_precision="fp16", epochs=9, views=0)


def test_a_gradient_that_overflows_at_first_is_skipped_and_the_weights_stay():
    scales = []
    def loss(student, *others):  # overflows at a scale of 65536, not much below
        scales.append(student.logits.detach().float().sum().item())
        return {"steep": student.logits.float().square().mean() * 1e3}
    with simulated_card(capability=T4):
        _, student, history = go(loss, mixed_precision="fp16", views=0, augment=None)
    assert losses(history).isfinite().all() and losses(history)[-1] < losses(history)[0]


def test_a_loader_of_one_tensor_needs_no_workers_in_which_the_card_would_be_touched():
    x = parts()[2]
    loader = DataLoader(labelled(x), batch_size=16, num_workers=2)
    with simulated_card():
        assert len(go(images=loader)[2]) == 8


def test_a_seeded_block_leaves_the_seed_that_waits_for_the_card():
    def first_numbers(between):
        with simulated_card():
            torch.manual_seed(7)
            between()
            return torch.rand(3, device="cuda").cpu()
    def seed():
        with core.seeded(0):
            torch.rand(1)
    assert torch.equal(first_numbers(lambda: None), first_numbers(seed))


def test_a_seeded_block_holds_the_random_state_of_a_card_in_use():
    with simulated_card():
        torch.cuda.init()
        torch.manual_seed(7)
        expected = torch.rand(3, device="cuda").cpu()
        torch.manual_seed(7)
        drawn = []
        for _ in range(2):
            with core.seeded(5):
                drawn.append(torch.rand(3, device="cuda").cpu())
        assert torch.equal(*drawn) and not torch.equal(drawn[0], expected)
        assert torch.equal(torch.rand(3, device="cuda").cpu(), expected)


def test_heads_are_found_where_a_product_has_other_last_bits_each_time():
    with simulated_card(jitter=1e-6):
        teachers, _, x = parts()
        for t in teachers:
            t.to("cuda")
            assert t(x).features.shape == (64, 8) and t._place == ("7", "input")
        assert kinds_of(cka.Student(network(3).to("cuda"), list("abc"))) == {"cuda"}
        go()


def test_blame_asks_networks_that_are_not_compiled():
    stances = []

    class Turns(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.asked = network(3), 0

        def forward(self, x):
            stances.append(torch._dynamo.eval_frame._stance.stance)
            self.asked += len(x) > 1
            return self.net(x) * (float("nan") if self.asked > 6 else 1)

    teachers, student, x = parts()
    turning = cka.Teacher(Turns(), CLASSES[0], "turns")
    with (patch.object(nn.Module, "compile", lambda self, **_: None),
          pytest.raises(FloatingPointError,
                        match="the answer of teacher 'turns' is not finite for")):
        cka.amalgamate([turning, teachers[1]], student, x, batch_size=16, views=0, compile=True,
                       device="cpu")
    assert stances[-1] == "force_eager" and stances[-2] == "default"


def test_functions_that_keep_a_tensor_on_the_cpu_are_told_so():
    teachers, student, x = parts()
    shade = torch.full((1, 8, 8), .5)
    cases = {
        "transform of teacher 'own' mixes devices": dict(teachers=[
            cka.Teacher(network(3), CLASSES[0], "own", transform=lambda x: x * shade),
            teachers[1]]),
        "features=... of teacher 'own' mixes devices": dict(teachers=[
            cka.Teacher(network(3), CLASSES[0], "own",
                        features=lambda m, x: (m(x), x.flatten(1) * shade.flatten())),
            teachers[1]]),
        "augment mixes devices": dict(augment=lambda x, random: x * shade)}
    with simulated_card():
        for message, case in cases.items():
            with pytest.raises(ValueError, match=re.escape(message)) as told:
                cka.amalgamate(**dict(teachers=teachers, student=student, images=x, epochs=1)
                               | case)
            assert "tensor.to(x.device)" in str(told.value)
        own = training._Pupil(student, lambda s, *others: {"own": (s.logits * torch.ones(5)).sum()})
        with pytest.raises(ValueError, match="the objective mixes devices"):
            own.to("cuda")(x, [], None, None, {})
        with pytest.raises(ValueError, match="transform mixes devices"):
            cka.train_teacher(network(5), labelled(x), epochs=1, transform=lambda x: x * shade)
        wrong = cka.Teacher(network(3), CLASSES[0], "np",
                            transform=lambda x: torch.tensor(x.numpy()))
        with pytest.raises(ValueError, match="transform of teacher 'np' mixes devices"):
            wrong.to("cuda")(x)


# what strangers brought

@pytest.mark.parametrize("container", [
    TensorDataset, list, lambda x: Subset(TensorDataset(x), range(48)), iter,
    lambda x: DataLoader(TensorDataset(x), batch_size=16)],
    ids=["tensors", "list", "subset", "iterator", "loader"])
def test_images_that_are_on_the_card_already(container):
    with simulated_card():
        x = parts()[2].to("cuda")
        assert losses(go(images=container(x))[2]).isfinite().all()
        assert losses(go(images=container(x), device="cpu", epochs=1)[2]).isfinite().all()
        cka.train_teacher(network(2), cka.TensorImages(x, torch.arange(64) % 3, list("abc")),
                          classes=["a", "c"], epochs=1)


class Plain(nn.Module):
    """Moves a tensor that is neither a parameter nor a buffer, as many networks do."""

    def __init__(self):
        super().__init__()
        self.scale = torch.full((1,), 2.)

    def _apply(self, fn):
        super()._apply(fn)
        self.scale = fn(self.scale)
        return self

    def forward(self, x):
        return x * self.scale


class Deep(nn.Module):
    """Has filters of five dimensions, which have no channels last of the usual kind."""

    def __init__(self):
        super().__init__()
        self.filters = nn.Conv3d(1, 1, 1)

    def forward(self, x):
        return self.filters(x[:, None])[:, 0]


@pytest.mark.parametrize("layer", [Plain, Deep])
def test_layers_that_move_in_their_own_way(layer):
    _, _, x = parts()
    net = nn.Sequential(layer(), *network(5))
    with simulated_card():
        teacher = cka.train_teacher(net, labelled(x), epochs=1, batch_size=16)
        student = cka.Student(nn.Sequential(layer(), *network(5)), list("01234"),
                              input_size=(1, 8, 8))
        cka.amalgamate([teacher], student, x, epochs=1, batch_size=16, views=0)
        student.predict(x)
        for model in (net, teacher, student):
            assert kinds_of(model) == {"cpu"}
        assert not teacher(x).logits.is_cuda and not student(x).logits.is_cuda


def test_threads_ask_a_student_in_turn():
    _, student, x = parts()
    with simulated_card():
        expected = student.predict(x[:4])[0]
        with ThreadPoolExecutor(3) as pool:
            said = list(pool.map(lambda _: student.predict(x[:4])[0], range(12)))
        assert said == [expected] * 12 and kinds_of(student) == {"cpu"}


def test_a_run_on_the_cpu_leaves_the_seed_that_waits_for_the_card():
    teachers, student, x = parts()
    def numbers(between):
        with simulated_card():
            torch.manual_seed(123)
            between()
            return torch.rand(2, device="cuda").cpu()
    def run():
        cka.amalgamate(teachers, student, x, epochs=1, batch_size=16, views=0, device="cpu")
        cka.train_teacher(network(5), labelled(x), epochs=1, device="cpu")
    torch.manual_seed(123)
    assert torch.equal(numbers(lambda: None), numbers(run))


def test_names_of_devices():
    with simulated_card():
        for name in (None, "cuda", "cuda:0", torch.device("cuda"), torch.device("cuda:0")):
            assert devices.device_for(name).type == "cuda", name
        assert len(go(device="cuda:0", epochs=1)[2]) == 4
        with pytest.raises(ValueError, match="'cuda:1' is not the GPU of this process: choose"):
            go(device="cuda:1")
    with pytest.raises(ValueError, match="'cuda' is not available here"):
        cka.evaluate(parts()[1], labelled(parts()[2]), device=torch.device("cuda"))


class Constant(nn.Module):
    """Makes a tensor on the CPU whenever it is asked."""

    def forward(self, x):
        return x + torch.zeros(x.shape[-1])


def test_networks_that_make_constants_on_the_cpu_are_told_so():
    teachers, student, x = parts()
    net = nn.Sequential(Constant(), *network(3))
    with simulated_card():
        wrong = cka.Teacher(net, CLASSES[0], "own")
        with pytest.raises(ValueError, match="the model of teacher 'own' mixes devices"):
            cka.amalgamate([wrong, teachers[1]], student, x)
        with pytest.raises(ValueError, match="the model mixes devices"):
            cka.train_teacher(net, labelled(x), classes=list("012"), epochs=1)
        mine = cka.Student(nn.Sequential(Constant(), *network(5)), student.classes,
                           input_size=(1, 8, 8))
        with pytest.raises(ValueError, match="the backbone mixes devices"):
            cka.amalgamate(teachers, mine, x)


@pytest.mark.parametrize("words", ["CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED",
                                   "MPS backend out of memory", "CUDNN_STATUS_ALLOC_FAILED"])
def test_memory_runs_out_in_the_words_of_any_device(words):
    def full(*args):
        raise RuntimeError(words)
    teachers, student, x = parts()
    teachers[0].model[0].register_forward_hook(
        lambda *args: full() if len(args[1][0]) > 1 else None)
    with pytest.raises(torch.OutOfMemoryError, match="asking the teachers: .* Lower batch_size"):
        cka.amalgamate(teachers, student, x, device="cpu")
    student.backbone[0].register_forward_hook(full)
    with pytest.raises(torch.OutOfMemoryError, match="predicting: .* fewer images"):
        student.predict(x, device="cpu")


# memory

def test_memory_that_runs_out_is_one_line_that_says_what_to_lower(tmp_path):
    x = labelled(parts()[2])
    with simulated_card() as card, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        counted = Counter(card.calls)
        go(epochs=1)
        each = card.calls["convolution"] - counted["convolution"]  # asking, then four steps
        teachers, student, _ = parts()
        card.fail_at("convolution", 8)
        with pytest.raises(torch.OutOfMemoryError,
                           match="asking the teachers: .* Lower batch_size"):
            go()
        whole = cka.fingerprint(go(out=tmp_path / "whole", save_steps=1)[1])
        card.fail_at("convolution", each + 3)
        with pytest.raises(torch.OutOfMemoryError,
                           match="amalgamation: .* Lower batch_size, or raise accumulate"):
            go(out=tmp_path / "run", save_steps=1)
        steps = sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())
        assert steps[-1].startswith("step-"), steps
        assert cka.fingerprint(go(out=tmp_path / "run", save_steps=1, resume=True)[1]) == whole
        card.fail_at("convolution", 2)
        with pytest.raises(torch.OutOfMemoryError, match="evaluating: .* Lower batch_size"):
            cka.evaluate(student, x)
        card.fail_at("convolution", 2)
        with pytest.raises(torch.OutOfMemoryError, match="predicting: .* fewer images"):
            student.predict(x.images)
        assert kinds_of(*teachers, student) == {"cpu"}
        card.fail_at("convolution_backward", 5)
        with pytest.raises(torch.OutOfMemoryError, match="Lower batch_size, or raise accumulate"):
            cka.amalgamate(teachers, student, x.images, batch_size=16, views=1)
        assert all(p.grad is None for p in student.parameters())
    with simulated_card(memory=1000), pytest.raises(
            torch.OutOfMemoryError, match="moving networks to the device"):
        go()


def test_teachers_whose_answers_are_kept_leave_the_card(tmp_path):
    seen = []
    def looks(student, teachers, *others, **more):
        seen.append(kinds_of(*its))
        return cka.joint_distillation(student, teachers, *others)
    its, student, x = parts()
    with simulated_card():
        cka.amalgamate(its, student, x, looks, epochs=1, batch_size=16, fixed_views=1, views=1,
                       cache=tmp_path)
    assert seen == [{"cpu"}] * 4


def test_evaluation_keeps_nothing_there():
    _, student, x = parts()
    many = labelled(x.repeat(40, 1, 1, 1))
    with simulated_card() as card:
        cka.evaluate(student, many, batch_size=64)
        few = card.peak
        cka.evaluate(student, many, batch_size=256)
        assert card.peak > 2 * few and card.live == 0


# a device without double precision, as Apple's

@pytest.mark.parametrize("name", OBJECTIVES)
def test_no_double_precision_is_needed_there(name):
    plain = losses(go(OBJECTIVES[name](), device="cpu")[2])
    with simulated_card(float64=False):
        _, student, history = go(OBJECTIVES[name](), monitor=labelled(parts()[2]),
                                 images=parts()[2].double() / 255)
        cka.evaluate(student, labelled(parts()[2]))
        assert (losses(history)[:1] - plain[:1]).abs().max() < 1e-3
        teachers, _, x = parts()
        teachers[0].to("cuda")
        assert teachers[0](x.double() / 255).logits.dtype == torch.float32


def test_unified_answers_are_found_in_single_precision_too():
    truth = (3 * torch.randn(200, 10, generator=torch.Generator().manual_seed(0))).softmax(1)
    columns = [[*range(6)], [*range(4, 10)]]
    says = [truth[:, c].log() for c in columns]
    with simulated_card(float64=False):
        found = baselines.unified([l.to("cuda") for l in says], columns).cpu()
    torch.testing.assert_close(found, truth, atol=5e-3, rtol=0)


def test_estimators_answer_on_the_device_of_their_questions():
    teachers, _, x = parts()
    answers = MeanAnswers(teachers, data.Unlabelled(x), batch_size=16).fill()
    logits, features, traces = answers.all_means()
    for estimator in (cka.EnergyOwnership(),
                      cka.ClassConditionalOwnership(cka.LabelSpace(teachers)),
                      cka.MomentOwnership(cka.LabelSpace(teachers)),
                      cka.InformationOwnership(cka.LabelSpace(teachers)),
                      cka.OpenWorldOwnership(cka.LabelSpace(teachers), cka.MomentOwnership(
                          cka.LabelSpace(teachers)))):
        more = [traces] if "traces" in signature(estimator.fit).parameters else []
        estimator.fit(logits, features, *more)
        here = estimator(logits, features, *more)
        with simulated_card():
            there = estimator(*([part.to("cuda") for part in its]
                                for its in (logits, features, *more)))
            assert there.is_cuda
            torch.testing.assert_close(there.cpu(), here, atol=1e-5, rtol=1e-4)
    seen, hears = torch.randn(64, 12), cka.WitnessOwnership(cka.LabelSpace(teachers))
    hears.fit(logits, features, traces, seen)
    hears.state["weight"] = torch.tensor(.5)
    here = hears.posterior(logits, features, traces, seen)
    with simulated_card():
        there = hears.posterior(*([part.to("cuda") for part in its]
                                  for its in (logits, features, traces)), seen.to("cuda"))
        assert there.is_cuda
        torch.testing.assert_close(there.cpu(), here, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("answers", ["asked", "kept"])
def test_a_witness_visits_the_card(answers, tmp_path):
    torch.manual_seed(0)
    witness, there = cka.Witness(network(9).train(), input_size=(1, 8, 8)), []
    witness.model.register_forward_hook(lambda net, *its: there.append(kinds_of(net)))
    cached = dict(fixed_views=2, cache=tmp_path) if answers == "kept" else {}
    with simulated_card():
        there.clear()
        teachers, student, _ = go(ownership=None, witness=witness, **cached)
        assert {"cuda"} in there and kinds_of(witness, student, *teachers) == {"cpu"}
        found = cka.inspect(teachers, parts()[2], views=1, witness=witness)
        assert kinds_of(witness, *teachers) == {"cpu"} and "witness" in found["belief"]["evidence"]
        made = cka.train_witness(network(3), parts()[2], epochs=1, batch_size=16)
        assert kinds_of(made) == {"cpu"}


@pytest.mark.parametrize("answers", ["asked", "kept"])
def test_a_head_alone_is_trained_on_the_card(answers, tmp_path):
    teachers, _, x = parts()
    student = cka.Student(teachers[0], cka.LabelSpace(teachers), input_size=(1, 8, 8))
    student.backbone.requires_grad_(False)
    before, head = (copy.deepcopy(part.state_dict()) for part in (student.backbone, student.head))
    cached = dict(fixed_views=2, cache=tmp_path) if answers == "kept" else {}
    with simulated_card():
        history = cka.amalgamate(teachers, student, x, epochs=2, batch_size=16, views=1, **cached)
    assert len(history) == 8 and kinds_of(student, *teachers) == {"cpu"}
    assert all(torch.equal(v, before[k]) for k, v in student.backbone.state_dict().items())
    assert not torch.equal(student.head.weight, head["weight"])


def test_weights_that_differ_in_the_last_bit_are_no_shared_backbone_on_the_card():
    teachers, _, x = parts()
    first, other = (cka.Teacher(teachers[0].model, [*names], names) for names in ("abc", "def"))
    with torch.no_grad():
        weight = other.model[0].weight
        weight[0, 0, 0, 0] = weight[0, 0, 0, 0].nextafter(torch.tensor(9.))
    with simulated_card():
        there = [t.to("cuda") for t in (first, first, other)]
        for t in there:
            t(x[:2].to("cuda"))
        assert shared_backbones(there, x[:2].to("cuda")) == [0, 0, 2]


def test_blocks_of_similarities_are_sixteen_times_larger_on_the_card():
    rows_of = []

    def terms(rows, x):
        rows_of.append(rows.stop - rows.start)
        return {"sum": x[rows].sum(1)}
    with patch("cka_nb.contrast.BLOCK", 64):
        in_blocks(terms, torch.rand(32, 4))
        assert rows_of == [2] * 16
        with simulated_card():
            in_blocks(terms, torch.rand(32, 4).to("cuda"))
    assert rows_of[16:] == [32]

"""Generated inputs: the plain oracle's value, with finite gradients, or one line that names what
is wrong; and the algebra that every loss obeys. A loss is one line in LOSSES.
"""

import copy
import math
from dataclasses import dataclass

import numpy as np
import properties as its
import pytest
import torch
from properties import F32, F64, Case, holds

import cka_nb as cka

pytestmark = pytest.mark.filterwarnings("ignore")


@dataclass
class Loss:
    """A loss, how its arguments are drawn, and what it should give."""
    ask: object
    oracle: object
    drawn: dict       # argument -> how it is drawn
    scale: object     # of rounding errors: Case -> how large terms become
    shifts: tuple = ()  # arguments that a constant per row does not change
    zero: bool = False  # whether it is 0 at equality

    @property
    def weighed(self):
        return "weight" in self.drawn


def second(first):
    return lambda case, name: its.like(case, name, first)


def tempered(case):
    """Rounding of logits / tau, times tau^2."""
    tau = float(case.values["temperature"])
    top = np.abs(case.array("student_logits")).max(initial=1) / tau
    return tau**2 * (1 + top)


def cosines(case):
    return 3 / float(case.values.get("temperature", 1))


LOGITS = {"student_logits": its.rows, "teacher_logits": second("student_logits")}
TARGET = {"student_logits": its.rows, "target_probabilities": its.probabilities}
MODELS = {"z_student": its.rows, "z_teacher": second("z_student")}
WIDTHS = {"z_student": its.rows, "z_teacher": its.other_rows}
LABELS, TAU, WEIGHT = {"pseudo_labels": its.labels}, {"temperature": its.temperature}, {
    "weight": its.weight}
KERNELS = {"x": its.rows, "y": its.many_rows, "bandwidths": its.bandwidths, "normalize": its.flag}
LOSSES = {
    "soft": Loss(cka.soft_target_loss, its.soft_targets, LOGITS | TAU | WEIGHT, tempered,
                 ("student_logits", "teacher_logits"), zero=True),
    "mixture": Loss(cka.mixture_loss, its.mixed_targets, TARGET | TAU | WEIGHT, tempered,
                    ("student_logits",)),
    "intra": Loss(cka.intra_model_loss, its.intra, {"z": its.rows} | LABELS | TAU | WEIGHT,
                  cosines),
    "inter": Loss(cka.inter_model_loss, its.inter, MODELS | LABELS | TAU | WEIGHT, cosines),
    "pointwise": Loss(cka.pointwise_loss, its.pointwise, MODELS | WEIGHT, cosines),
    "relational": Loss(cka.relational_loss, its.relational, WIDTHS | TAU | WEIGHT, cosines),
    "alignment": Loss(cka.alignment_loss, its.alignment, MODELS | TAU | WEIGHT, cosines),
    "mmd": Loss(cka.mmd_loss, its.mmd, KERNELS, lambda case: 30),
}
EXAMPLES = {"losses": 850, "algebra": 150}  # of each loss


def case_of(loss, draw, seed):
    case = Case(draw, seed)
    for name, how in loss.drawn.items():
        how(case, name)
    return case


def called(ask, case, *names):
    """What it gives; None if it refuses, rightly and clearly."""
    try:
        value = ask(**case.values)
    except (TypeError, ValueError) as error:
        said = str(error)
        assert not case.sane, f"sane input refused: {said}"
        assert 10 < len(said) < 400 and "\n" not in said, said
        assert any(name in said for name in (*case.values, "shapes differ", *names)), said
        return None
    assert not case.wrong, f"wrong {case.wrong} accepted"
    return value


def tensors(case):
    return {name: x for name, x in case.values.items() if isinstance(x, torch.Tensor)}


def check_gradients(loss, inputs):
    """Backwards gives a finite gradient of the right shape to each input that wants one."""
    wanting = {n: x for n, x in inputs.items() if x.requires_grad}
    if not loss.requires_grad or not wanting:
        return
    grads = torch.autograd.grad(loss, list(wanting.values()), allow_unused=True)
    for (name, x), grad in zip(wanting.items(), grads):
        assert grad is None or grad.shape == x.shape and grad.dtype == x.dtype
        if grad is None:
            continue
        # half precision may not hold the gradient of tiny or huge numbers
        fits = x.dtype in (F32, F64) or bool(((x.abs() > 1e-3) & (x.abs() < 1e3)).all())
        fine = grad.isfinite().all() if fits else not grad.isnan().any()
        assert fine, f"gradient of {name}: {grad}"


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_right_or_says_what_is_wrong(name):
    loss = LOSSES[name]

    def check(draw, seed):
        case = case_of(loss, draw, seed)
        before = {n: x.detach().clone() for n, x in tensors(case).items()}
        value = called(loss.ask, case)
        for n, x in before.items():
            assert torch.equal(case.values[n], x) or x.isnan().any(), f"{n} was changed"
        if value is None:
            return
        doubles = any(x.dtype == F64 for x in tensors(case).values())
        assert value.shape == () and value.dtype == (F64 if doubles else F32)
        assert value.isfinite(), value
        check_gradients(value, tensors(case))
        if case.sane:
            right = loss.oracle(**{n: case.array(n) for n in case.values})
            close = loss.scale(case) * (1e-12 if doubles else 1e-6)
            assert abs(value.item() - right) <= close + close * abs(right), (value.item(), right)

    holds(EXAMPLES["losses"], check)


def ordinary(loss, draw, seed):
    """A sane case of at least two images in float64, all of whose tensors want gradients."""
    case = Case(draw, seed)
    case.count, case.dtype = draw(4, 2, 3, 7), F64
    case.draw = lambda *choices: choices[0]  # the usual choice of everything
    for name, how in loss.drawn.items():
        how(case, name)
    case.draw = draw
    if loss.weighed:
        case.values["weight"] = torch.rand(case.count, generator=case.random, dtype=F64) + .1
    if "temperature" in case.values:
        case.values["temperature"] = draw(.1, .5, 1., 4.)
    assert case.sane
    return case


def near(a, b, rtol=1e-9):
    torch.testing.assert_close(torch.as_tensor(a, dtype=F64), torch.as_tensor(b, dtype=F64),
                               rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", LOSSES)
def test_the_algebra_of_a_loss(name):
    loss = LOSSES[name]

    def check(draw, seed):
        case = ordinary(loss, draw, seed)
        given, count = case.values, case.count
        images = {n: x for n, x in tensors(case).items() if len(x) == count}
        value = loss.ask(**given)
        # the order of images does not matter
        order = torch.randperm(count, generator=case.random)
        moved = loss.ask(**given | {n: x[order] for n, x in images.items()})
        near(moved, value)
        # slopes are the oracle's
        learning = {n: x for n, x in tensors(case).items() if x.requires_grad and n != "weight"}
        grads = dict(zip(learning, torch.autograd.grad(value, list(learning.values()),
                                                       allow_unused=True)))
        for n, grad in grads.items():
            if grad is None:  # a target: nothing flows into it
                assert n in ("teacher_logits", "target_probabilities")
                continue
            step = case.normal(*grad.shape)
            ends = [loss.oracle(**{k: case.array(k) for k in given}
                                | {n: case.array(n) + h * step.numpy()}) for h in (1e-5, -1e-5)]
            near((grad * step).sum(), (ends[0] - ends[1]) / 2e-5, 1e-5 * (1 + value.item()))
        # half precision is raised first
        half = draw(torch.float16, torch.bfloat16)
        low = {n: x.to(half) if x.is_floating_point() else x for n, x in tensors(case).items()}
        raised = {n: x.to(F32) if x.is_floating_point() else x for n, x in low.items()}
        assert torch.equal(loss.ask(**given | low), loss.ask(**given | raised))
        for n in loss.shifts:  # a constant per image changes no softmax
            near(loss.ask(**given | {n: given[n] + 30 * case.normal(count, 1)}), value)
        if loss.zero or name in ("pointwise", "relational", "alignment"):  # at equality
            first, second = (n for n in given if n not in ("temperature", "weight"))
            same = given | {second: given[first].detach().clone()}
            near(loss.ask(**same), 0)
            slope, = torch.autograd.grad(loss.ask(**same), given[first])
            near(slope, slope * 0)
        if "pseudo_labels" in given:  # only which labels are equal matters
            other = torch.randperm(9, generator=case.random)[given["pseudo_labels"]] - 4
            near(loss.ask(**given | {"pseudo_labels": other}), value)
        if loss.weighed:
            weight = given["weight"]
            near(loss.ask(**given | {"weight": weight * draw(1e-9, 7, 1e9)}), value)
            # the weighted mean of what each image alone gives: at weight 0 it has no say
            weight = weight * (torch.rand(count, generator=case.random) > .3)
            has = torch.ones(count, dtype=F64)
            if name == "intra":
                y = given["pseudo_labels"]
                has = ((y[:, None] == y).sum(1) > 1).to(F64)
            alone = [loss.ask(**given | {"weight": row}) for row in torch.eye(count, dtype=F64)]
            total = (weight * has).sum()
            mean = (weight * has * torch.stack(alone)).sum() / total if total else 0
            near(loss.ask(**given | {"weight": weight}), mean)

    holds(EXAMPLES["algebra"], check)


# --- objectives ---

@dataclass
class Objective:
    """An objective, what it reads beside logits, and its parts as they should be."""
    make: object     # temperature -> objective
    reads: tuple
    parts: object    # Answers, objective -> {name: float}


class Sheet:
    """Stands for a teacher in a label space."""

    def __init__(self, classes):
        self.classes = classes


def in_double(nets, rows):
    """Features through copies of the networks, as arrays in float64."""
    with torch.no_grad():
        return [copy.deepcopy(n).double()(x.to(F64)).numpy() for n, x in zip(nets, rows)]


def cka_parts(case, objective):
    z = in_double([objective.student_projection, *objective.teacher_projections],
                  [case.student[1], *(t[1] for t in case.teachers)])
    parts = its.owned_parts(case, case.temperature, .1, z)
    weights = {"joint": 1, "task": 1, "intra": .1, "inter": .1, "alignment": .2}
    return {n: weights[n] * v for n, v in parts.items() if not (n in ("intra", "inter")
                                                                and case.tied)}


def target_part(target):
    """Objectives whose only part are soft targets for the union."""
    return lambda case, objective: {"joint": its.mixed_targets(
        case.numpy(case.student[0]), target(case), case.temperature)}


def joined(case):
    return its.joined(case.logits, case.columns_of, case.temperature)


def unified(case):
    """The package's answer, if no other explains the teachers' ratios better."""
    from cka_nb.baselines import unified
    q = unified([t[0] for t in case.teachers], case.columns_of, case.temperature).double().numpy()
    said = its.softmaxes(case.logits, case.temperature)
    slope = np.zeros_like(q)  # of the log-likelihood of what they said, in log q
    for p, places in zip(said, case.columns_of):
        if len(p):
            slope[:, places] += np.array(p) - q[:, places] / q[:, places].sum(1, keepdims=True)
    calm = all(np.abs(l).max(initial=0) < 5 for l in case.logits) and case.temperature >= 1
    assert not calm or np.abs(slope).max(initial=0) < 1e-3, slope
    return q


def task_parts(case, objective):
    s = case.numpy(case.student[0])
    return {"task": np.mean([its.soft_targets(s[:, c], l, case.temperature)
                             for c, l in zip(case.columns_of, case.logits)])}


def cfl_parts(owned):
    def parts(case, objective):
        features = [t[1] for t in case.teachers]
        firsts = [objective.student_projection, *objective.teacher_projections]
        h = in_double([torch.nn.Sequential(f, objective.extractor) for f in firsts],
                      [case.student[1], *features])
        back = in_double(objective.decoders, map(torch.from_numpy, h[1:]))
        target = joined(case) if not owned else (
            its.mixed(case.logits, case.numpy(case.ownership), case.columns_of, case.temperature)
            if case.posterior is None else
            its.refined(case.numpy(case.posterior), case.temperature))
        mse = sum(float(((b - case.numpy(f))**2).mean()) for b, f in zip(back, features)
                  if len(b))
        return target_part(lambda case: target)(case, objective) | {
            "mmd": 10 * sum(its.mmd(h[0], x) for x in h[1:]), "reconstruction": 10 * mse}
    return parts


def bound(function):
    return lambda temperature: lambda *args: function(*args, temperature=temperature)


OBJECTIVES = {
    "cka": Objective(lambda t: cka.ContrastiveAmalgamation(temperature=t, width=5),
                     ("ownership", "posterior", "features"), cka_parts),
    "owned": Objective(lambda t: cka.owned_distillation(temperature=t), ("ownership", "posterior"),
                       lambda case, objective: its.owned_parts(case, case.temperature, .1)),
    "joint": Objective(bound(cka.joint_distillation), (), target_part(joined)),
    "task": Objective(bound(cka.task_distillation), (), task_parts),
    "unified": Objective(bound(cka.unified_distillation), (), target_part(unified)),
    "cfl": Objective(lambda t: cka.CommonFeatureLearning(temperature=t, width=4),
                     ("features",), cfl_parts(False)),
    "cfl owned": Objective(lambda t: cka.CommonFeatureLearning(temperature=t, width=4, owned=True),
                           ("ownership", "posterior", "features"), cfl_parts(True)),
}
EXAMPLES["objectives"] = 250
NAMED = ("teacher", "student", "logits", "features", "ownership", "posterior", "probabilities",
         "temperature", "shapes differ")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_is_right_or_says_what_is_wrong(name):
    kind = OBJECTIVES[name]

    def check(draw, seed):
        case = its.Answers(draw, seed)
        needs = its.ODD_ANSWERS.get(case.odd)
        if case.wrong and (needs and needs not in kind.reads
                           or "ownership" in case.odd and case.posterior is not None):
            case.wrong, case.extreme = [], [case.odd]  # not read: it may be noticed
        space = cka.LabelSpace([Sheet(c) for c in case.classes])
        assert space.columns == case.columns_of
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            objective = kind.make(case.temperature)
            if hasattr(objective, "build"):
                objective.build(space, case.width, case.widths)
        case.values = dict(student=cka.Output(*case.student), ownership=case.ownership,
                           teachers=[cka.Output(*t) for t in case.teachers], space=space)
        ask = lambda student, teachers, ownership, space: objective(
            student, teachers, ownership, space,
            *[case.posterior] if "posterior" in kind.reads else [])
        found = called(ask, case, *NAMED)
        if found is None:
            return
        for value in found.values():
            assert value.shape == () and value.dtype in (F32, F64) and value.isfinite(), found
        inputs = {f"student {i}": x for i, x in enumerate(case.student)} | {
            f"teacher {t} {i}": x for t, answer in enumerate(case.teachers)
            for i, x in enumerate(answer)}
        loss = sum(found.values())
        check_gradients(loss, inputs)
        if loss.requires_grad:
            for t in case.teachers:  # nothing flows into what teachers say
                if t[0].requires_grad:
                    assert torch.autograd.grad(loss, t[0], allow_unused=True,
                                               retain_graph=True)[0] is None
        if case.sane:
            right = kind.parts(case, objective)
            assert set(right) <= set(found)
            largest = max(np.abs(case.numpy(x)).max(initial=1) for x in inputs.values())
            close = 1e-5 * (1 + largest * max(case.temperature, 1 / case.temperature))
            for part, value in right.items():
                assert abs(found[part].item() - value) <= close + close * abs(value), (
                    part, found[part].item(), value)

    holds(EXAMPLES["objectives"], check)


# --- ownership ---

ESTIMATORS = {
    "energy": lambda space: cka.EnergyOwnership(),
    "class": lambda space: cka.ClassConditionalOwnership(space),
    "moment": lambda space: cka.MomentOwnership(space),
    "information": lambda space: cka.InformationOwnership(space),
    "open world": lambda space: cka.OpenWorldOwnership(space, cka.InformationOwnership(space)),
}
EXAMPLES["estimators"] = 90


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_owns_images_or_says_what_is_wrong(name):
    def check(draw, seed):
        case = its.Answers(draw, seed)
        if case.odd and (its.ODD_ANSWERS[case.odd] or "student" in case.odd
                         or case.odd == "temperature"):
            reads = case.odd in ("nan in a teacher's features", "flat features",
                                 "an image too few in features") and name != "energy"
            case.wrong, case.extreme = [case.odd] if reads and case.count else [], [case.odd]
        if name == "energy" and case.odd in ("a class too few", "a teacher too few",
                                             "a flat batch", "an image too many"):
            case.wrong = [case.odd] if case.odd == "a flat batch" else []
            case.extreme.append(case.odd)
        if case.count == 0:
            case.wrong.append("no images")
        space = cka.LabelSpace([Sheet(c) for c in case.classes])
        estimator = ESTIMATORS[name](space)
        logits, features = ([t[i].detach() for t in case.teachers] for i in range(2))
        case.values = dict(logits=logits, features=features)
        state = called(estimator.fit, case, *NAMED, "images")
        if state is None:
            return
        assert all(isinstance(v, torch.Tensor) and v.isfinite().all() for v in state.values())
        a = estimator(logits, features)
        assert a.shape == (case.count, len(logits)) and a.isfinite().all()
        assert a.min() >= 0 and a.max() <= 1 and not a.requires_grad
        again = ESTIMATORS[name](space)
        again.fit(logits, features)
        assert torch.equal(again(logits, features), a)  # no chance in it
        some = slice(0, 1)
        alone = estimator([l[some] for l in logits], [f[some] for f in features])
        sharp = max(v.abs().max() for k, v in state.items() if "precision" in k or k == "heaps"
                    or k == "start.heaps")
        if sharp < 1e3:  # else rounding decides between images that are nearly the same
            torch.testing.assert_close(alone, a[some], rtol=1e-3, atol=1e-3)
        if name != "energy":
            p = estimator.posterior(logits, features)
            near(p.sum(1), torch.ones(case.count), 1e-4)
            for t, columns in enumerate(space.columns):
                near(a[:, t], p[:, columns].sum(1).clamp(0, 1), 1e-4)
        elif case.sane:
            for t, l in enumerate(case.logits):
                l = l - l.mean(1, keepdims=True)
                score = np.log(np.exp(l - l.max(1, keepdims=True)).sum(1)) + l.max(1)
                if np.ptp(score) > 1e-2 and case.count > 2:
                    near(a[:, t], its.heaps(score)(score), 2e-2)

    holds(EXAMPLES["estimators"], check)


def test_there_are_10_000_inputs_for_losses():
    """With `--flags slow`; a fifth of them always."""
    kinds = {"losses": LOSSES, "algebra": LOSSES, "objectives": OBJECTIVES,
             "estimators": ESTIMATORS}
    assert sum(EXAMPLES[name] * len(of) for name, of in kinds.items()) >= 10_000


# --- teachers, label spaces, data sets ---

class Net(torch.nn.Module):
    """A small classifier that answers in one of the usual ways."""

    def __init__(self, classes, channels, kind, answer):
        super().__init__()
        self.answer = answer
        self.body = torch.nn.Sequential(*{
            "pool": [torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten()],
            "conv": [torch.nn.Conv2d(channels, 4, 3, padding=1), torch.nn.BatchNorm2d(4),
                     torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
                     torch.nn.Dropout(.5)]}[kind])
        self.head = torch.nn.Linear({"pool": 4 * channels, "conv": 4}[kind], classes)

    def forward(self, x):
        logits = self.head(self.body(x))
        return {"tensor": logits, "dict": {"logits": logits}, "tuple": (logits,), "none": None,
                "object": cka.Output(logits, logits)}[self.answer]


NAMES = ["a", "b", "c", "ä", "猫", "a b", "1", "", "x\ny", "😀" * 20,
         "A", "None", "ﬁ", "\u00e9", "o\u0301"]


def a_teacher(draw, seed, case):
    """The arguments of a teacher; `case.wrong` says what cannot be right."""
    size, channels = draw(3, 1, 5), draw(1, 3)
    names = [NAMES[i] for i in torch.randperm(len(NAMES), generator=case.random).tolist()][:size]
    kind = draw("names", "names", "numbers", "tuple", "dropped", "id2label", "iterator")
    classes = {"numbers": list(range(size)), "tuple": tuple(names),
               "dropped": [None, *names[1:]] if size > 1 else names,
               "id2label": dict(enumerate(names)), "iterator": iter(names)}.get(kind, names)
    answer = draw("tensor", "tensor", "dict", "object")
    torch.manual_seed(seed)
    net = Net(size, channels, draw("pool", "conv"), answer)
    made = dict(model=net, classes=classes, name=draw(None, "one", "ü", 3),
                features=draw(None, None, "body", "head", lambda m, x: (m(x), m.body(x))),
                transform=draw(None, None, lambda x: 2 * x - 1, torch.nn.AvgPool2d(1)),
                input_size=draw(None, (channels, 4, 4), [channels, 6, 5]))
    odd = draw(*[None] * 2, "odd") and draw(
        "twice", "too few", "too many", "string", "empty", "all dropped", "a set", "a number",
        "no module", "a teacher", "features unknown", "features 3", "transform 3",
        "transform fails",
        "transform of one image", "size 2", "size 0", "size text", "size of others", "answer none",
        "answer tuple", "size None")
    wrong = {"twice": dict(classes=["a"] * size), "too few": dict(classes=names[1:]),
             "too many": dict(classes=[*names, "more"]), "string": dict(classes="abc"),
             "empty": dict(classes=[]), "all dropped": dict(classes=[None] * size),
             "a set": dict(classes=set(names)), "a number": dict(classes=size),
             "no module": dict(model=draw(None, "resnet18", lambda x: x)),
             "a teacher": dict(model=cka.Teacher(Net(2, 1, "pool", "tensor"), ["a", "b"])),
             "features unknown": dict(features="nowhere"), "features 3": dict(features=3),
             "transform 3": dict(transform=3), "transform fails": dict(transform=lambda x: x @ 1),
             "transform of one image": dict(transform=lambda x: x[0]),
             "size 2": dict(input_size=(4, 4)), "size 0": dict(input_size=(channels, 0, 4)),
             "size text": dict(input_size="big"), "size None": dict(input_size=(None, 4, 4)),
             "size of others": dict(input_size=(channels + 1, 4, 4)),
             "answer none": dict(model=Net(size, channels, "pool", "none")),
             "answer tuple": dict(model=Net(size, channels, "pool", "tuple"))}
    if odd:
        made |= wrong[odd]
        case.wrong.append(odd)
        if odd == "twice" and size == 1:
            case.wrong, case.extreme = [], [odd]
        if odd == "size of others" or "answer" in odd:  # pooling may take any; a function may cope
            case.wrong, case.extreme = [], [odd]
    case.names = [str(n) for n in names] if kind != "numbers" else [str(k) for k in range(size)]
    case.kept = [k for k in range(size) if not (kind == "dropped" and size > 1 and k == 0)]
    case.channels = channels
    return made


EXAMPLES |= {"teachers": 450, "renamed": 150, "spaces": 500, "unlabelled": 500, "subsets": 250,
             "orders": 100, "stored": 60}


def test_a_teacher_answers_as_its_model_or_says_what_is_wrong():
    def check(draw, seed):
        case = Case(draw, seed)
        case.values = made = a_teacher(draw, seed, case)
        count = draw(2, 1, 3)
        images = torch.rand(count, case.channels, 4, 5, generator=case.random)
        kind = draw(*["float"] * 4, "uint8", "double", "half", "strided")
        images = {"uint8": (images * 255).to(torch.uint8), "double": images.double(),
                  "half": images.half(), "strided": images.mT.contiguous().mT}.get(kind, images)
        odd = draw(*[None] * 7, "odd") and draw(
            "int", "flat", "nan", "list", "channels", "no pixels")
        if odd:
            images = {"int": lambda: images.long(), "flat": lambda: images[0],
                      "nan": lambda: torch.full_like(images.float(), math.nan),
                      "list": images.tolist, "channels": lambda: torch.cat([images] * 2, 1),
                      "no pixels": lambda: images[..., :0]}[odd]()
            case.wrong.append(f"{odd} images")
        teacher = called(lambda **made: (t := cka.Teacher(**made), t(images)), case, "teacher",
                         "classes", "class", "images", "image", "submodule", "module", "classifier")
        if teacher is None:
            return
        teacher, out = teacher
        assert teacher.classes == [case.names[k] for k in case.kept] or not case.sane
        assert not out.logits.requires_grad and not teacher.training
        if case.sane:
            net = copy.deepcopy(made["model"]).eval()
            x = images / 255 if images.dtype == torch.uint8 else images.float()
            x = made["transform"](x) if made["transform"] else x
            read = net.body(x)
            at_head = made["features"] == "head" or made["features"] is None
            near(out.logits, net.head(read).detach()[:, case.kept], 1e-5)
            near(out.features, read.detach(), 1e-5)
            assert at_head or made["features"] == "body" or callable(made["features"])

    holds(EXAMPLES["teachers"], check)


def test_a_renamed_teacher_has_the_new_names_or_says_what_is_wrong():
    torch.manual_seed(0)
    teacher = cka.Teacher(Net(4, 1, "pool", "tensor"), ["a", "ä", "猫", 3], input_size=(1, 4, 4))
    images = torch.rand(2, 1, 4, 4)
    logits = teacher(images).logits

    def check(draw, seed):
        case = Case(draw, seed)
        names = {c: draw("x", "y", "a", "z", None, 3, "猫") for c in draw(
            ["a"], ["a", "ä"], ["猫", "3"], [3], [], ["a", "ä", "猫", "3"])}
        if draw(*[False] * 5, True):
            names = draw({"nobody": "x"}, [], ["a"], None, "a", {1: 2}, {None: "a"})
            case.wrong.append("names")
            if not names:
                case.wrong, case.extreme = [], ["names"]
        else:
            its_ = {str(k): v for k, v in names.items()}
            new = [its_.get(c, c) for c in teacher.classes]
            kept = [str(c) for c in new if c is not None]
            if len(set(kept)) < len(kept) or not kept:
                case.wrong.append("twice")
        case.values = dict(names=names)
        other = called(teacher.renamed, case, "class", "teacher")
        if other is not None and case.sane:
            assert other.classes == kept
            places = [k for k, c in enumerate(new) if c is not None]
            assert torch.equal(other(images).logits, logits[:, places])
        assert teacher.classes == ["a", "ä", "猫", "3"]
        assert torch.equal(teacher(images).logits, logits)

    holds(EXAMPLES["renamed"], check)


def test_a_label_space_is_the_union_or_says_what_is_wrong():
    def check(draw, seed):
        case = Case(draw, seed)
        lists = []
        for _ in range(draw(2, 1, 3, 5)):
            order = torch.randperm(len(NAMES), generator=case.random).tolist()
            few = [NAMES[i] for i in order[:draw(3, 1, 8)]]
            lists.append(few if draw(True, True, False) else list(range(draw(2, 1, 5))))
        odd = draw(*[None] * 2, "odd") and draw(
            "twice", "1 and '1'", "empty", "string", "none", "a set", "no teachers", "a number",
            "no classes", "text", "same names", "a module", "an iterator")
        teachers = [Sheet(c) for c in lists]
        if odd:
            case.wrong.append(odd)
            bad = {"twice": ["a", "a"], "1 and '1'": [1, "1"], "empty": [], "string": "ab",
                   "none": None, "a set": {"a"}}
            teachers = {"no teachers": [], "a number": 3, "no classes": [*teachers, "ab"],
                        "text": "ab", "a module": torch.nn.Linear(1, 1),
                        "an iterator": iter(teachers)}.get(odd, [*teachers, Sheet(bad.get(odd))])
            if odd == "same names":
                teachers = [Sheet(c) for c in lists[:1] * 2]
                for t in teachers:
                    t.name, t.named = "one", True
        case.values = dict(teachers=teachers)
        space = called(cka.LabelSpace, case, "teacher", "classes", "class names", "unique")
        if space is None:
            return
        union = list(dict.fromkeys(str(c) for its_ in lists for c in its_))
        assert space.classes == union and len(space) == len(union)
        for its_, columns in zip(lists, space.columns):
            assert [union[c] for c in columns] == [str(c) for c in its_]
        assert list(space.tasks().values()) == [[str(c) for c in its_] for its_ in lists]

    holds(EXAMPLES["spaces"], check)


class Secret:
    """A label that may not be used."""

    def __getattribute__(self, name):
        raise AssertionError("a label was used")


def wrapped(kind, images, label):
    """Images as somebody's data set."""
    items = list(images)
    if kind in ("list", "tuple", "generator", "dict", "pixels", "single"):
        items = [{"list": x, "tuple": (x, label), "generator": x,
                  "dict": {"image": x, "label": label},
                  "pixels": {"pixel_values": x}, "single": [x]}[kind] for x in items]
    if kind == "numpy":
        items = [x.movedim(0, -1).numpy() for x in items]
    if kind == "loader":
        return torch.utils.data.DataLoader(cka.TensorImages(images), batch_size=2)
    return (x for x in items) if kind == "generator" else (
        images if kind == "tensor" else cka.TensorImages(images) if kind == "set" else items)


def test_images_are_read_right_or_named():
    from cka_nb.data import Unlabelled, numbered_batches

    def check(draw, seed):
        case = Case(draw, seed)
        count, shape = draw(4, 1, 7), draw((1, 3, 2), (3, 2, 2), (3, 1, 1))
        images = torch.rand(count, *shape, generator=case.random)
        pixels = draw("float", "uint8", "float", "double", "half", "one", "zeros")
        images = {"uint8": (images * 255).to(torch.uint8), "double": images.double(),
                  "half": images.half(), "one": images * 0 + 1, "zeros": images * -0.}.get(
                      pixels, images)
        right = images / 255 if images.dtype == torch.uint8 else images.float()
        kind = draw("tensor", "list", "tuple", "dict", "pixels", "single", "numpy", "set", "loader",
                    "generator")
        odd = draw(*[None] * 2, "odd") and draw(
            "nan", "inf", "mixed", "int", "flat", "none", "text", "no key", "empty item", "number",
            "empty", "string", "a dict", "no set", "bool", "folder")
        if odd:
            case.wrong.append(odd)
        if odd in ("nan", "inf"):
            images = images.float().clone()
            images[-1, 0, 0, 0] = float(odd)
        if odd in ("int", "bool"):
            images = images.to({"int": torch.int32, "bool": torch.bool}[odd])
        if odd == "flat":
            images = images[:, 0]
            if kind == "numpy":  # an array (H, W) is grey
                case.wrong, case.extreme = [], [odd]
        label = draw(0, None, "x", "secret")
        label = Secret() if label == "secret" else label
        case.values = dict(images=lambda: wrapped(kind, images, label))
        whole = {"empty": [], "string": "abc", "a dict": {"image": images}, "no set": 3,
                 "folder": math}
        broken = {"mixed": torch.zeros(shape[0], 9, 9), "none": None, "text": "x.png",
                  "no key": {"picture": images[0]}, "empty item": (), "number": 3}
        if odd in whole:
            case.values["images"] = lambda: whole[odd]
        if odd in broken:
            case.values["images"] = lambda: [*images, broken[odd]]
        if odd == "empty" and draw(True, False):
            case.values["images"] = lambda: images[:0]

        def read(images):
            data = Unlabelled(images())
            every = range(len(data))
            return data, data.batch(list(every)), list(numbered_batches(
                data, [torch.tensor([i]) for i in every], torch.device("cpu")))

        found = called(read, case, "image", "item", "loader")
        if found is None:
            return
        data, whole, parts = found
        assert len(data) == data.visited
        if not case.sane:
            return
        assert len(data) == count and data.shape == shape
        near(whole, right, 1e-7)
        assert whole.dtype == (F64 if pixels == "double" else F32)
        assert torch.equal(torch.cat([x for x, _ in parts]), whole)
        assert [int(i) for _, i in parts] == list(range(count))
        some = data.order(seed, 3)[:3]
        assert torch.equal(data.batch(some), whole[some])

    holds(EXAMPLES["unlabelled"], check)


class Pairs(torch.utils.data.Dataset):
    """A data set of pairs with names, as torchvision has them."""

    def __init__(self, images, labels, classes, as_dict):
        self.images, self.labels_, self.as_dict = images, labels, as_dict
        if classes is not None:
            self.classes = classes

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        x, y = self.images[i], self.labels_[i]
        return {"image": x, "label": y} if self.as_dict else (x, y)


def test_a_choice_of_classes_is_right_or_says_what_is_wrong():
    def check(draw, seed):
        case = Case(draw, seed)
        count, known = draw(5, 1, 9), draw(3, 1, 4)
        names = [NAMES[i] for i in torch.randperm(len(NAMES), generator=case.random)[:known]]
        images = torch.rand(count, 1, 2, 2, generator=case.random)
        labels = torch.randint(known, (count,), generator=case.random)
        order = torch.randperm(known, generator=case.random).tolist()
        chosen = [names[i] for i in order[:draw(1, 2, 3)]]
        odd = draw(*[None] * 2, "odd") and draw(
            "unknown", "twice", "string", "none", "no names", "half", "nan", "longer", "text",
            "no label", "negative", "beyond", "column", "empty")
        kind = draw("tensor", "pairs", "dicts")
        given = labels
        if odd:
            case.wrong.append(odd)
            first = torch.arange(count) == 0
            given = {"half": labels + .5, "nan": labels + math.nan, "negative": labels - first * 9,
                     "longer": torch.cat([labels, labels]), "beyond": labels + first * 99,
                     "text": ["x"] * count, "no label": [None] * count,
                     "column": labels[:, None].expand(-1, 2)}.get(odd, labels)
            chosen = {"unknown": [*chosen, "nobody"], "twice": chosen * 2, "string": "ab",
                      "none": None, "empty": []}.get(odd, chosen)
            if odd in ("negative", "beyond") or odd == "longer" and kind != "tensor":
                case.wrong, case.extreme = [], [odd]  # no class that was chosen
        case.values = dict(classes=chosen)
        known_names = None if odd == "no names" else names

        def choose(classes):
            data = (cka.TensorImages(images, given, known_names) if kind == "tensor"
                    else Pairs(images, given, known_names, kind == "dicts"))
            return cka.ClassSubset(data, classes)

        part = called(choose, case, "class", "label")
        if part is None:
            return
        if odd in (None, "longer"):
            number = {names.index(c): k for k, c in enumerate(chosen)}
            right = [i for i in range(count) if int(labels[i]) in number]
            assert part.index == right and part.classes == chosen and len(part) == len(right)
            assert part.labels.tolist() == [number[int(labels[i])] for i in right]
            for k, i in enumerate(right):
                x, y = part[k]
                assert torch.equal(x, images[i]) and y == number[int(labels[i])]
            every = list(range(len(part)))
            assert all(torch.equal(x, images[i]) for i, x in zip(right, part.images_at(every)))

    def sane_may_be_empty(draw, seed):
        try:
            check(draw, seed)
        except AssertionError as error:  # no image of a class is an error of its own
            if "no image of the classes" not in str(error):
                raise

    holds(EXAMPLES["subsets"], sane_may_be_empty)


def test_an_order_is_a_permutation_and_nothing_else():
    from cka_nb.data import epoch_order

    def check(draw, seed):
        case = Case(draw, seed)
        case.values = dict(count=draw(0, 1, 2, 50), seed=draw(seed, 0, -1, 2**40, 2**63, -2**70),
                           epoch=draw(0, 1, 10**9, -3))
        if draw(*[False] * 4, True):
            name = draw("count", "seed", "epoch")
            case.values[name] = draw(1.5, "a", None, math.nan, [1], torch.ones(2))
            case.wrong.append(name)
        order = called(epoch_order, case)
        if order is not None:
            count = case.values["count"]
            assert order.dtype == torch.int64 and order.sort()[0].tolist() == list(range(count))
            assert torch.equal(order, epoch_order(**case.values))
            other = epoch_order(**case.values | {"epoch": case.values["epoch"] + 1})
            assert count < 50 or not torch.equal(order, other)

    holds(EXAMPLES["orders"], check)


def test_what_is_stored_is_bit_equal(tmp_path):
    made = iter(range(10**6))

    def check(draw, seed):
        case = Case(draw, seed)
        size = draw(3, 1, 5)
        order = torch.randperm(len(NAMES), generator=case.random).tolist()
        names = [NAMES[i] for i in order[:size]]
        folder = tmp_path / f"{draw('a', 'ü 猫', 'a.b')}{next(made)}"
        channels = draw(1, 3)
        images = torch.rand(2, channels, 8, 8, generator=case.random)
        torch.manual_seed(seed)
        mean, std = draw((None, None), ([.5] * channels, [.1 + .3] * channels))
        if draw(True, False):
            classes = [None, *names[1:]] if size > 1 and draw(True, False) else names
            own = draw(True, False)
            net = (Net(size, channels, "conv", "tensor") if own
                   else cka.SmallResNet(size, channels, width=2))
            with torch.no_grad():
                for p in net.parameters():
                    p.copy_(torch.randn(p.shape) * draw(1, 1e-30, 1e-42))
            before = cka.Teacher(net, classes, draw(None, "ü", "\t"), input_size=(channels, 8, 8),
                                 transform=draw(None, cka.Preprocess(None, mean, std)))
            before.save(folder)
            after = cka.Teacher.load(folder, model=Net(size, channels, "conv", "tensor")
                                     if own else None)
            assert after.name == before.name and after.outputs == before.outputs
        else:
            before = cka.Student(draw("resnet_small", "vgg_small"), names, mean=mean, std=std,
                                 input_size=(channels, 8, 8), width=draw(2, 3)).eval()
            before.save(folder)
            after = cka.Student.load(folder)
            assert before.predict(images)[0] == after.predict(images)[0]
        assert after.classes == before.classes
        assert cka.fingerprint(after) == cka.fingerprint(before)
        for a, b in zip(after(images), before(images)):
            assert torch.equal(a, b)

    holds(EXAMPLES["stored"], check)


def test_there_are_2_000_inputs_for_teachers_and_data():
    """With `--flags slow`; a fifth of them always."""
    kinds = ("teachers", "renamed", "spaces", "unlabelled", "subsets", "orders", "stored")
    assert sum(EXAMPLES[name] for name in kinds) >= 2_000

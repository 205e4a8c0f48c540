"""Generated inputs: the plain oracle's value, with finite gradients, or one line that names what
is wrong; and the algebra that every loss obeys. A loss is one line in LOSSES.
"""

import copy
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
    "intra": Loss(cka.intra_model_loss, its.intra, {"z": its.rows} | LABELS | TAU | WEIGHT, cosines),
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
    if not loss.requires_grad:
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
        for part, value in found.items():
            assert value.shape == () and value.dtype in (F32, F64) and value.isfinite(), found
        inputs = {f"student {i}": x for i, x in enumerate(case.student)} | {
            f"teacher {t} {i}": x for t, its_ in enumerate(case.teachers) for i, x in enumerate(its_)}
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
    kinds = {"losses": LOSSES, "algebra": LOSSES, "objectives": OBJECTIVES,
             "estimators": ESTIMATORS}
    assert sum(EXAMPLES[name] * len(of) for name, of in kinds.items()) >= 10_000

"""Generated inputs and plain float64 oracles for `test_properties.py`; no code of the package.

A case is drawn from small lists, its numbers from a seed: quick to make, and it shrinks to a short
list of choices. Every choice carries its verdict: an input is sane (the oracle's value is due),
extreme (a finite value or a named error is due) or wrong (an error is due).
"""

import math
import os

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

F32, F64 = torch.float32, torch.float64


def examples(count):
    """How many of these are run: a fifth; with `--flags slow` all of them."""
    return count if "slow" in os.environ.get("TEST_FLAGS", "") else max(count // 5, 20)


def holds(count, check):
    """Run `check(draw)` on this many generated inputs, the same ones every time."""
    ran, count = 0, examples(count)

    @settings(max_examples=count, deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))
    @given(st.data())
    def each(data):
        nonlocal ran
        ran += 1
        check(lambda *choices: data.draw(st.sampled_from(choices)),
              data.draw(st.integers(0, 2**20)))

    each()
    assert ran >= count, f"only {ran} of {count} examples"


class Case:
    """The arguments of a call, with what is odd about them."""

    def __init__(self, draw, seed):
        self.draw, self.values, self.wrong, self.extreme = draw, {}, [], []
        self.random = torch.Generator().manual_seed(seed)
        self.count = draw(5, 0, 1, 2, 3, 8)
        self.columns = draw(3, 1, 2, 7)
        self.dtype = draw(F32, F32, F64, torch.float16, torch.bfloat16)

    def one_in(self, chance, *odd):
        """None, or by chance one of these oddities."""
        return self.draw(*odd) if self.draw(*[False] * (chance - 1), True) else None

    @property
    def sane(self):
        return not self.wrong and not self.extreme

    def normal(self, *shape):
        return torch.randn(*shape, generator=self.random, dtype=F64)

    def array(self, name):
        """What the oracle reads: the values as they were handed in, in float64."""
        value = self.values[name]
        return value if not isinstance(value, torch.Tensor) else (
            value.detach().to(F64 if value.is_floating_point() else value.dtype).numpy())


def filled(case, x, name):
    """Numbers of a kind, most often ordinary ones."""
    kind = case.draw(*["ordinary"] * 6, "large", "zeros", "zero row", "alike", "-0.", "subnormal",
                     "tiny", "huge", "one hot")
    if x.numel() == 0 or kind == "ordinary":
        return x
    if kind == "large":
        return x * 3e3
    if kind == "zeros":
        return x * 0
    if kind == "-0.":
        return x * 0 * -1
    if kind == "zero row":
        return torch.cat([x[:-1], x[-1:] * 0])
    if kind == "alike":
        return x[:1].expand_as(x).clone()
    if kind == "one hot":
        return torch.zeros_like(x).index_fill_(1, torch.tensor(0), 5.)
    if kind == "huge":
        case.extreme.append(f"{name} is huge")
        top = torch.finfo(case.dtype).max
        return (x * top / 4).clamp(-top, top)
    if kind == "tiny":
        return x * 1e-20
    return x * torch.finfo(case.dtype).tiny / 8


def laid_out(case, x):
    """The same values in another memory layout, wanting a gradient or not."""
    layout = case.draw("plain", "transposed", "strided", "plain", "negative", "view")
    if layout == "transposed":
        x = x.mT.contiguous().mT if x.ndim > 1 else x
    if layout == "strided":
        x = torch.stack([x, x * 3], -1)[..., 0]
    if layout == "negative" and x.ndim > 1:
        x = torch.cat([x * 2, x])[len(x):]
    if layout == "view":
        x = x.reshape(-1).view(x.shape)
    if x.is_floating_point() and case.draw(True, True, False):
        x = x.detach().requires_grad_()
    return x


def rows(case, name, shape=None, values=None):
    """(B, n) floats; sometimes of a wrong kind, shape or value."""
    x = case.normal(*(shape or (case.count, case.columns))) if values is None else values
    x = filled(case, x, name) if values is None else x
    dtype = case.dtype if case.draw(*[True] * 9, False) else case.draw(F32, F64)
    x = x.to(dtype)
    if not x.isfinite().all():
        case.wrong.append(name)
    odd = case.one_in(20, "nan", "inf", "-inf", "int", "bool", "complex", "fewer dims",
                      "more dims", "list", "none", "no columns")
    if odd in ("nan", "inf", "-inf") and x.numel():
        x = x.clone()
        x.view(-1)[case.draw(0, -1)] = float(odd)
        case.wrong.append(name)
    if odd in ("int", "bool", "complex"):
        x = x.nan_to_num(0, 9, -9).clamp(-9, 9) if odd == "int" else x
        x = x.to({"int": torch.int64, "bool": torch.bool, "complex": torch.complex64}[odd])
        case.wrong.append(name)
    if odd == "fewer dims":
        x = x[:, 0] if x.shape[1] else x.sum(1)
        case.wrong.append(name)
    if odd == "more dims":
        x = x[:, :, None]
        (case.extreme if name in "xy" else case.wrong).append(name)  # MMD flattens
    if odd in ("list", "none"):
        case.values[name] = x.tolist() if odd == "list" else None
        case.wrong.append(name)
        return
    if odd == "no columns":
        x = x[:, :0]
        case.extreme.append(name)
    case.values[name] = laid_out(case, x)


def other_rows(case, name):
    """The same number of images, of a width of their own."""
    rows(case, name, (case.count, case.draw(3, 1, 4)))


def many_rows(case, name):
    """As wide as the first, but more or fewer of them."""
    rows(case, name, (case.draw(4, 1, 0, 6), case.columns))


def like(case, name, first):
    """A second tensor: sometimes equal to the first, sometimes of another shape."""
    odd = case.one_in(16, "longer", "wider")
    count, columns = case.count + (odd == "longer"), case.columns + (odd == "wider")
    if odd:
        case.wrong.append("shapes")
    same = case.values[first]
    if (case.draw(*[False] * 7, True) and isinstance(same, torch.Tensor) and not odd
            and same.is_floating_point() and same.ndim == 2):
        case.values[name] = same.detach().clone()
        return
    rows(case, name, (count, columns))


def probabilities(case, name):
    """Rows that sum to 1, zeros among them."""
    p = (case.normal(case.count, case.columns) * case.draw(1, 5, 30)).softmax(1)
    p = torch.where(p < 1e-6, 0, p)
    odd = case.one_in(16, "negative", "not 1", "huge")
    if odd and p.numel():
        case.wrong.append(f"{name} of images that count")
        p = p - 2 if odd == "negative" else p * (1e30 if odd == "huge" else 3)
    rows(case, name, values=p)


def labels(case, name):
    """Pseudo-labels of any number, alike, all different, or something else."""
    y = torch.randint(3, (case.count,), generator=case.random)
    kind = case.draw("few", "few", "alike", "unique", "negative", "huge", "int32", "uint8")
    y = {"alike": y * 0, "unique": torch.arange(case.count), "negative": y - 5,
         "huge": y + 2**62}.get(kind, y)
    y = y.to({"int32": torch.int32, "uint8": torch.uint8}.get(kind, torch.int64))
    odd = case.one_in(14, "float", "bool", "complex", "column", "longer", "list", "none")
    if odd:
        case.wrong.append("labels")
        y = {"float": lambda: y.float(), "bool": lambda: y > 0, "none": lambda: None,
             "complex": lambda: y + 0j, "column": lambda: y[:, None], "list": y.tolist,
             "longer": lambda: torch.cat([y, y[:1]]) if len(y) else y.new_zeros(1)}[odd]()
    elif case.draw(*[False] * 9, True):
        y = torch.stack([y, y], 1)[:, 0]
    case.values[name] = y


def temperature(case, name):
    """Mostly usual ones; tiny and huge ones are extreme, the rest is wrong."""
    kind = case.draw(*["usual"] * 9, "extreme", "wrong", "odd type")
    value = case.draw(.1, .5, 1., 2., 4., 1, 10)
    if kind == "extreme":
        value = case.draw(1e-3, 1e3, 1e-8, 1e8, 1e-38, 1e30, 1e-300, 1e300, 5e-324, 2**70)
        case.extreme.append(name)
    if kind == "wrong":
        value = case.draw(0, 0., -1., -1e-9, math.nan, math.inf, -math.inf, None, "warm", [], {},
                          1j, False, "", b"1", 10**400, -0., torch.tensor([1., 2.]), object())
        case.wrong.append(name)
    if kind == "odd type":
        value = case.draw(True, "2", np.float32(2), torch.tensor(2.), np.array(2.), np.int64(2))
        case.extreme.append(name)
    case.values[name] = value


def weight(case, name):
    """None, or numbers >= 0 for each image."""
    if case.draw(True, False, False):
        case.values[name] = None
        return
    w = torch.rand(case.count, generator=case.random, dtype=F64) + .01
    kind = case.draw("any", "any", "zeros", "one", "some zero", "tiny", "large", "int", "bool")
    some = torch.arange(case.count) % 2
    w = {"zeros": w * 0, "one": (torch.arange(case.count) == 0).to(F64), "some zero": w * some,
         "tiny": w * 1e-30, "large": w * 1e30, "int": some, "bool": some > 0}.get(kind, w)
    if w.is_floating_point():
        w = w.to(case.draw(F32, F64) if kind in ("tiny", "large") else case.dtype)
    unlike = "target_probabilities of images that count"
    if unlike in case.wrong and not w.all():
        case.wrong.remove(unlike)
        case.extreme.append(unlike)
    odd = case.one_in(12, "negative", "nan", "inf", "column", "longer", "list", "number",
                      "complex", "largest")
    if odd:
        case.wrong.append("weight")
        w = w.to(F32) if odd != "largest" else torch.full_like(w, 3e38, dtype=F32)
        first = torch.arange(len(w)) == 0
        w = {"negative": lambda: w - 3 * first.to(w),
             "nan": lambda: torch.where(first, math.nan, w),
             "inf": lambda: torch.where(first, math.inf, w), "column": lambda: w[:, None],
             "longer": lambda: torch.cat([w, w.new_ones(1)]), "list": w.tolist,
             "number": lambda: 2., "complex": lambda: w + 1j, "largest": lambda: w}[odd]()
        if odd in ("negative", "nan", "inf") and not len(w):
            case.wrong.remove("weight")
        if odd == "negative" and len(w) and not w[0] < 0:
            case.wrong.remove("weight")
        if odd == "largest":  # their sum is infinite in fp32, not in float64
            case.wrong.remove("weight")
            case.extreme.append("weight")
    case.values[name] = w if isinstance(w, (list, float)) else laid_out(case, w)


def bandwidths(case, name):
    """Kernel widths."""
    if case.draw(*[True] * 5, False):
        case.values[name] = case.draw((.001, .01, .05, .1, .2, 1, 2), (1.,), [.5, 2])
        return
    value = case.draw((), (0,), (-1.,), (math.nan,), ("a",), None, 3, (1e-200,), (1e200,),
                      (math.inf,), torch.ones(2), "ab", (1j,))
    case.values[name] = value
    (case.extreme if isinstance(value, torch.Tensor) or value in ((1e-200,), (1e200,), (math.inf,))
     else case.wrong).append(name)


def flag(case, name):
    case.values[name] = case.draw(True, False)


# --- oracles: from the docstrings, row by row, float64 ---

def unit(x):
    """Rows of length 1; a row below 1e-12 is a zero row."""
    top = np.abs(x).max(1, keepdims=True, initial=0)
    scaled = np.where(top < 1e-12, 0, x) / np.where(top < 1e-12, 1, top)
    return scaled / np.maximum(np.sqrt((scaled**2).sum(1, keepdims=True)), 1e-300)


def log_softmax(v):
    v = v - v.max()
    return v - np.log(np.exp(v).sum())


def kl(p, log_q):
    """Sum of p log(p / q), where p is 0 it counts nothing."""
    return sum(a * (math.log(a) - b) for a, b in zip(p, log_q) if a > 0)


def mean(terms, weight=None, has_term=None):
    """sum(w l) / sum(w) over the images that have a term; 0 if there is none."""
    w = np.ones(len(terms)) if weight is None else np.asarray(weight, np.float64)
    w = w if has_term is None else w * has_term
    w = w / w.max(initial=0) if w.any() else w
    return float((w * terms).sum() / w.sum()) if w.any() else 0.


def soft_targets(student_logits, teacher_logits, temperature, weight=None):
    tau = float(temperature)
    return tau**2 * mean([kl(np.exp(log_softmax(t / tau)), log_softmax(s / tau))
                          for s, t in zip(student_logits, teacher_logits)], weight)


def mixed_targets(student_logits, target_probabilities, temperature, weight=None):
    tau = float(temperature)
    return tau**2 * mean([kl(p, log_softmax(s / tau))
                          for s, p in zip(student_logits, target_probabilities)], weight)


def intra(z, pseudo_labels, temperature, weight=None):
    u, terms, has = unit(z), [], []
    for i in range(len(u)):
        others = [j for j in range(len(u)) if j != i]
        alike = [k for k, j in enumerate(others) if pseudo_labels[j] == pseudo_labels[i]]
        log_p = log_softmax(u[others] @ u[i] / float(temperature)) if others else []
        terms.append(-np.mean([log_p[k] for k in alike]) if alike else 0.)
        has.append(bool(alike))
    return mean(terms, weight, np.array(has, float))


def inter(z_student, z_teacher, pseudo_labels, temperature, weight=None):
    s, t, tau = unit(z_student), unit(z_teacher), float(temperature)
    terms = []
    for i in range(len(s)):
        alike = pseudo_labels == pseudo_labels[i]
        terms.append(-(log_softmax(t @ s[i] / tau)[alike].mean()
                       + log_softmax(s @ t[i] / tau)[alike].mean()) / 2)
    return mean(terms, weight)


def pointwise(z_student, z_teacher, weight=None):
    return mean(1 - (unit(z_student) * unit(z_teacher)).sum(1), weight)


def relational(z_student, z_teacher, temperature, weight=None):
    s, t, terms, tau = unit(z_student), unit(z_teacher), [], float(temperature)
    for i in range(len(s)):
        others = np.arange(len(s)) != i
        terms.append(kl(np.exp(log_softmax(t[others] @ t[i] / tau)),
                        log_softmax(s[others] @ s[i] / tau)) if others.any() else 0.)
    return mean(terms, weight)


def alignment(z_student, z_teacher, temperature, weight=None):
    return (pointwise(z_student, z_teacher, weight)
            + relational(z_student, z_teacher, temperature, weight)) / 2


def mmd(x, y, bandwidths=(.001, .01, .05, .1, .2, 1, 2), normalize=True):
    if not len(x) or not len(y):
        return 0.
    x, y = (unit(x), unit(y)) if normalize else (x, y)

    def kernel(a, b):
        d2 = np.maximum(((a[:, None] - b[None])**2).sum(2), 1e-12)
        return sum(np.exp(-d2 / (2 * s**2)).mean() for s in bandwidths)

    return max(0., float(kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)))


def softmaxes(logits, tau):
    return [[np.exp(log_softmax(row / tau)) for row in l] for l in logits]


def mixed(logits, ownership, columns, tau):
    """Ownership times softmax, averaged over the teachers that know a class, normalised."""
    classes, targets = 1 + max(map(max, columns)), []
    for i, owns in enumerate(ownership):
        q, known = np.zeros(classes), np.zeros(classes)
        for t, places in enumerate(columns):
            for k, c in enumerate(places):
                q[c] += owns[t] * softmaxes([logits[t][i:i + 1]], tau)[0][0][k]
                known[c] += 1
        q = q / known
        targets.append(q / q.sum() if q.sum() > 0 else np.full(classes, 1 / classes))
    return np.array(targets).reshape(-1, classes)


def joined(logits, columns, tau):
    """One softmax over all logits, duplicates averaged, normalised."""
    classes, targets = 1 + max(map(max, columns)), []
    places = [c for its in columns for c in its]
    for row in np.concatenate(logits, 1):
        p = np.exp(log_softmax(row / tau))
        q = np.array([p[[k for k, c in enumerate(places) if c == y]].mean()
                      for y in range(classes)])
        targets.append(q / q.sum())
    return np.array(targets).reshape(-1, classes)


def refined(posterior, tau):
    """p^(1 / tau), normalised."""
    p = posterior**(1 / tau)
    return p / p.sum(1, keepdims=True)


# --- teachers' answers ---

class Output:
    """As a student or a teacher answers."""

    def __init__(self, logits, features):
        self.logits, self.features = logits, features


ODD_ANSWERS = {  # what is wrong -> what must be read for it to be noticed
    "nan in a teacher's logits": "", "inf in a teacher's logits": "", "whole logits": "",
    "a class too few": "", "an image too many": "", "a teacher too few": "",
    "a flat batch": "", "nan in the student's logits": "", "a class too few of the student": "",
    "a class too many of the student": "", "an image too many of the student": "",
    "nan in ownership": "ownership", "negative ownership": "ownership",
    "ownership of fewer": "ownership", "a list for ownership": "ownership",
    "flat ownership": "ownership", "an image too many in ownership": "ownership",
    "nan in the belief": "posterior", "negative belief": "posterior", "short belief": "posterior",
    "nan in a teacher's features": "features", "a teacher's features too wide": "features",
    "flat features": "features", "nan in the student's features": "features",
    "the student's features too wide": "features", "an image too few in features": "features",
    "temperature": ""}


class Answers(Case):
    """A student's and some teachers' answers to a batch, ownership, and perhaps a belief."""

    def __init__(self, draw, seed, odd=True):
        super().__init__(draw, seed)
        classes, teachers = draw(3, 1, 5), draw(2, 1, 3)
        pick = lambda n: torch.randperm(n, generator=self.random).tolist()
        self.classes = [pick(classes)[:1 + pick(classes)[0]] for _ in range(teachers)]
        seen = list(dict.fromkeys(c for its in self.classes for c in its))
        self.columns_of = [[seen.index(c) for c in its] for its in self.classes]
        self.union, self.width, self.widths = len(seen), draw(4, 1), [draw(3, 1, 6)
                                                                      for _ in self.classes]
        count = self.count
        self.student = [self.numbers(count, self.union), self.numbers(count, self.width)]
        self.teachers = [[self.numbers(count, len(c)), self.numbers(count, d)]
                         for c, d in zip(self.classes, self.widths)]
        self.ownership = self.owned(count, teachers)
        self.posterior = None
        if draw(True, False):
            self.posterior = (self.normal(count, self.union) * draw(1, 4)).softmax(1).to(self.dtype)
        self.temperature = draw(1., .5, 2., 4.)
        self.odd = draw(*ODD_ANSWERS) if odd and draw(*[False] * 2, True) else None
        if self.odd:
            self.spoil(self.odd, count)
        for x in (*self.student, *(x for t in self.teachers for x in t)):
            x.requires_grad_(x.is_floating_point() and draw(True, True, False))

    def numbers(self, *shape):
        x = self.normal(*shape)
        kind = self.draw(*["ordinary"] * 8, "large", "zeros", "alike", "huge")
        if kind == "huge":
            self.extreme.append("huge")
            top = torch.finfo(self.dtype).max
            return (x * top / 4).clamp(-top, top).to(self.dtype)
        x = {"large": x * 1e3, "zeros": x * 0, "alike": x[:1].expand_as(x)}.get(kind, x)
        return x.contiguous().to(self.dtype)

    def owned(self, count, teachers):
        a = torch.rand(count, teachers, generator=self.random, dtype=F64)
        kind = self.draw("any", "any", "sure", "nobody", "one nobody", "all", "tiny")
        first = torch.arange(count)[:, None] == 0
        a = {"sure": (a == a.max(1, keepdim=True)[0]).to(F64) if count else a, "nobody": a * 0,
             "one nobody": a.masked_fill(first, 0), "all": a * 0 + 1,
             "tiny": a * 1e-25}.get(kind, a)
        if kind == "tiny":
            self.extreme.append("tiny ownership")
        return a.to(self.draw(F32, F32, self.dtype))

    def spoil(self, odd, count):
        """Make one thing wrong."""
        empty = count == 0
        (self.extreme if empty and ("nan" in odd or "inf" in odd or "neg" in odd) else
         self.wrong).append(odd)
        first = lambda x, value: x.clone().index_fill_(0, torch.arange(min(1, len(x))), value)
        longer = lambda x: torch.cat([x, x.new_ones(1, x.shape[1])])
        t, s, a = self.teachers[-1], self.student, self.ownership
        belief = self.normal(count, self.union).softmax(1)
        change = {
            "nan in a teacher's logits": lambda: t.__setitem__(0, first(t[0], math.nan)),
            "inf in a teacher's logits": lambda: t.__setitem__(0, first(t[0], -math.inf)),
            "whole logits": lambda: t.__setitem__(0, t[0].clamp(-9, 9).long()),
            "a class too few": lambda: t.__setitem__(0, t[0][:, 1:]),
            "an image too many": lambda: t.__setitem__(0, longer(t[0])),
            "a teacher too few": lambda: self.teachers.pop(),
            "a flat batch": lambda: t.__setitem__(0, t[0].flatten()),
            "nan in the student's logits": lambda: s.__setitem__(0, first(s[0], math.nan)),
            "a class too few of the student": lambda: s.__setitem__(0, s[0][:, 1:]),
            "a class too many of the student": lambda: s.__setitem__(0, torch.cat([s[0], s[0]], 1)),
            "an image too many of the student": lambda: s.__setitem__(0, longer(s[0])),
            "nan in ownership": lambda: setattr(self, "ownership", first(a, math.nan)),
            "negative ownership": lambda: setattr(self, "ownership", first(a, -.5)),
            "ownership of fewer": lambda: setattr(self, "ownership", a[:, 1:]),
            "a list for ownership": lambda: setattr(self, "ownership", a.tolist()),
            "flat ownership": lambda: setattr(self, "ownership", a.flatten()),
            "an image too many in ownership": lambda: setattr(self, "ownership", longer(a)),
            "nan in the belief": lambda: setattr(self, "posterior", first(belief, math.nan)),
            "negative belief": lambda: setattr(self, "posterior", first(belief, -.5)),
            "short belief": lambda: setattr(self, "posterior", belief[:, 1:]),
            "nan in a teacher's features": lambda: t.__setitem__(1, first(t[1], math.nan)),
            "a teacher's features too wide": lambda: t.__setitem__(1, torch.cat([t[1]] * 2, 1)),
            "flat features": lambda: t.__setitem__(1, t[1].flatten()),
            "nan in the student's features": lambda: s.__setitem__(1, first(s[1], math.nan)),
            "the student's features too wide": lambda: s.__setitem__(1, torch.cat([s[1]] * 2, 1)),
            "an image too few in features": lambda: t.__setitem__(1, longer(t[1])),
            "temperature": lambda: setattr(self, "temperature", self.draw(
                0, -1., math.nan, math.inf, None, "warm", 1e-30, [], True and 1e300)),
        }
        change[odd]()

    def numpy(self, x):
        return x.detach().to(F64).numpy()

    @property
    def logits(self):
        return [self.numpy(t[0]) for t in self.teachers]


def owner_shares(a):
    return a / np.maximum(a.sum(1, keepdims=True), 1e-12)


def owned_parts(case, tau, task, embeddings=None, contrast_tau=.1):
    """The parts of the amalgamation, unweighted but for `task`; the joint target by belief."""
    a, logits, student = case.numpy(case.ownership), case.logits, case.numpy(case.student[0])
    pi = owner_shares(a)
    target = (mixed(logits, a, case.columns_of, tau) if case.posterior is None
              else refined(case.numpy(case.posterior), tau))
    parts = {"joint": mixed_targets(student, target, tau)}
    share = pi.mean(0) if len(pi) else pi.sum(0)
    over = lambda losses: float(sum(p * l for p, l in zip(share, losses)))
    parts["task"] = task * over([soft_targets(student[:, c], l, tau, w)
                                 for c, l, w in zip(case.columns_of, logits, pi.T)])
    if embeddings is None:
        return parts
    z, *others = embeddings
    belief = (mixed(logits, a, case.columns_of, 1) if case.posterior is None
              else case.numpy(case.posterior))
    y = belief.argmax(1) if len(belief) else np.zeros(0, int)
    top = np.sort(belief, 1)
    case.tied = bool((top[:, -1] - top[:, -2] < 1e-5).any()) if belief.shape[1] > 1 else False
    parts["intra"] = intra(z, y, contrast_tau, a.max(1)) + over(
        [intra(t, y, contrast_tau, w) for t, w in zip(others, a.T)])
    parts["inter"] = over([inter(z, t, y, contrast_tau, w) for t, w in zip(others, a.T)])
    parts["alignment"] = over([alignment(z, t, contrast_tau, w) for t, w in zip(others, a.T)])
    return parts


def heaps(scores, rounds=50):
    """Expectation-maximisation of two Gaussians of one variance; P(upper | each score)."""
    ordered = np.sort(scores)
    low, high = (ordered[max(1, round(part * len(scores))) - 1] for part in (.25, .75))
    if high > low:
        scores = np.clip(scores, low - 8 * (high - low), high + 8 * (high - low))
    if not scores.std() > 0:
        return lambda x: np.full(len(x), .5)
    v = (scores - scores.mean()) / scores.std()
    middle = np.sort(v)[(len(v) - 1) // 2]
    r = (v > middle if (v > middle).any() else v >= middle).astype(float)
    for _ in range(rounds):
        p = min(.98, max(.02, r.mean()))
        up, down = (r * v).sum() / r.sum(), ((1 - r) * v).sum() / max((1 - r).sum(), 1e-9)
        var = max(.01, (r * (v - up)**2 + (1 - r) * (v - down)**2).mean())
        odds = lambda u: math.log(p / (1 - p)) + ((u - down)**2 - (u - up)**2) / (2 * var)
        r = 1 / (1 + np.exp(-odds(v)))
    return lambda x: 1 / (1 + np.exp(-odds((x - scores.mean()) / scores.std())))

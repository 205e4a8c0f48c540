"""What processes started by a test run: functions that they can import."""

from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn

import cka_nb as cka
from cka_nb.processes import rank, world_size

CLASSES = (list("01234"), list("4567"), list("89"))  # one class has two teachers


class Doubled(cka.ContrastiveAmalgamation):
    """The objective with projections in float64, to compare gradients to the last digits."""

    def build(self, *sizes):
        super().build(*sizes)
        self.double()


def network(classes):
    """A classifier without batch norm, whose statistics would differ between processes."""
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 36, 12),
                         nn.Tanh(), nn.Linear(12, classes))


def images(count=100):
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()


def amalgamated(steps_by_sgd=True, objective=None, **settings):
    """The weights (P,) of a student after a short run, and its history: by plain gradient descent,
    so that weights which are equal to 1e-12 tell of gradients which are."""
    torch.manual_seed(0)
    teachers = [cka.Teacher(network(len(c)).double(), c, f"t{k}") for k, c in enumerate(CLASSES)]
    space = cka.LabelSpace(teachers)
    student = cka.Student(network(len(space)), space, input_size=(1, 8, 8)).double()
    descent = lambda parameters, lr, weight_decay, fused: torch.optim.SGD(parameters, lr=lr)
    optimiser = patch("torch.optim.AdamW", descent) if steps_by_sgd else patch("os.name", "posix")
    objective = Doubled() if objective is None else objective
    with optimiser:
        history = cka.amalgamate(teachers, student, images(), objective, device="cpu",
                                 **dict(epochs=3, batch_size=24, lr=.5, views=2) | settings)
    return torch.cat([p.detach().flatten() for p in student.parameters()]), history


def from_a_sample():
    """The same weights where beliefs are fitted to 40 of the 100 images."""
    with patch("cka_nb.cache.LARGEST", 40):
        return amalgamated()[0]


def seen_images(folder, **settings):
    """Which images this process shows to its student, step by step; rank, and files written."""
    from cka_nb.training import Amalgamation
    shown, inputs = [], Amalgamation.inputs

    def watched(task, batch):
        shown.append(batch.numbers.tolist())
        return inputs(task, batch)
    with patch.object(Amalgamation, "inputs", watched):
        amalgamated(out=folder, **settings)
    return rank(), shown, sorted(p.name for p in Path(folder).iterdir())


def gradient_without_positives():
    """The gradient of contrast over a batch in whose second half no image has a positive."""
    from cka_nb.contrast import inter_model_loss, intra_model_loss
    from cka_nb.processes import gathered, shard
    random = torch.Generator().manual_seed(0)
    x, keys = torch.randn(2, 8, 5, generator=random).double()
    labels = torch.tensor([0, 0, 1, 1, 2, 3, 4, 5])
    w = torch.randn(5, 4, generator=random).double().requires_grad_()
    z = gathered(shard(x) @ w)
    loss = intra_model_loss(z, labels) + inter_model_loss(z, gathered(shard(keys)) @ w.detach(),
                                                          labels)
    loss.backward()
    if world_size() > 1:
        torch.distributed.all_reduce(w.grad)
    return w.grad / world_size()

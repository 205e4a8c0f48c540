"""Does a witness help in the common space, too, beside the belief that it moves?

usage: python studies/witness_space.py [SETTING ...]

In settings of another heap a student is trained from the default's belief, from that of a witness
made from the heap (`train_witness`), and from the latter with the witness in the common space: by
the contrast and the alignment that teachers have, as a model that owns every image; by a soft
relational contrast over a queue (Fang et al., 2021, SEED: among 1,024 images seen before, the
student shall find those alike that the witness finds alike); or by both. Accuracy on held-out
images of three seeds that no result uses; no test image is opened. Written to
results/witness_space.json after each setting.
"""

import sys
import warnings
from pathlib import Path

import torch
from torch import nn

from cka_nb.asking import MeanAnswers, ask
from cka_nb.classes import LabelSpace
from cka_nb.comparison import means_of
from cka_nb.core import seeded, unit_rows
from cka_nb.data import Unlabelled, epoch_order, random_affine, view_of
from cka_nb.evaluation import answers_of, scores
from cka_nb.files import read_json, versions, write_json
from cka_nb.information import InformationOwnership
from cka_nb.models import SmallResNet
from cka_nb.objective import ContrastiveAmalgamation, Projection, common_space_losses, pseudo_labels
from cka_nb.settings import HEAP_SETTINGS, make_student, make_teachers
from cka_nb.steps import one_cycle
from cka_nb.teaching import train_witness
from cka_nb.witness import WitnessOwnership

OUT, SEEDS, VIEWS = Path("results/witness_space.json"), (100, 101, 102), 8
SETTINGS = ("digits_new", "four_brief", "four_groupnorm_new", "digits_vit_new")
STEPS = 360  # of the witness, about
LENGTH = 1024  # of the queue
ROWS = {"no witness": (), "its belief": (), "and contrast": ("contrast",),
        "and a queue": ("queue",), "and both": ("contrast", "queue")}


def queue_loss(z_bw, seen_bw, queue_qw, temperature=0.1, sharper=0.5):
    "Cross-entropy of similarities to a queue: the student's under the witness's."
    target = (unit_rows(seen_bw) @ queue_qw.T / (temperature * sharper)).softmax(1)
    return -(target * (unit_rows(z_bw) @ queue_qw.T / temperature).log_softmax(1)).sum(1).mean()


class Witnessed(nn.Module):
    "The objective, and a witness in the common space."

    def __init__(self, parts, space, student_width, teacher_widths, witness_width):
        super().__init__()
        self.parts, self.queue = parts, torch.zeros(0, witness_width)
        self.main = ContrastiveAmalgamation()
        self.main.build(space, student_width, teacher_widths)
        self.seen = Projection(witness_width, self.main.width)
        self.to_witness = Projection(student_width, witness_width)

    def forward(self, student, teachers, owned, space, posterior, seen):
        loss = sum(self.main(student, teachers, owned, space, posterior).values())
        if "contrast" in self.parts:
            z = torch.stack([self.main.student_projection(student.features), self.seen(seen)])
            labels = pseudo_labels([t.logits for t in teachers], owned, space, posterior)
            found = common_space_losses(z, labels, torch.ones(len(seen), 1))
            loss = loss + sum(getattr(self.main, k) * v for k, v in found.items())
        if "queue" in self.parts:
            if len(self.queue):
                loss = loss + 0.2 * queue_loss(self.to_witness(student.features), seen, self.queue)
            self.queue = torch.cat([self.queue, unit_rows(seen)])[-LENGTH:]
        return loss


def learn(student, objective, teachers, witness, centre, beliefs, heap, setting, seed):
    "Train the student in place, step for step as `amalgamate` does."
    images, (owned, posterior), space = Unlabelled(heap.images), beliefs, LabelSpace(teachers)
    per_epoch = max(1, len(heap.images) // setting.batch_size)
    weights = [*student.train().parameters(), *objective.parameters()]
    steps = per_epoch * setting.epochs_for(len(heap))
    optimiser = torch.optim.AdamW(weights, lr=2e-3, weight_decay=1e-2, fused=True)
    for step in range(steps):
        epoch, k = divmod(step, per_epoch)
        index = epoch_order(len(heap.images), seed, epoch)[k * setting.batch_size:][
            :setting.batch_size]
        optimiser.param_groups[0]["lr"] = 2e-3 * one_cycle(step, steps)
        optimiser.zero_grad()
        x = view_of(images.batch(index), index, seed, step, setting.augment)
        *answers, (_, seen) = ask([*teachers, witness], x)
        objective(student(x), answers, owned[index], space, posterior[index],
                  seen - centre).backward()
        optimiser.step()


def of_seed(name, seed):
    "row -> accuracy on held-out images, and the belief's on the heap"
    setting = HEAP_SETTINGS[name]
    split = setting.split(seed)
    heap, augment = split.heap, setting.augment
    teachers = make_teachers(setting, split.taught, seed, device="cpu")
    with seeded(seed):
        net = SmallResNet(1, heap.images.shape[1])
    witness = train_witness(net, heap.images, seed=seed, device="cpu",
                            epochs=max(1, STEPS // max(1, len(heap) // 128)),
                            augment=augment or random_affine)
    means = MeanAnswers(teachers, Unlabelled(heap.images), VIEWS, augment, seed, batch_size=64,
                        witness=witness).fill()
    said, seen, space, rows = means.all_means(), means.witnessed(), LabelSpace(teachers), {}
    for row, parts in ROWS.items():
        heard = row != "no witness"
        estimator = WitnessOwnership(space) if heard else InformationOwnership(space)
        its = (*said, seen) if heard else said
        estimator.fit(*its)
        beliefs = estimator(*its), estimator.posterior(*its)
        student = make_student(setting, space, heap.images, seed)
        with seeded(seed):
            objective = Witnessed(parts, space, student.head.in_features,
                                  [f.shape[1] for f in said[1]], seen.shape[1])
        learn(student, objective, teachers, witness, seen.mean(0), beliefs, heap, setting, seed)
        judged = scores(answers_of(student.eval(), split.held_out))
        rows[row] = {"joint": judged["joint"], "owner": judged["owner"], "ece": judged["ece"]}
        print(f"{name}, seed {seed}, {row}: {100 * judged['joint']:.1f}", flush=True)
    return rows


def main(names):
    warnings.simplefilter("ignore")  # what is left out is not the question here
    rows = read_json(OUT)["rows"] if OUT.is_file() else {}
    for name in names or SETTINGS:
        if name not in rows:
            per_seed = [of_seed(name, seed) for seed in SEEDS]
            rows[name] = {row: its | {"per_seed": [one[row]["joint"] for one in per_seed]}
                          for row, its in means_of(per_seed).items()}
            write_json(OUT, {"what": "a witness in the common space; joint accuracy on held-out "
                             "images", "command": "python studies/witness_space.py",
                             "seeds": [*SEEDS], "device": "cpu",
                             "threads": torch.get_num_threads(), "versions": versions(),
                             "rows": rows})
        for row, its in rows[name].items():
            print(f"{name:20}{row:>16}{100 * its['joint']:8.1f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

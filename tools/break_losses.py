"""Break the chapters' code on purpose; a Markdown table of which check turned red.

usage: python tools/break_losses.py [CHAPTER ...]    (e.g. 08_contrast; default: all, 15 minutes)

Each breakage is made in a temporary copy of one notebook and run as the tests run it. The exit
status is 1 if one was not caught. Text that no longer stands in the notebook once is an error.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
RUNNER = Path(sys.executable).with_name("nbdev-test")
ENV = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
WIDTH = 110  # of a failing statement in the table

# chapter, then "kind: what is broken", then "text that stands once in exported cells ==> new text"
BREAKAGES = r"""
02_identity
  other: described: images are not part of the run
    sha256=_hash_of(images)) ==> sha256='')
  itself: told: objects by their class alone
    return _class_of(thing), _of_object(thing, values) ==> return _class_of(thing), {}
  itself: told: what a function holds is ignored
    return text, held | ==> return text,
  itself: told: the second function of a line is the first
    sorted(nodes, key=lambda n: around(n)[:2])[-1:] ==> sorted(nodes, key=lambda n: around(n)[:2])[:1]
  itself: structure: hidden settings ignored
    and k != 'state' and (strict and values or k[:1] != '_')} ==> and False}
07_soft_targets
  itself: soft_target_loss: the teacher compared with itself
    log_q_bc = (student_logits ==> log_q_bc = (teacher_logits
  sign: soft_target_loss: log-ratio turned
    (log_p_bc - log_q_bc) ==> (log_q_bc - log_p_bc)
  sign: soft_target_loss: KL(student || teacher)
    log_p_bc.exp() * (log_p_bc ==> -log_q_bc.exp() * (log_p_bc
  sum: soft_target_loss: sum over images
    weighted_mean(kl_b, check_weight(weight, kl_b)) ==> kl_b.sum()
  mean: soft_target_loss: mean over classes
    (log_p_bc - log_q_bc)).sum(1) ==> (log_p_bc - log_q_bc)).mean(1)
  weights: soft_target_loss: weights ignored
    kl_b, check_weight(weight, kl_b) ==> kl_b, check_weight(None, kl_b)
  temperature: soft_target_loss: tau^2 left out
    tau**2 * weighted_mean(kl_b, check ==> weighted_mean(kl_b, check
  detach: soft_target_loss: teacher not detached
    teacher_logits.detach() ==> teacher_logits
  sum: mixture: shared classes added
    q_bc / known_c.to(q_bc.dtype).clamp_min(1) ==> q_bc
  weights: mixture: ownership ignored
    ownership[:, t:t+1] * p_bc ==> p_bc
  detach: mixture: teachers not detached
    l_bc.detach().to(own ==> l_bc.to(own
  temperature: mixture: temperature ignored
    .to(ownership) / tau) ==> .to(ownership))
  itself: mixture_loss: the target compared with itself
    q_bc * (student_logits / tau).log_softmax(1) ==> torch.xlogy(q_bc, q_bc)
  sign: mixture_loss: student's term added
    - q_bc * (student_logits ==> + q_bc * (student_logits
  sum: mixture_loss: sum over images
    weighted_mean(kl_b, weight_b) ==> (kl_b * weight_b).sum()
  weights: mixture_loss: weights ignored
    weighted_mean(kl_b, weight_b) ==> kl_b.mean()
  temperature: mixture_loss: tau^2 left out
    tau**2 * weighted_mean(kl_b, weight_b) ==> weighted_mean(kl_b, weight_b)
  detach: mixture_loss: target not detached
    target_probabilities.detach() ==> target_probabilities
  sum: concatenated: shared classes added
    sums_bc / known_c.to(p_bk.dtype) ==> sums_bc
  detach: concatenated: not detached
    [l.detach().float() for l in logits] ==> [l.float() for l in logits]
08_contrast
  sign: intra: sign
    'terms_b': -(target_nb * log_p_nb).sum(1), ==> 'terms_b': (target_nb * log_p_nb).sum(1),
  sign: inter: sign
    return -(target_nb * (there ==> return (target_nb * (there
  sum: both: sum over positives
    positive_nb / positive_nb.sum(1, keepdim=True).clamp_min(1) ==> positive_nb
  mean: intra: softmax over positives only
    -(target_nb * log_p_nb).sum(1) ==> -(target_nb * log_p_nb.masked_fill(target_nb == 0, -1e30).log_softmax(1)).sum(1)
  mean: intra: anchors without a positive counted
    target_nb.sum(1) > 0 ==> target_nb.sum(1) >= 0
  sum: intra: sum over anchors
    return weighted_mean(weight_b=weight_b, **in_blocks(terms, unit_rows(z))) ==> return len(z) * weighted_mean(weight_b=weight_b, **in_blocks(terms, unit_rows(z)))
  weights: intra: weights ignored
    check_weight(weight, z)\n ==> check_weight(None, z)\n
  itself: intra: every image among its own keys
    similarity_nb.detach().diagonal(rows.start).fill_(-1e30) ==> pass
  itself: intra: every image its own key and positive
    similarity_nb.detach().diagonal(rows.start).fill_(-1e30) ==> pass
    rows, log_p_nb.dtype, itself=False) ==> rows, log_p_nb.dtype)
  itself: intra: every image among its own keys in later blocks
    similarity_nb.detach().diagonal(rows.start).fill_ ==> similarity_nb.detach().diagonal().fill_
  itself: intra: every image its own positive in later blocks
    if not itself: positive_nb.diagonal(rows.start) ==> if not itself: positive_nb.diagonal()
  itself: inter: the teacher compared with itself
    there_nb, all_rows = student_bw[rows] ==> there_nb, all_rows = teacher_bw[rows]
  one model: inter: keys and positives from the student only
    student_bw[rows] / tau @ teacher_bw.T ==> student_bw[rows] / tau @ student_bw.T
  detach: inter: the teacher's embedding detached
    in_blocks(terms, unit_rows(z_student), unit_rows(z_teacher)) ==> in_blocks(terms, unit_rows(z_student), unit_rows(z_teacher).detach())
  detach: inter: the student's embedding detached
    in_blocks(terms, unit_rows(z_student), ==> in_blocks(terms, unit_rows(z_student).detach(),
  one model: inter: one direction only
    there_nb.log_softmax(1) + back_nb.log_softmax(1) ==> 2 * there_nb.log_softmax(1)
  one model: inter: one direction only in blocks
    if all_rows else teacher_bw[rows] / tau @ student_bw.T ==> if all_rows else there_nb
  one model: inter: blocks taken for all rows
    back_nb = there_nb.T if all_rows else ==> back_nb = there_nb.T if len(there_nb) > 1 else
  sum: inter: both directions added
    back_nb.log_softmax(1))).sum(1) / 2 ==> back_nb.log_softmax(1))).sum(1)
  one model: inter: the same image is no positive
    rows, student_bw.dtype) ==> rows, student_bw.dtype, itself=False)
  one model: inter: only the same image is a positive
    target_nb = positives(pseudo_labels, rows, student_bw.dtype) ==> target_nb = torch.eye(len(student_bw)).to(student_bw)[rows]
  weights: inter: weights ignored
    check_weight(weight, z_student) ==> check_weight(None, z_student)
  temperature: inter: temperature ignored
    student_bw[rows] / tau @ teacher_bw.T ==> student_bw[rows] @ teacher_bw.T
  other: in_blocks: rows off by one in the backward
    ctx.terms(rows, *inputs).values() ==> ctx.terms(slice(max(0, rows.start - 1), rows.stop - 1), *inputs).values()
  other: in_blocks: gradient of the last block only
    torch.autograd.backward(*zip(*pairs), inputs=learning) ==> [x.grad.zero_() for x in learning]; torch.autograd.backward(*zip(*pairs), inputs=learning)
  other: in_blocks: autocast in the backward
    enabled=False):\n                found ==> enabled=True):\n                found
  other: in_blocks: all rows at a time
    if step >= count: ==> if True:
09_alignment
  sign: mmd: cross term added
    - 2 * kernel_mean ==> + 2 * kernel_mean
  itself: mmd: x with itself
    2 * kernel_mean(x_bd, y_bd) ==> 2 * kernel_mean(x_bd, x_bd)
  sum: mmd: sum over pairs
    .exp().mean() ==> .exp().sum()
  detach: mmd: y detached
    for v in (x, y)) ==> for v in (x, y.detach()))
  other: mmd: exp(-d^2 / s^2)
    (2 * s**2) ==> s**2
  other: mmd: rows not normalised
    if normalize: ==> if False:
  other: mmd: zero distances not clamped
    .square().clamp_min(1e-12) ==> .square()
  other: mmd: rounding may go below zero
    (x_bd, y_bd)).clamp_min(0) ==> (x_bd, y_bd))
  itself: pointwise: the teacher compared with itself
    (unit_rows(z_student) * ==> (unit_rows(z_teacher) *
  sign: pointwise: 1 + cosine
    weighted_mean(1 - cosine_b ==> weighted_mean(1 + cosine_b
  sum: pointwise: sum over images
    return weighted_mean(1 - ==> return len(z_student) * weighted_mean(1 -
  weights: pointwise: weights ignored
    cosine_b, check_weight(weight, z_student) ==> cosine_b, check_weight(None, z_student)
  itself: relational: every image among its own neighbours
    (neighbours(u_bw, tau, rows) for ==> ((u_bw[rows] @ u_bw.T / tau).log_softmax(1) for
  other: relational: the first rows in every block
    (neighbours(u_bw, tau, rows) for ==> (neighbours(u_bw[:, :], tau, slice(0, len(u_bw[rows]))) for
  other: relational: all rows at a time
    **found) ==> **terms(slice(0, len(z_student)), unit_rows(z_student), unit_rows(z_teacher)))
  sign: relational: log-ratio turned
    (log_p_nb - log_q_nb) ==> (log_q_nb - log_p_nb)
  sign: relational: KL(student || teacher)
    log_p_nb, log_q_nb = ==> log_q_nb, log_p_nb =
  detach: relational: the teacher's embedding detached
    unit_rows(z_teacher))\n    return weighted ==> unit_rows(z_teacher.detach()))\n    return weighted
  weights: relational: weights ignored
    weighted_mean(weight_b=weight_b, **found) ==> weighted_mean(weight_b=torch.ones_like(weight_b), **found)
  detach: alignment: the teacher's embedding detached
    return (pointwise ==> z_teacher = z_teacher.detach(); return (pointwise
  weights: alignment: weights ignored
    return (pointwise ==> weight = None; return (pointwise
  sum: alignment: halves added
    temperature, weight)) / 2 ==> temperature, weight))
  other: alignment: pointwise half only
    + relational_loss(z_student, z_teacher, temperature, weight)) / 2 ==> )
10_ownership
  other: two_heaps: strange scores kept
    return score.clamp(low - reach, high + reach) if reach > 0 else score ==> return score
  other: two_heaps: no start where most scores are alike
    (v > v.median() if (v > v.median()).any() else v >= v.median()) ==> (v > v.median())
  other: ClassConditionalOwnership: strange logits in the scale
    [size_n <= 10 * size_n.median()] ==> [size_n >= 0]
  sign: energy turned
    return centred(logits).logsumexp(1) ==> return -centred(logits).logsumexp(1)
  other: centred: the constant left in
    - logits.float().mean(1, keepdim=True) ==> - 0 * logits.float().mean(1, keepdim=True)
  sign: balancing: frequent classes made more frequent
    goal_c = -strength ==> goal_c = strength
  other: two_heaps: share of the heaps ignored
    (share / (1 - share)).log() - ( ==> -(
  sign: two_heaps: heaps swapped
    slope = (high - low) ==> slope = (low - high)
  other: two_heaps: centre forgotten
    offset - slope * centre / scale ==> offset
  one model: EnergyOwnership: the first teacher's heaps for all
    two_heaps(energy(l)) for l in logits ==> two_heaps(energy(logits[0])) for l in logits
  one model: ClassConditionalOwnership: the first teacher's features only
    enumerate(features)], 1) ==> enumerate(features[:1])], 1)
  other: ClassConditionalOwnership: features ignored
    + self.weight * _power(state) * self._log_gaussians(z_bd, state)) ==> )
  other: ClassConditionalOwnership: scales of the teachers ignored
    2 * centred(l) / s ==> 2 * centred(l) + 0 * s
  other: ClassConditionalOwnership: belief not the root
    (score_bc / (1 + _power(state))).softmax(1) ==> score_bc.softmax(1)
  sign: ClassConditionalOwnership: distance added
    log_share_c - far_bc ==> log_share_c + far_bc
  mean: ClassConditionalOwnership: mean over classes
    its].sum(1) ==> its].mean(1)
  sign: MomentOwnership: tilted the other way
    (_log(first_bc) + tilt_bt @ ==> (_log(first_bc) - tilt_bt @
  other: MomentOwnership: first belief forgotten
    (_log(first_bc) + tilt_bt @ ==> (tilt_bt @
  one model: MomentOwnership: the first teacher's memory only
    for x, v in zip(u, w)], 1) @ ==> for x, v in zip(u, w)], 1) * (torch.arange(len(u)) == 0) @
  other: MomentOwnership: scales of traces ignored
    v.detach() / s for v ==> v.detach() for v
  other: MomentOwnership: ridge ignored
    + ridge / 2 * sum ==> + 0 * sum
  other: MomentOwnership: contradictions ignored
    if left[worst] <= self.limit ==> if True
11_objective
  weights: pseudo_labels: ownership ignored
    q_bc = mixture(logits, ownership, ==> q_bc = mixture(logits, ownership * 0 + 1,
  sum: over_teachers: sum over images
    shares_bt.mean(0) ==> shares_bt.sum(0)
  weights: over_teachers: shares ignored
    share * loss for ==> loss for
  weights: joint: ownership ignored
    target_bc = (mixture(logits, ownership, ==> target_bc = (mixture(logits, ownership * 0 + 1,
  other: joint: belief ignored
    if posterior is None else tempered(posterior ==> if True else tempered(posterior
  other: pseudo_labels: belief ignored
    if posterior is None else posterior ==> if True else posterior
  itself: task: the student compared with itself
    [:, c], l, self.temperature ==> [:, c], student.logits[:, c], self.temperature
  weights: task: ownership ignored
    l, self.temperature, w) ==> l, self.temperature)
  weights: task: its weight ignored
    = self.task * over ==> = over
  one model: intra: the student only
    student_b, has_term) + each(terms_tb, has_term) ==> student_b, has_term)
  one model: intra: the teachers only
    weighted_mean(own_b, student_b, has_term) + each ==> each
  mean: intra: images without a positive counted
    target_nb.sum(1) > 0 ==> target_nb.sum(1) >= 0
  itself: intra: every image its own positive
    student_bw.dtype, itself=False) ==> student_bw.dtype)
  weights: intra: ownership ignored
    (own_b, student_b, has_term) ==> (own_b, student_b * 0 + 1, has_term)
  weights: intra: the sum of ownerships, not the largest
    (ownership.amax(1), ==> (ownership.sum(1),
  weights: all: ownership ignored by the teachers' means
    weighted_mean(l_b, w_b, has_term) ==> weighted_mean(l_b, w_b * 0 + 1, has_term)
  one model: inter: the first teacher's for all
    inter_terms(student_bw, t_bw, target ==> inter_terms(student_bw, teachers[0], target
  detach: inter: the teacher's embedding detached
    inter_terms(student_bw, t_bw, target ==> inter_terms(student_bw, t_bw.detach(), target
  itself: inter: the teacher compared with itself
    inter_terms(student_bw, t_bw, target ==> inter_terms(t_bw, t_bw, target
  weights: the common space: weights of the parts ignored
    {name: weight * losses[name] for ==> {name: losses[name] for
  detach: the common space: the teachers' embeddings detached
    torch.stack([z_student, *z_teachers]) ==> torch.stack([z_student, *(z.detach() for z in z_teachers)])
  other: alignment: all rows in every block
    (student_bw[rows] * t_bw[rows]) ==> (student_bw[:len(t_bw[rows])] * t_bw[:len(t_bw[rows])])
  sign: alignment: KL(student || teacher)
    divergence(log_p_nb, log_q_nb) for ==> divergence(log_q_nb, log_p_nb) for
  sum: alignment: halves added
    (far_tn + kl_tn) / 2 ==> (far_tn + kl_tn)
  other: the common space: parts of weight 0 computed too
    if (weight := getattr(self, name))} ==> if (weight := getattr(self, name)) is not None}
12_evaluation
  other: joint: images of unknown classes left out
    'joint': _share(predicted == labels) ==> 'joint': _share((predicted == labels)[known])
  other: owner: unknown classes counted as right
    labels.clamp_min(0)] & known) ==> labels.clamp_min(0)])
  other: task_known: all classes compete
    'task_known': _share(within[its] ==> 'task_known': _share(predicted[its]
  other: answers_of: labels by number, not by name
    [y if place is None else place[y] for y in labels] ==> labels
  other: answers_of: eval mode not undone
    with (placed(where, *modules), evaluating(*modules), ==> for m in modules: m.eval()\n    with (placed(where, *modules),
  sign: calibration_error: without abs
    gap_b.abs() ==> gap_b
  sum: calibration_error: sum over images
    (gap_b.abs().sum() / len(labels)) ==> gap_b.abs().sum()
  mean: cohesion: mean over classes, not images
    * count).sum().item() / len(labels) ==> ).mean().item()
  sign: separation: 1 + cosine
    1 - cosine_cc[off] ==> 1 + cosine_cc[off]
  itself: separation: every class with itself too
    1 - cosine_cc[off] ==> 1 - cosine_cc
  refused: answers_of: images of unknown classes count as errors in silence
    strange = strange or unknown == 'raise' and bool((y_b < 0).any()) ==> strange = False
  refused: check_known: nothing is counted
    if strange: raise ValueError(f'{strange}. {_cure(classes)}') ==> pass
  itself: calibrate: multiplied by the temperature
    new.copy_(old.cpu().double() / t) ==> new.copy_(old.cpu().double() * t)
  other: calibrate: rounding may make ties
    for t in beside if torch.equal(divided(t), before)) ==> for t in beside if divided(t) is not None)
14_asking
  other: means: averaged in half precision
    (o.logits.float(), o.features.float(), u.float()) ==> (o.logits, o.features, u)
  other: means: the image as it is only
    range(1, 1 + views) if augment and views else [0] ==> [0]
  other: fewer: signs forgotten
    sign = 2. * torch.randint(2, (count,), generator=gen) - 1 ==> sign = torch.ones(count)
  other: cache: another view's answers
    self.answers[index.numpy(), k] ==> self.answers[index.numpy(), 0]
  other: cache: other images' answers
    row = torch.from_numpy(self.answers[index.numpy(), k]) ==> row = torch.from_numpy(self.answers[:len(index), k].copy())
  other: cache: damage not noticed
    and self.blocks[b] != self._checksum(b)] ==> and False]
  other: cache: what differs not seen
    check_same(found['identity'], known, f'what is kept in {folder}', what='cache') ==> pass
  other: cache: everything asked again
    todo = [b for b in self._mine() if not self.blocks[b]] ==> todo = list(self._mine())
  other: cache: room not looked for
    if self.bytes > free: ==> if False:
  other: ask: a caller's precision left behind
    for t, its in zip(teachers, before): t.precision = its ==> pass
15_beliefs
  other: believe: memories handed on where they are not to be used
    traces if use_traces else None ==> traces
  other: believe: a posterior that does not sum to 1
    ((posterior_nc.sum(1) - 1).abs() < 1e-3) ==> ((posterior_nc.sum(1) - 1).abs() < 1e9)
  other: believe: belief not that of the image
    self.posterior[index_b].float() ==> self.posterior[:len(index_b)].float()
  other: believe: the student's order of classes ignored
    [its_place[c] for c in sorted(its_place)] ==> list(range(len(its_place)))
  other: believe: ownership not that of the image
    torch.cat([self.ownership[index_b] ==> torch.cat([self.ownership[:len(index_b)]
  other: doubt: sign of the entropy
    entropy_n = -torch.xlogy( ==> entropy_n = torch.xlogy(
  other: agreement: over all images, not those of shared classes
    if not here_n.any(): continue ==> here_n[:] = True
  other: swallowing: what the teachers give is not asked
    more_c, count, middle = taken_c - expected_c, ==> more_c, count, middle = taken_c - 0 * expected_c,
  other: swallowing: few images are judged
    stands_out_c & (more_c >= max(10, .02 * count)) ==> stands_out_c & (more_c >= .02 * count)
  weights: figures: whose images they are is forgotten
    mixture([l[n] for l in logits], owned_nt[n], ==> mixture([l[n] for l in logits], owned_nt[n] * 0 + 1,
  other: figures: the first images for those of the sample
    beliefs.posterior[index[n]].float() ==> beliefs.posterior[n].float()
16_checkpoints
  other: alone_in: a second run is let in
    lock.acquire(timeout=seconds, poll_interval=.1) ==> pass
  other: damage not noticed
    if said != manifest_of(files): ==> if False:
  other: links followed
    odd = [p.name for p in entries if p.is_symlink() or not p.is_file()] ==> odd = []
  other: old ones stay
    for old in self.folders()[:-self.keep]: _remove(old) ==> pass
  other: no room even for a folder
    if there is None: return None ==> pass
  other: written where it is read
    there, aside = self.folder/name, self.folder/f'{name}.part' ==> there, aside = self.folder/name, self.folder/name
  refused: another run is gone on from
    check_same(numbers['identity'], self.identity, there, numbers.get('moving', ())) ==> pass
  other: a full disk ends the run
    except OSError as error:\n            if not aside ==> except ZeroDivisionError as error:\n            if not aside
  other: signals obeyed at once
    noted.append(number)\n ==> raise KeyboardInterrupt\n
  other: handlers not restored
    signal.signal(number, signal.SIG_DFL if its is None else its) ==> pass
17_loop
  sign: loop: loss maximised
    engine.backward(sum(parts.values()) ==> engine.backward(-sum(parts.values())
  other: loop: schedule ignored
    = lr * one_cycle(step, steps) ==> = lr
  other: loop: numbers that are not finite not watched
    if not all(map(math.isfinite, read_off[:-2] if overflowed else read_off)): ==> if False:
  other: loop: the gradient not looked at
    size = gradient_size(parameters).float() ==> size = total.new_zeros(())
  other: loop: batch norms remember the bad step
    for b, its in zip(net.buffers(), remembered): b.copy_(its) ==> pass
  other: loop: dropout goes on from anywhere
    reseed((seed * 1_000_003 + step * place()[1] + place()[0]) % 2**63) ==> pass
  other: loop: goes on from the start of the epoch
    done % per_epoch if epoch == done // per_epoch ==> 0 if epoch == done // per_epoch
  other: restore: moments forgotten
    optimiser.load_state_dict(kept | {'state': state}) ==> pass
  other: restore: running mean forgotten
    if mean_net is not None: mean_net.load_state_dict(part('mean.')) ==> pass
  mean: loop: parts of a batch not averaged
    engine.backward(sum(parts.values()) / accumulate) ==> engine.backward(sum(parts.values()))
18_training
  other: train_teacher: the caller's model trained
    net = own_copy(model).train() ==> net = model.train()
  other: amalgamate: labels read
    space, images = _c ==> {int(i[1]) for i in images if type(i) is tuple}; space, images = _c
  other: amalgamate: the cache's views are not those shown
    number = -1 - epoch % fixed_views ==> number = -2 - epoch % fixed_views
  other: amalgamate: fixed views are fresh
    number = -1 - epoch % fixed_views if fixed_views else step ==> number = step
  other: amalgamate: projections not trained
    self.student, self.objective = student, objective ==> self.student, self.objective = student, (lambda *a, **k: objective(*a, **k))
  other: amalgamate: student left in train mode
    student.eval()\n        student.provenance ==> student.provenance
  other: amalgamate: a teacher may change
    if moved: raise RuntimeError( ==> if False: raise RuntimeError(
  other: amalgamate: a collapse is not said
    warn_of_collapse(pupil.said, step, warned) ==> pass
  refused: begun: a finished run of other settings is read
    check_same(its['identity'], identity, path.parent, ==> str((its['identity'], identity, path.parent),
  refused: amalgamate: a finished run is replaced unasked
    if resume or overwrite or Checkpoints( ==> if True or Checkpoints(
05_teachers
  other: Teacher: probabilities are taken for logits
    if not self._looked_at: self._check_logits(logits); self._looked_at = True ==> pass
  frozen: Teacher: train mode possible
    return super().train(False) ==> return super().train(mode)
    self.train(False)\n        check_images ==> check_images
  frozen: Teacher: gradients possible
    @torch.no_grad()\n    def forward ==> def forward
  frozen: Teacher: the model not copied
    self.model = own_copy(model) ==> self.model = model
  other: Teacher: head's output, other layers' input
    'input' if name == head else 'output' ==> 'output' if name == head else 'input'
  other: Teacher: autocast left on
    with torch.autocast(x.device.type, self.precision, enabled=half): ==> if True:
  other: Teacher: bytes not scaled
    x = as_float(to_device(images, self._device(), pin=False)) ==> x = images.float()
  sum: pooled: sum over positions
    features.mean((2, 3)) ==> features.sum((2, 3))
  other: LabelSpace: classes by place, not by name
    [place[str(c)] for c in t.classes] ==> list(range(len(t.classes)))
  frozen: fingerprint: buffers left out
    sorted(model.state_dict().items()) ==> sorted(model.named_parameters())
  mean: trace: squares not less one
    .mean(2) - variance_c / (variance_c + norm.eps) ==> .mean(2)
  other: trace: not standardised
    - mean_c[:, None]) / (variance_c + norm.eps).sqrt()[:, None] ==> - mean_c[:, None])
  other: traced: layers that were never trained too
    or bool(module.num_batches_tracked > 0)\n ==> or True\n

20_experiments
  mean: paired_interval: every image and seed counts as one, not as often as drawn
    (counts(seeds) @ difference_sn) * counts(images) ==> (counts(seeds) @ difference_sn)
  sign: compare: theirs less ours
    spread([x - y for ==> spread([y - x for
  other: compare: rows of different seeds
    if [*map(len, a['right'])] != [*map(len, b['right'])]: ==> if False:
  other: run_seed: goes on beside teachers that answer otherwise
    if name in rows and rows[name]['right'] != right: ==> if False:
  other: gap_closed: as a share of the twin's accuracy
    (joint[row] - joint['concatenated']) / gap ==> (joint[row] - joint['concatenated']) / joint['labels']
04_models
  other: Preprocess.of: another rescale_factor is not read
    if abs(scale - 1) > 1e-6: ==> if False:
  refused: Preprocess.of: a processor is not asked whether it does what was read
    found = [wish for wish in wishes if _does_the_same(wish, processor)] ==> found = wishes
03_data
  refused: ImageFiles: a damaged file is read as a black one
    raise ValueError(f'{self.files[i]} cannot be read as an image ' ==> return torch.zeros(1, 1, 1)
    f'({" ".join(str(error).split())[:120]}); damaged=\'skip\' ' ==> # left out
    '(--damaged skip) leaves such files out') from error ==> # left out
  itself: ImageFiles: labels of another order
    place = {c: i for i, c in enumerate(self.classes)} ==> place = {c: len(self.classes) - 1 - i for i, c in enumerate(self.classes)}
  itself: as_image: the camera's turn is ignored
    image = ImageOps.exif_transpose(image) ==> image = image.copy()
  itself: as_image: a colour that stands for transparent is shown
    if key is None: return image\n ==> return image\n
  refused: check_range: values of any size
    if low >= -.01 and high <= 1.01: return None ==> return None
  refused: Unlabelled: a collation that makes other images is dropped
    else: raise ValueError(what.format('makes')) ==> else: pass
  itself: batches: a process does not begin as the loader says
    try: theirs(worker)\n ==> try: pass\n
  itself: labelled: joined parts keep numbers of their own
    return image_of(item), self.of(label_of(item)) ==> return image_of(item), label_of(item)
  refused: class_names_of: a wrapper may change labels
    if own != its: ==> if False:
05_teachers
  itself: renamed: dropped classes shift the others
    logits = logits[:, self.kept] ==> logits = logits[:, :len(self.kept)]
  refused: class_names: names that look the same
    for alike in alike_names(names): ==> for alike in []:
  refused: save_state: what is somebody else's is replaced
    if foreign: ==> if False:
  refused: load_state: what a kill left is not taken
    if part.is_file() and _sha256(part) == config.get('sha256'): ==> if False:
  frozen: fingerprint: what is no tensor is not looked into
    for part in value: _hash_into(digest, part) ==> pass
  other: load_state: another precision than was saved
    x.data = x.data.to(wanted) ==> pass
  refused: a head is not asked again
    if not _same(again.reshape(logits.shape), logits): ==> if False:
21_report
  itself: plot_confusion: true and predicted swapped
    count_cc.index_put_((labels, predicted) ==> count_cc.index_put_((predicted, labels)
  itself: plot_examples: right for wrong
    right = (labels == said_n)[rising] ==> right = (labels != said_n)[rising]
  itself: plot_predicted: a shared class counted twice
    left = [c for c in left if c not in its] ==> left = left
  refused: write_report: names are not escaped
    Environment(autoescape=True) ==> Environment(autoescape=False)
22_inspection
  itself: sizes_of: the camera's turn is ignored
    image.size[::-1] if on_its_side else image.size ==> image.size
  other: values: normalised images taken for images
    notes = [note_of_range(*found['values']), ==> notes = [
  other: readable: black pictures for those that cannot be read stay
    if not damaged: return answers ==> return answers
  other: memories: what is left is not looked at
    'fits': v is not None and v <= MomentOwnership.limit, ==> 'fits': True,
  other: notes: other views that break another teacher's memory
    if v != asked and left is not None and v not in breaks} ==> if v != asked and left is not None}
  other: inspected: warnings of others swallowed
    warnings.warn_explicit(w.message, w.category, w.filename, w.lineno) ==> pass
  refused: check_inspection: what is not its own is replaced
    if files and not ours: ==> if False:
24_deployment
  refused: export: differences are not looked at
    if not worst <= tolerance: ==> if False:
  itself: export: the exported network is compared with itself
    ours, theirs = net(images), ask(images) ==> ours, theirs = ask(images), ask(images)
  refused: export: anybody's file is replaced
    if _FACTS <= set(found): return ==> return
  itself: predict_files: the least probable class
    min(top, len(student.classes)) ==> min(top, len(student.classes)), largest=False
25_commands
  itself: read_teachers: a drop for one teacher hits all
    if t in (named or teachers) and old ==> if old
  itself: report_of: students judged by training images
    judged or Unlabelled(heap) ==> Unlabelled(heap)
"""


def breakages():
    """The list above as {chapter: [(kind, what is broken, [(old, new)])]}."""
    chapters = {}
    for line in BREAKAGES.strip().splitlines():
        if line.startswith("    "):
            entries[-1][2].append(line.strip().replace("\\n", "\n").split(" ==> "))
        elif line.startswith("  "):
            entries.append((*line.strip().split(": ", 1), []))
        else:
            entries = chapters.setdefault(line, [])
    return chapters


def broken(chapter, changes):
    """The chapter as JSON with these changes; ValueError unless each text is found exactly once."""
    notebook = json.loads((ROOT / "nbs" / f"{chapter}.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    exported = [c for c in notebook["cells"] if c["source"].startswith("#| export")]
    for old, new in changes:
        count = sum(c["source"].count(old) for c in exported)
        if count != 1:
            raise ValueError(f"{chapter}: {old!r} stands {count} times in the exported cells")
        for cell in exported:
            cell["source"] = cell["source"].replace(old, new)
    return json.dumps(notebook)


def failure(chapter, text):
    """Run this notebook in a folder of its own: its error and the statement, or None."""
    with TemporaryDirectory() as folder:
        shutil.copy(ROOT / "pyproject.toml", folder)
        path = Path(folder, f"{chapter}.ipynb")
        path.write_text(text, encoding="utf-8")
        command, env = [RUNNER, path], os.environ | ENV
        run = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    if run.returncode == 0 and "Success." in run.stdout.splitlines():
        return None
    error = re.search(r"^(\w+) in .*\.ipynb:", run.stderr, re.M)
    line = re.search(r'^  File "<ipython-input.*\n(.*)', run.stderr, re.M)
    if not error or not line or error[1] in ("SyntaxError", "NameError", "ImportError"):
        raise RuntimeError(f"{chapter}: the breakage itself does not run\n{run.stdout}{run.stderr}")
    statement = line[1].split("  # ")[0].strip()
    return f"{error[1]}: {statement if len(statement) <= WIDTH else statement[:WIDTH] + ' ...'}"


def main(*chapters):
    """Print the table; the number of breakages that no check caught."""
    missed, listed = 0, breakages()
    print("| chapter | kind | broken | caught by |\n|---|---|---|---|")
    for chapter in chapters or listed:
        entries = listed[chapter]
        texts = [broken(chapter, changes) for _, _, changes in entries]  # all found, before any run
        if failure(chapter, broken(chapter, [])):
            raise RuntimeError(f"{chapter} fails as it is")
        for (kind, what, _), text in zip(entries, texts):
            caught = failure(chapter, text)
            missed += caught is None
            row = (chapter, kind, what, f"`{caught}`" if caught else "**NOT CAUGHT**")
            print("|", " | ".join(cell.replace("|", "\\|") for cell in row), "|", flush=True)
    return missed


if __name__ == "__main__":
    sys.exit(1 if main(*sys.argv[1:]) else 0)

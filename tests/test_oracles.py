"""Losses against independent implementations that no chapter may need (Colab has none of them),
and the memory they take."""

import os

import pytest
import torch
from pytorch_metric_learning.losses import NTXentLoss, SupConLoss

from cka_nb import inter_model_loss, intra_model_loss
from cka_nb.memory import peaks


@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_intra_model_loss_is_supervised_contrast(seed, temperature):
    z = torch.randn(12, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    labels = torch.arange(12) % 4  # every image has a positive: there both define the same
    theirs = SupConLoss(temperature=temperature)(z, labels)
    torch.testing.assert_close(intra_model_loss(z, labels, temperature), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_inter_model_loss_of_single_images_is_infonce(temperature):
    gen = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(9, 5, generator=gen, dtype=torch.float64) for _ in range(2))
    each = torch.arange(9)

    def one_way(anchors, keys):  # NTXentLoss also counts anchors as keys: shut them out by pairs
        positives = (each, each)
        others = tuple(i.flatten() for i in torch.where(each[:, None] != each))
        loss = NTXentLoss(temperature=temperature)
        return loss(anchors, indices_tuple=(*positives, *others), ref_emb=keys, labels=each,
                    ref_labels=each.clone())

    theirs = (one_way(student, teacher) + one_way(teacher, student)) / 2
    ours = inter_model_loss(student, teacher, each, temperature)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="memory is measured in forked processes")
def test_contrast_needs_no_matrix_of_all_pairs():
    names, count = ("intra", "inter", "alignment"), 8192
    ours = peaks([(name, False, count) for name in names], torch.device("cpu"))
    assert max(ours) < 4 * count**2, dict(zip(names, ours))  # one matrix in fp32: 256 MiB

"""Backbones of timm (extra [timm]) as student and as teacher; weights random, nothing fetched."""

import timm
import torch

import cka_nb as cka

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_a_student_from_a_timm_name_survives_saving(tmp_path):
    student = cka.Student("resnet10t", ["a", "b", "c"], input_size=(3, 64, 64)).eval()
    again = cka.Student.load(student.save(tmp_path))
    assert torch.equal(again.predict(IMAGES)[1], student.predict(IMAGES)[1])


def test_a_timm_classifier_is_a_teacher():
    model = timm.create_model("resnet10t", num_classes=3).eval()
    logits, features = cka.Teacher(model, ["a", "b", "c"], input_size=(3, 64, 64))(IMAGES)
    assert torch.equal(logits, model(IMAGES).detach())
    assert torch.equal(model.get_classifier()(features), logits)

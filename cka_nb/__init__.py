"""Contrastive Knowledge Amalgamation.

Several trained image classifiers and unlabelled images in, one compact student out.
"""
from importlib.metadata import PackageNotFoundError, version

from cka_nb.alignment import alignment_loss, mmd_loss, pointwise_loss, relational_loss
from cka_nb.baselines import (
    CommonFeatureLearning, joint_distillation, owned_distillation, task_distillation,
    unified_distillation)
from cka_nb.beliefs import OwnershipEstimator
from cka_nb.calibration import calibrate
from cka_nb.checkpoints import Stopped
from cka_nb.classes import LabelSpace
from cka_nb.contrast import inter_model_loss, intra_model_loss
from cka_nb.data import TensorImages, random_affine, random_crop_flip
from cka_nb.deployment import export
from cka_nb.evaluation import evaluate
from cka_nb.image_files import ImageFiles
from cka_nb.inspection import inspect
from cka_nb.labels import ClassSubset, digits
from cka_nb.models import SmallResNet, SmallVGG, build_backbone
from cka_nb.networks import Output
from cka_nb.objective import ContrastiveAmalgamation, Objective
from cka_nb.information import InformationOwnership
from cka_nb.moments import MomentOwnership
from cka_nb.open_world import OpenWorldOwnership
from cka_nb.ownership import ClassConditionalOwnership
from cka_nb.preprocess import Preprocess
from cka_nb.saving import fingerprint
from cka_nb.scores import EnergyOwnership
from cka_nb.soft_targets import mixture, mixture_loss, soft_target_loss
from cka_nb.student import Student
from cka_nb.teachers import Teacher
from cka_nb.teaching import train_teacher, train_witness
from cka_nb.training import amalgamate
from cka_nb.witness import Witness, WitnessOwnership

try: __version__ = version("cka_nb")
except PackageNotFoundError: __version__ = "0+unknown"  # a bare checkout; see settings.ini

__all__ = [
    "ClassConditionalOwnership", "ClassSubset", "CommonFeatureLearning",
    "ContrastiveAmalgamation", "EnergyOwnership", "ImageFiles", "InformationOwnership",
    "LabelSpace", "MomentOwnership", "Objective", "OpenWorldOwnership", "Output",
    "OwnershipEstimator", "Preprocess", "SmallResNet", "SmallVGG", "Stopped", "Student",
    "Teacher", "TensorImages", "Witness", "WitnessOwnership", "alignment_loss", "amalgamate",
    "build_backbone", "calibrate", "digits", "evaluate", "export", "fingerprint", "inspect",
    "inter_model_loss", "intra_model_loss", "joint_distillation", "mixture", "mixture_loss",
    "mmd_loss", "owned_distillation", "pointwise_loss", "random_affine", "random_crop_flip",
    "relational_loss", "soft_target_loss", "task_distillation", "train_teacher", "train_witness",
    "unified_distillation",
]

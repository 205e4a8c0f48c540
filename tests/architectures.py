"""Networks of three libraries as teachers, random weights: results/architectures.json.

usage: python tests/architectures.py [NAME ...]      (default: all of them)

For each: which layer is the head and how wide its input is, whether the head of the features gives
the logits bit for bit, whether a saved teacher loads by itself; or the refusal, where there is one.
"""

import json
import sys
import tempfile
from pathlib import Path

import timm
import torch
import transformers
from transformers import AutoModelForImageClassification

from cka_nb.files import versions, write_json
from cka_nb.models import build_backbone
from cka_nb.networks import probe_images
from cka_nb.teachers import Teacher

TORCHVISION = {
    "alexnet": 64, "convnext_tiny": 64, "densenet121": 64, "efficientnet_b0": 64,
    "efficientnet_v2_s": 64, "googlenet": 64, "inception_v3": 96, "maxvit_t": 224,
    "mnasnet0_5": 64, "mobilenet_v2": 64, "mobilenet_v3_small": 64, "regnet_y_400mf": 64,
    "resnet18": 64, "resnext50_32x4d": 64, "shufflenet_v2_x0_5": 64, "squeezenet1_1": 64,
    "swin_t": 64, "vgg11_bn": 64, "vit_b_32": 224, "wide_resnet50_2": 64}
TIMM = {
    "resnet18": 64, "convnext_atto": 64, "mobilenetv4_conv_small": 64, "efficientvit_b0": 64,
    "edgenext_xx_small": 64, "mixer_s32_224": 224, "resmlp_12_224": 224,
    "vit_tiny_patch16_224": 224,
    "deit_tiny_distilled_patch16_224": 224, "swin_tiny_patch4_window7_224": 224,
    "poolformer_s12": 64, "levit_128s": 224, "repvgg_a0": 64, "nfnet_f0": 64, "ghostnet_100": 64,
    "beit_base_patch16_224": 224, "cait_xxs24_224": 224, "coatnet_nano_rw_224": 224}
SMALL = dict(num_labels=5, image_size=32, hidden_size=32, num_hidden_layers=2,
             num_attention_heads=2, intermediate_size=64)
TRANSFORMERS = {
    "vit": SMALL | dict(patch_size=8),
    "deit": SMALL | dict(patch_size=8, architectures=["DeiTForImageClassification"]),
    "beit": SMALL | dict(patch_size=8), "dinov2": SMALL | dict(patch_size=8),
    "vit_msn": SMALL | dict(patch_size=8), "swin": dict(num_labels=5, image_size=32, patch_size=2,
        embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4),
    "resnet": dict(num_labels=5, embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1],
                   layer_type="basic"),
    "convnext": dict(num_labels=5, hidden_sizes=[16, 32, 32, 32], depths=[1, 1, 1, 1]),
    "convnextv2": dict(num_labels=5, hidden_sizes=[16, 32, 32, 32], depths=[1, 1, 1, 1]),
    "regnet": dict(num_labels=5, embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1],
                   groups_width=8),
    "mobilenet_v1": dict(num_labels=5, depth_multiplier=0.25),
    "mobilenet_v2": dict(num_labels=5, depth_multiplier=0.35),
    "efficientnet": dict(num_labels=5, width_coefficient=0.25, depth_coefficient=0.2,
                         hidden_dim=320),
    "poolformer": dict(num_labels=5, hidden_sizes=[16, 16, 32, 32], depths=[1, 1, 1, 1]),
    "segformer": dict(num_labels=5, hidden_sizes=[16, 16, 32, 32], depths=[1, 1, 1, 1],
                      num_attention_heads=[1, 1, 2, 2]),
    "levit": dict(num_labels=5, architectures=["LevitForImageClassification"], image_size=64,
                  hidden_sizes=[32, 48, 64], depths=[1, 1, 1]),
}


def networks():
    "(library, name, makes it, side of an image)"
    for name, side in TORCHVISION.items():
        yield "torchvision", name, lambda name=name: build_backbone(name, 5), side
    for name, side in TIMM.items():
        yield "timm", name, lambda name=name: timm.create_model(name, num_classes=5), side
    for name, config in TRANSFORMERS.items():
        known = transformers.AutoConfig.for_model(name, **config)
        yield ("transformers", name, lambda known=known:
               AutoModelForImageClassification.from_config(known), config.get("image_size", 64))


def look(make, side):
    torch.manual_seed(0)
    x = probe_images(3, (3, side, side))
    row = {"side": side}
    try:
        teacher = Teacher(make(), list("abcde"), input_size=(3, side, side))
        logits, features = teacher(x)
    except ValueError as error:
        return row | {"refused": " ".join(str(error).split())}
    head = teacher.model.get_submodule(teacher._place[0])
    with torch.no_grad():
        again = head(features.reshape(len(features), *features.shape[1:]) if isinstance(
            head, torch.nn.Linear) else features[:, :, None, None]).reshape(logits.shape)
    with tempfile.TemporaryDirectory() as folder:
        try:
            loaded = torch.equal(Teacher.load(teacher.save(folder))(x).logits, logits)
        except ValueError:
            loaded = False
    return row | {"head": teacher._place[0], "features": features.shape[1],
                  "exact": torch.equal(again, logits), "by_name": loaded}


def main(*names):
    rows = []
    for library, name, make, side in networks():
        if names and name not in names:
            continue
        row = {"library": library, "name": name} | look(make, side)
        rows.append(row)
        print(json.dumps(row), flush=True)
    if not names:
        write_json(Path("results/architectures.json"), {
            "what": "networks of random weights as teachers", "rows": rows,
            "command": "python tests/architectures.py",
            "versions": versions() | {"timm": timm.__version__,
                                      "transformers": transformers.__version__}})


if __name__ == "__main__":
    main(*sys.argv[1:])

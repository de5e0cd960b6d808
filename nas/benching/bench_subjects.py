"""What `fasternas bench` times unless told otherwise, and what the plots call it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nas.networks import find_network
from predictors.backends.model import Model
from search_spaces.fasternet import FASTERNET

# Those of the paper's figure 2 that timm has, and what has come since. Each with its family and
# the name that people know it by.
MODELS = {
    **{size: ("FasterNet", size.upper()) for size in ("t0", "t1", "t2", "s", "l")},
    "mobilenetv2_100": ("MobileNet", "MobileNetV2"),
    "mobilenetv3_large_100": ("MobileNet", "MobileNetV3-L"),
    "mobilevit_xxs": ("MobileViT", "MobileViT-XXS"),
    "mobilevit_xs": ("MobileViT", "MobileViT-XS"),
    "mobilevit_s": ("MobileViT", "MobileViT-S"),
    "ghostnet_100": ("GhostNet", "GhostNet"),
    "edgenext_xx_small": ("EdgeNeXt", "EdgeNeXt-XXS"),
    "resnet18": ("ResNet", "ResNet18"),
    "resnet50": ("ResNet", "ResNet50"),
    "convnext_tiny": ("ConvNeXt", "ConvNeXt-T"),
    "repvit_m0_9": ("RepViT", "RepViT-M0.9"),
    "starnet_s1": ("StarNet", "StarNet-S1"),
    "mobileone_s0": ("MobileOne", "MobileOne-S0"),
    "poolformer_s12": ("PoolFormer", "PoolFormer-S12"),
    "swin_tiny_patch4_window7_224": ("Swin", "Swin-T"),
    "swin_base_patch4_window7_224": ("Swin", "Swin-B"),
}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network to time; `kind` is the operator or the family that it belongs to."""

    model: Model
    kind: str
    label: str


def operator_subjects() -> list[Subject]:
    """Return the operators of the paper's table 1; each is of its own kind."""
    from nas.benching.operators import operator_models

    return [Subject(model=model, kind=model.name.split()[0], label=model.name)
            for model in operator_models()]  # fmt: skip


def model_subjects(names: Sequence[str]) -> list[Subject]:
    """Return the networks of these names, or of `MODELS` if there are none; each once.

    Raises:
        ValueError: if a name is neither a size, a file nor a model of timm.
    """
    found = [_subject(name) for name in dict.fromkeys(names or MODELS)]
    first: dict[str, Subject] = {}
    for subject in found:
        first.setdefault(subject.model.identity, subject)
    return list(first.values())


def _subject(name: str) -> Subject:
    base, at, size = name.partition("@")
    model = find_network(name)
    if base in FASTERNET:  # called as timm calls it, among models of timm
        model = replace(model, name=f"fasternet_{name}")
    if base not in MODELS and '"FasterNetConfig"' in model.identity:
        return Subject(model=model, kind="FasterNet", label=Path(name).stem)
    kind, label = MODELS.get(base, (_family(base), Path(base).stem))
    return Subject(model=model, kind=kind, label=label + at + size)


def _family(name: str) -> str:
    """The family of a network that is not in the list: one that is there, or its first letters."""
    match = re.match(r"[A-Za-z]+", Path(name).stem)
    word = match[0].lower() if match else name
    return next((kind for kind, _ in MODELS.values() if word.startswith(kind.lower())), word)

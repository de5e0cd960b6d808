"""How the command line finds a network by what it is called."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from predictors.backends.model import Model, config_model, identity, onnx_model, timm_model
from predictors.measurement import Latency
from search_spaces.fasternet import FASTERNET
from search_spaces.formats import load_config

if TYPE_CHECKING:
    from torch import nn


def find_network(name: str) -> Model:
    """Return a named size, the network of a config file or an ONNX file, or a model of timm.

    A size and a model of timm may be followed by @ and the image size, as in t0@192.
    """
    base, at, pixels = name.partition("@")
    if base in FASTERNET and (pixels.isdecimal() or not at):
        config = FASTERNET[base]
        sized = replace(config, resolution=int(pixels)) if at else config
        return config_model(sized, name=name)
    path = Path(name)
    if path.suffix == ".onnx" and path.is_file():
        return onnx_model(path)
    if path.is_file():
        return config_model(load_config(path), name=name)
    if "/" in name or path.suffix in (".yaml", ".yml", ".onnx"):
        raise ValueError(f"`network` must be a file that exists, but got {name!r}.")
    return timm_model(name)


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


@dataclass(frozen=True, kw_only=True)
class Row:
    """A network with its latency, or with the reason why it has none.

    `done` is True where it was timed before, in the same folder on the same device.
    """

    subject: Subject
    latency: Latency | None = None
    failed: str = ""
    done: bool = False

    @property
    def gflops(self) -> float | None:
        """Achieved speed in 10^9 operations a second; None where it is unknown."""
        return self.subject.model.gflops(self.latency.median_ms) if self.latency else None

    def as_json(self) -> dict[str, object]:
        """Return it flat, for JSON and CSV; None where something is unknown."""
        model, latency = self.subject.model, self.latency
        return {
            "name": model.name,
            "kind": self.subject.kind,
            "shape": "x".join(map(str, model.shape)),
            "resolution": model.shape[-1] if len(model.shape) == 3 else None,
            "batch": model.batch_size,
            "macs": model.macs,
            "params": model.params,
            **{name: getattr(latency, field, None) for name, field in _OF_LATENCY.items()},
            **{name: getattr(latency and latency.backend, name, None) for name in _OF_BACKEND},
            "images_per_s": model.images_per_s(latency.median_ms) if latency else None,
            "gflops": self.gflops,
            "failed": self.failed,
        }


_OF_LATENCY = {"latency_ms": "median_ms", "low_ms": "low_ms", "high_ms": "high_ms"} | {
    name: name for name in ("unstable", "source", "device")
}
_OF_BACKEND = ("runtime", "precision", "threads")


def operator_subjects() -> list[Subject]:
    """Return the operators of the paper's table 1; each is of its own kind."""
    models = operator_models()
    return [Subject(model=m, kind=m.name.split()[0], label=m.name) for m in models]


def model_subjects(names: Sequence[str]) -> list[Subject]:
    """Return the networks of these names, or of `MODELS` if there are none; each once."""
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


LAYERS = 10  # stacked, as in the paper; the latency of one layer is a tenth
MAPS = ((96, 56, 56), (192, 28, 28), (384, 14, 14), (768, 7, 7))  # channels, height, width


@dataclass(frozen=True, kw_only=True)
class Operator:
    """A 3x3 convolution of some kind that keeps the shape of its input, without bias or norm."""

    name: str
    weights: Callable[[int], int]  # of one layer, from the number of channels
    layer: Callable[[int], "nn.Module"]


def operator_models() -> list[Model]:
    """Return each operator at each of the paper's map sizes, ten layers of it: size by size.

    They are called like "PConv3x3 96x56x56". MACs and parameters are analytic, of all ten layers;
    a weight is used once at each position.
    """
    return [_model(operator, shape) for shape in MAPS for operator in OPERATORS]


def _model(operator: Operator, shape: tuple[int, int, int]) -> Model:
    c, height, width = shape
    weights = LAYERS * operator.weights(c)

    def build() -> "nn.Module":
        from torch import nn

        return nn.Sequential(*(operator.layer(c) for _ in range(LAYERS)))

    return Model(
        name=f"{operator.name} {c}x{height}x{width}",
        shape=shape,
        build=build,
        identity=identity("operator", {"name": operator.name, "shape": shape, "layers": LAYERS}),
        macs=weights * height * width,
        params=weights,
    )


def _convolution(c: int, groups: int) -> "nn.Module":
    from torch import nn

    return nn.Conv2d(c, c, 3, padding=1, groups=groups, bias=False)


def _pconv(c: int) -> "nn.Module":
    from search_spaces.fasternet import FasterNetConfig
    from search_spaces.network import PConv, block_shapes

    config = FasterNetConfig(widths=(c,), depths=(1,), partial_ratios=(0.25,), expansions=(1.0,))
    return PConv(block_shapes(config)[0])


# In the order of the paper's table.
OPERATORS = (
    Operator(name="Conv3x3", weights=lambda c: 9 * c * c, layer=partial(_convolution, groups=1)),
    Operator(
        name="GConv3x3", weights=lambda c: 9 * c * c // 16, layer=partial(_convolution, groups=16)
    ),
    Operator(name="DWConv3x3", weights=lambda c: 9 * c, layer=lambda c: _convolution(c, c)),
    Operator(name="PConv3x3", weights=lambda c: 9 * (c // 4) ** 2, layer=_pconv),
)

"""How the command line finds a network by what it is called."""

import re
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from predictors.backends.model import (
    NETWORKS,
    Model,
    config_model,
    identity,
    image_size,
    timm_model,
    timm_name,
)
from predictors.backends.onnx_file import onnx_model
from predictors.measurement import Latency
from search_spaces.fasternet import FASTERNET, FasterNetConfig
from search_spaces.formats import load_config
from search_spaces.io import error_line, read_mapping

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Typed:
    """What was typed for a network: NAME, NAME@PX or NAME@WIDTHxHEIGHT.

    `size` is height and width; a file whose name has an @ is a NAME.
    """

    text: str
    name: str
    size: tuple[int, int] | None = None

    @classmethod
    def parse(cls, text: str) -> "Typed":
        """Take it apart; what follows an @ and is no size belongs to the name."""
        text = text.strip()
        name, _, end = text.rpartition("@")
        size = None if Path(text).exists() else image_size(end)
        return cls(text=text, name=name if name and size else text, size=size if name else None)

    @property
    def named_size(self) -> FasterNetConfig | None:
        """T0 to L, as the paper or timm writes it."""
        spelled = re.sub(
            "^((https?://(www[.])?huggingface[.]co/|hf[-_]hub:)?timm/)?fasternet[-_]|[.]in1k/?$",
            "",
            self.name.lower(),
        )
        return self.resized(FASTERNET[spelled]) if spelled in FASTERNET else None

    def resized(self, config: FasterNetConfig) -> FasterNetConfig:
        """Return a config for the image size, if one was typed."""
        if self.size is None:
            return config
        height, width = self.size
        if height != width:
            raise ValueError(
                f"`network` must take square images where it is a config, but got {self.text!r}. "
                f"Say {self.name}@{height}."
            )
        return replace(config, resolution=height)


Kind = Literal["config", "checkpoint", "onnx"]
_SUFFIXES: dict[str, Kind] = {
    ".yaml": "config",
    ".yml": "config",
    ".safetensors": "checkpoint",
    ".onnx": "onnx",
}
_OTHERS = {
    ".tflite": "a LiteRT file",
    ".xml": "a file of OpenVINO",
    ".param": "a file of ncnn",
    ".pt2": "a program of torch.export",
    ".engine": "an engine of TensorRT",
    ".plan": "an engine of TensorRT",
    ".mlmodel": "a file of Core ML",
    ".h5": "a file of Keras",
    ".ort": "a file of ONNX Runtime",
    ".keras": "a file of Keras",
    ".pb": "a file of TensorFlow",
    ".pte": "a file of ExecuTorch",
}
_OF_TORCH = (".pt", ".pth")  # which may be checkpoints, and so are told by their content


def kind_of_file(typed: Typed, *, kinds: Sequence[Kind], what: str) -> Kind:
    """Return of which of the kinds a file is, by its name or else its content.

    `what` is what a network may be, for the error message.
    """
    path = Path(typed.name)
    found = _SUFFIXES.get(path.suffix.lower()) or _kind_of_content(path)
    if found is not None and found in kinds:
        return found
    refusal = f"`network` must be {what}, but {typed.name} is"
    if path.is_dir():
        raise ValueError(
            f"{refusal} a folder. Of a run name configs/NAME.yaml or trained/NAME/weights."
            "safetensors."
        )
    if found is not None:
        name = {"config": "a config", "checkpoint": "a checkpoint", "onnx": "an ONNX file"}[found]
        raise ValueError(f"{refusal} {name}. Give one of those.")
    if path.suffix.lower() in _OTHERS:
        raise ValueError(
            f"{refusal} {_OTHERS[path.suffix.lower()]}. Give that of which it was made."
        )
    if is_torch_file(path):
        raise ValueError(
            f"{refusal} a file of torch, which says no config. Name the config: latency does not "
            "depend on weights, and `export` and `train` take those beside it."
        )
    raise ValueError(f"{refusal} a file of none of these kinds. Check the path.")


def _kind_of_content(path: Path) -> Kind | None:
    """By how a file begins; a text that is a mapping is a config."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        begin = file.read(9)
    if begin[8:] == b"{" and int.from_bytes(begin[:8], "little") < path.stat().st_size:
        return "checkpoint"
    if begin[:1] == b"\x08" and begin[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x3a"):
        return "onnx"  # the version of the format, then another field
    try:
        read_mapping(path)
    except ValueError:
        return None
    return "config"


def is_torch_file(path: Path) -> bool:
    """Whether torch.save or TorchScript wrote it: a pickle, or a zip file with one."""
    with suppress(zipfile.BadZipFile, OSError), zipfile.ZipFile(path) as archive:
        return any(name.endswith("data.pkl") for name in archive.namelist())
    with path.open("rb") as file:
        return file.read(1) == b"\x80"


def find_network(text: str) -> Model:
    """Return the network that was typed, called as it was typed.

    It is a named size, the network of a config, checkpoint or ONNX file, or a model of timm; each
    may be followed by @ and the image size, as in t0@192.
    """
    typed = Typed.parse(text)
    if (config := typed.named_size) is not None:
        return config_model(config, name=typed.text)
    if not Path(typed.name).exists():
        return _foreign(typed)
    kind = kind_of_file(typed, kinds=("config", "checkpoint", "onnx"), what=NETWORKS)
    if kind == "onnx":
        return onnx_model(Path(typed.name), name=typed.text, size=typed.size)
    return config_model(typed.resized(config_of_file(typed.name, kind)), name=typed.text)


def config_of_file(path: str | Path, kind: Kind) -> FasterNetConfig:
    """Return the config of a config file or of a checkpoint."""
    if kind == "config":
        return load_config(path)
    from search_spaces.checkpoint import read_checkpoint

    return read_checkpoint(path).config


def _foreign(typed: Typed) -> Model:
    """A model of timm."""
    if _is_file_name(typed.name):  # before timm is imported, which takes seconds
        raise _no_file(typed.name)
    name = timm_name(_LABELS.get(typed.name.lower(), typed.name))
    if "/" in name:
        raise _no_file(typed.name)
    end = typed.text[len(typed.name) :]
    return replace(timm_model(f"{name}{end}"), name=typed.text)


def _is_file_name(name: str) -> bool:
    return Path(name).suffix.lower() in (*_SUFFIXES, *_OTHERS, *_OF_TORCH)


def _no_file(name: str) -> ValueError:
    return ValueError(f"`network` must be a file that exists, but got {name!r}. Check the path.")


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


_LABELS = {label.lower(): name for name, (_, label) in MODELS.items()}


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
            "instructions": latency.context.instructions if latency else None,
            "fma_instructions": latency.context.fma_instructions if latency else None,
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


def model_subjects(names: Sequence[str]) -> tuple[list[Subject], dict[str, str]]:
    """Return the networks of these names, or of `MODELS` if there are none; each once.

    Of several, those that are none are left out: the second is what is wrong with them, by name.
    """
    found, wrong = find_each([*dict.fromkeys(names or MODELS)], _subject)
    first: dict[str, Subject] = {}
    for subject in found:
        first.setdefault(subject.model.identity, subject)
    once = list(first.values())
    labels = Counter(subject.label for subject in once)
    subjects = [s if labels[s.label] == 1 else replace(s, label=s.model.name) for s in once]
    return subjects, wrong


def find_each(names: Sequence[str], find: Callable[[str], T]) -> tuple[list[T], dict[str, str]]:
    """Find each that was typed; return what is wrong with others unless none is right."""
    found, errors = [], {}
    for name in names:
        try:
            found.append(find(name))
        except (ValueError, RuntimeError, OSError) as error:
            errors[name] = error
    if not found:
        raise next(iter(errors.values()))
    return found, {name: error_line(error) for name, error in errors.items()}


def _subject(text: str) -> Subject:
    typed, model = Typed.parse(text), find_network(text)
    if typed.name in FASTERNET:  # called as timm calls it, among models of timm
        model = replace(model, name=f"fasternet_{typed.text}")
    if typed.name not in MODELS and '"FasterNetConfig"' in model.identity:
        return Subject(model=model, kind="FasterNet", label=Path(typed.text).stem)
    kind, label = MODELS.get(typed.name, (_family(typed.name), Path(typed.name).stem))
    return Subject(model=model, kind=kind, label=label + typed.text[len(typed.name) :])


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

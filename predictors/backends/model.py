"""What is deployed and timed: a network, wherever it comes from."""

import json
import math
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from numbers import Integral, Real
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, SupportsIndex, runtime_checkable

from predictors.cost import cost
from search_spaces.fasternet import FASTERNET, FasterNetConfig
from search_spaces.io import listed, reason, short_repr
from search_spaces.layers import Layer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from search_spaces.checkpoint import Checkpoint

ANY = 32  # images at once where the batch is dynamic

# Held while networks are built and exported: seeds, filters of warnings and the exporters' state
# are the process's own, but the boards of a pool are each served by a thread.
ONE_AT_A_TIME = threading.RLock()


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network and how many inputs it takes at once: its torch module, or its ONNX file.

    `identity` is canonical JSON that says which network it is. `shape` is that of one input
    without the batch, for images (channels, height, width). `macs` are multiply-accumulates for
    one input as deployed, batch norm folded; `params` the parameters that are trained; None if
    they cannot be counted. `layers` are there if they are known.
    """

    name: str
    identity: str
    shape: tuple[int, ...]
    build: Callable[[], "nn.Module"] | None = None
    file: Path | None = None
    file_half: bool = False  # some of its numbers have 16 bits
    file_size: tuple[int, int] | None = None  # height and width, where the file leaves them open
    macs: int | None = None
    params: int | None = None
    layers: Sequence[Layer] = ()
    batch: Literal["dynamic", "fixed"] = "dynamic"  # of the file
    batch_size: int = 1
    checkpoint: "Checkpoint | None" = None  # its weights; None: random ones
    features: bool = False  # the backbone alone: the map after each stage
    calibration_images: "Iterable[Tensor] | None" = None  # for int8; None: random ones
    config_class: type | None = None  # of a user's config: two classes may have one name

    @property
    def key(self) -> tuple[str, type | None]:
        """What tells it from others within this process."""
        return self.identity, self.config_class

    @property
    def at_once(self) -> int:
        """How many images a file of it is given at once."""
        return self.batch_size if self.batch == "fixed" else ANY

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what it computes."""
        if not self.features or self.checkpoint is None:
            return ("logits",)
        from search_spaces.network import strides

        return tuple(f"stride{stride}" for stride in strides(self.checkpoint.config))

    def path(self, stem: Path, suffix: str) -> Path:
        """Return the path of a file of it."""
        return stem.with_name(f"{stem.name}{'.features' if self.features else ''}{suffix}")

    def network(self) -> "nn.Module":
        """Build it in evaluation mode, with the same random weights every time."""
        import torch

        if self.build is None:
            from predictors.backends.table import runtime_names, runtimes

            takers = " or ".join(runtime_names(runtimes(format="onnx")))
            raise ValueError(
                f"`runtime` must be one that takes ONNX files, since {self.name} came as one. "
                f"Use {takers}."
            )
        with ONE_AT_A_TIME, torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = self.build()
        if not isinstance(network, torch.nn.Module):
            raise ValueError(
                f"`build()` of {self.name} must return a torch module, but returned "
                f"{short_repr(network)}. Return the network."
            )
        return network.eval()

    def built(self) -> "Model":
        """Return it with its network built once and for all, unless it came as a file."""
        if self.file is not None:
            return self
        network = self.network()
        return replace(self, build=lambda: network)

    def image(self) -> "Tensor":
        """Return a random input of shape [batch_size, ...], the same every time."""
        import torch

        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.batch_size, *self.shape, generator=generator)

    def gflops(self, latency_ms: float) -> float | None:
        """Achieved speed in 10^9 operations a second: 2 * MACs / latency, None if unknown.

        A multiply-accumulate is two operations, a multiplication and an addition; what the paper
        (arXiv 2303.03667) calls FLOPs are MACs.
        """
        return 2e-6 * self.macs * self.batch_size / latency_ms if self.macs else None

    def images_per_s(self, latency_ms: float) -> float:
        """Throughput: inputs a second, where one batch follows another."""
        return 1e3 * self.batch_size / latency_ms


def config_model(config: FasterNetConfig, *, name: str = "") -> Model:
    """Return the network of a config."""
    found = cost(config)

    def build() -> "nn.Module":
        from search_spaces.network import build

        return build(config)

    return Model(
        name=name or "this config",
        identity=config_identity(config),
        build=build,
        shape=(3, config.resolution, config.resolution),
        macs=found.macs,
        params=found.params,
        layers=config.layers(),
    )


def checkpoint_model(
    name: str,
    checkpoint: "Checkpoint",
    *,
    features: bool = False,
    batch: int | None = None,
    calibration_images: "Iterable[Tensor] | None" = None,
) -> Model:
    """Return a network with weights, or its backbone; `batch` None: for any number of images."""

    def build() -> "nn.Module":
        from search_spaces.network import Backbone

        network = checkpoint.network()
        return Backbone(network) if features else network

    return replace(
        config_model(checkpoint.config, name=name),
        identity=identity("checkpoint", {"name": name, **asdict(checkpoint.config)}),
        build=build,
        checkpoint=checkpoint,
        features=features,
        batch="fixed" if batch else "dynamic",
        batch_size=batch or 1,
        calibration_images=calibration_images,
    )


def batched(model: Model, batch_size: int) -> Model:
    """Return the network that takes so many inputs at once."""
    if batch_size == model.batch_size:
        return model
    values = json.loads(model.identity)
    return replace(
        model,
        name=f"{model.name} x{batch_size}",
        batch_size=batch_size,
        identity=identity(values["class"], {**values, "batch": batch_size}),
    )


def config_identity(config: Any) -> str:
    """Return what tells a config from others; equal ones have the same."""
    return identity(type(config).__name__, asdict(config))


def identity(kind: str, values: Mapping[str, Any]) -> str:
    """Return canonical JSON of what a network is."""
    whole = {name: _whole(value) for name, value in values.items()} | {"class": kind}
    return json.dumps(
        whole, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_spelled
    )


def _whole(value: Any) -> Any:
    """Spell 2.0 and 2 alike, since configs with either are equal; numpy's numbers are numbers."""
    if isinstance(value, list | tuple):
        return [_whole(item) for item in value]
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else repr(key): item for key, item in value.items()}
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    if isinstance(value, Integral):
        return int(value)
    number = float(value)
    if not math.isfinite(number):
        return str(number)
    return int(number) if number.is_integer() else number


def _spelled(value: object) -> object:
    """What JSON has no form for."""
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    return repr(value)


@runtime_checkable
class Buildable(Protocol):
    """A config of any space that says how its network is built, a frozen dataclass."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input without the batch, for images (channels, height, width)."""

    def build(self) -> "nn.Module":
        """Return the network."""


def as_model(network: "FasterNetConfig | Model | Buildable") -> Model:
    """Return what is to be timed as a model.

    Raises:
        TypeError: if it is a config that does not say how its network is built.
        ValueError: if its inputs have no shape.
    """
    if isinstance(network, Model):
        return network
    if isinstance(network, FasterNetConfig):
        return config_model(network)
    if not isinstance(network, Buildable):
        raise TypeError(
            f"`network` must be a config that can be built, but got {short_repr(network)}. Give "
            f"{type(network).__name__} a build() that returns a torch module, and an input_shape."
        )
    return Model(
        name="this config",
        identity=config_identity(network),
        build=network.build,
        shape=_input_shape(network),
        config_class=type(network),
    )


def _input_shape(network: Buildable) -> tuple[int, ...]:
    given: object = network.input_shape
    sides = tuple(given) if isinstance(given, Sequence) else ()
    if not sides or not all(isinstance(side, SupportsIndex) and index(side) > 0 for side in sides):
        raise ValueError(
            f"`input_shape` of {type(network).__name__} must be whole numbers above 0, but got "
            f"{short_repr(given)}. Give that of one input without the batch, such as (3, 224, 224)."
        )
    return tuple(map(index, sides))


NETWORKS = (
    f"a config, checkpoint or ONNX file, one of {', '.join(FASTERNET)}, or a model of timm, "
    "followed by @PX or @WIDTHxHEIGHT for another image size"
)


def image_size(text: str) -> tuple[int, int] | None:
    """Return height and width of PX or WIDTHxHEIGHT; None where it is neither."""
    match = re.fullmatch(r"0*([1-9][0-9]{0,4})(?:[xX]0*([1-9][0-9]{0,4}))?", text, re.ASCII)
    if match is None:
        return None
    width, height = match[1], match[2] or match[1]
    return int(height), int(width)


def timm_name(name: str) -> str:
    """Return a model's name in timm, as its pages or its papers write it, known or not."""
    from search_spaces.timm_models import import_timm

    is_model = import_timm().is_model
    plain = re.sub(
        "^(https?://)?((www[.])?huggingface[.]co/|hf[-_]hub:)?(timm/)?", "", name.rstrip("/")
    )
    spelled = (plain, plain.lower(), re.sub("[- ]", "_", plain.lower()))
    return next((one for one in spelled if is_model(one)), plain)


def timm_model(name: str) -> Model:
    """Return a model of timm, its weights random; NAME@PX gives it another image size.

    Models that are trained with more branches than they are deployed with have those merged. MACs
    are fvcore's, batch norm folded; attention is counted as its two matrix products.
    """
    from search_spaces.timm_models import import_timm

    timm = import_timm()
    base, _, typed = name.partition("@")
    size = image_size(typed)
    if not timm.is_model(base) or (typed and size is None):
        raise ValueError(
            f"`network` must be {NETWORKS}, but got {name!r}, which is none.{_meant(base)}"
        )
    pretrained = _pretrained(base)
    channels, *own = pretrained.input_size if pretrained else (3, 224, 224)
    shape = (channels, *(size or own))

    def build() -> Any:
        fixed = size and pretrained and pretrained.fixed_input_size
        options = {"img_size": size} if fixed else {}
        network = timm.create_model(base, pretrained=False, exportable=True, **options)
        return timm.utils.reparameterize_model(network.eval())

    given = identity("timm", {"name": name, "version": timm.__version__})
    return _counted(Model(name=name, identity=given, shape=shape, build=build, batch="fixed"))


def _pretrained(base: str) -> Any:
    """What timm says of a model's weights, and so of its images."""
    from search_spaces.timm_models import import_timm

    timm = import_timm()
    try:
        return timm.get_pretrained_cfg(base)
    except RuntimeError:
        name, _, tag = base.partition(".")
        tags = [one.partition(".")[2] for one in timm.list_pretrained(f"{name}.*")]
        raise ValueError(
            f"`network` must have a tag of timm's ({listed(tags)}) or none, but {base} has {tag!r}."
        ) from None


def _meant(name: str) -> str:
    """Say which models of timm have almost this name."""
    from search_spaces.timm_models import import_timm

    spelled = re.sub("[- ]", "_", name.lower())[:99]
    near = get_close_matches(spelled, import_timm().list_models(), n=3, cutoff=0.7)
    return f" Is it {' or '.join(near)}?" if near else " `timm.list_models()` has the last."


def _counted(model: Model) -> Model:
    """Build it once to count it, which also finds out whether it takes its input."""
    from fvcore.nn import FlopCountAnalysis

    from predictors.backends.onnx_export import folded

    try:
        network, image = model.network(), model.image()
        analysis = FlopCountAnalysis(folded(network, image), image)
    except Exception as error:  # its authors' asserts and divisions by zero among them
        raise ValueError(
            f"`network` must take images of {'x'.join(map(str, model.shape[:0:-1]))} pixels, but "
            f"{model.name} does not: {reason(error)}."
        ) from None
    for warn in (analysis.unsupported_ops_warnings, analysis.uncalled_modules_warnings):
        warn(enabled=False)
    analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
    params = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return replace(model, macs=int(analysis.total()), params=params)


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """Queries times keys, then weights times values."""
    query, key, value = (item.type().sizes() for item in inputs[:3])
    return int(math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1]))

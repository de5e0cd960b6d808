"""A device that is not at hand: latencies predicted from the bundled profile of a board.

    load_profile("raspberry_pi_5").latency_ms(config.layers(), threads=1)  # mean, low, high

Unlike MACs, instructions see what a kernel pays for: channels in fours, positions in eights, the
copies of im2col. They are counted by going through the kernels' loops (`predictors.aarch64`); two
rates turn them into time. What comes out is a prediction, not a measurement.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Literal, cast, final

import numpy as np

from predictors.aarch64.layers import LayerShape, Numbers, count_instructions, count_shape
from predictors.aarch64.node import COMPUTED, Node, UnknownOperatorError
from predictors.aarch64.operators import Forms
from predictors.aarch64.parts import Part, by_operator, graph_parts, layer_parts
from predictors.backends.model import Buildable, Model, as_model
from predictors.cost import layers_in_groups
from predictors.devices.device import HOW_TO_ATTACH, Device, Network, threads_of
from predictors.devices.local import is_arm_machine, open_cpu
from predictors.latency import Prediction
from predictors.measurement import Backend, Context, Latency, TimingProtocol
from search_spaces.fasternet import FasterNetConfig
from search_spaces.layers import Layer, Layered, is_layered

PROFILES = Path(__file__).parents[1] / "profiles"
_DEPTHWISE = (
    "Depthwise convolutions are outside of the latencies that the rates of one thread were fitted "
    "to: their instructions are exact, their milliseconds less sure than the interval says."
)

_FREE_WEIGHTS = (
    "Weights that are inputs of the graph too are taken for computed, as ONNX Runtime does: take "
    "them from the inputs by `python -m onnxruntime.tools.remove_initializer_from_input`."
)


@final
@dataclass(frozen=True, kw_only=True)
class Rates:
    """What instructions cost at one number of threads, and how far that is wrong.

    The errors are relative, of networks that the rates were not fitted to.
    """

    ms_per_fma: float  # a vector multiply-add
    ms_per_other: float  # any other instruction
    interval: float  # half-width of the stated interval, as a part of the mean
    mean_error: float
    max_error: float
    source: str

    def latency_ms(self, total: Numbers, fma: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """Return the latency of so many instructions and its stated interval: mean, low, high."""
        mean = self.ms_per_fma * fma + self.ms_per_other * (total - fma)
        return mean, mean * (1 - self.interval), mean * (1 + self.interval)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Profile:
    """One board with one runtime, batch 1."""

    name: str
    board: str
    runtime: str
    runtime_version: str
    source: str
    mean_error: float  # of the instructions of whole networks, relative
    max_error: float
    forms: Forms
    rates: Mapping[int, Rates]  # by the number of threads

    def instructions(self, layers: Sequence[Layer]) -> tuple[Numbers, Numbers]:
        """Return the instructions of one run, and how many of them are vector FMAs."""
        return count_instructions(layers, self.forms, count=partial(_count_shape, self))

    def latency_ms(
        self, layers: Sequence[Layer], *, threads: int = 1
    ) -> tuple[Numbers, Numbers, Numbers]:
        """Return the predicted latency in milliseconds and its stated interval: mean, low, high.

        Raises:
            ValueError: if the profile has no rates for that many threads.
        """
        return self.rates_for(threads).latency_ms(*self.instructions(layers))

    def rates_for(self, threads: int) -> Rates:
        """Return the rates for that many threads.

        Raises:
            ValueError: if the profile has none.
        """
        if threads not in self.rates:
            known = " or ".join(str(n) for n in sorted(self.rates))
            raise ValueError(
                f"`threads` must be {known}, but got {threads!r}. The profile holds no other "
                "rates. Take one of these, or measure on the board itself: `fasternas devices add`."
            )
        return self.rates[threads]


@lru_cache(maxsize=1 << 17)
def _count_shape(profile: Profile, shape: LayerShape) -> tuple[float, float]:
    """Count a shape once per profile; two of the same content are two profiles."""
    return count_shape(shape, profile.forms)


def profile_names() -> tuple[str, ...]:
    """Return the names of the bundled profiles."""
    return tuple(sorted(path.parent.name for path in PROFILES.glob("*/profile.json")))


@cache
def load_profile(name: str) -> Profile:
    """Return a bundled profile.

    Raises:
        ValueError: if there is none of that name.
    """
    if name not in profile_names():
        raise ValueError(
            f"`name` must be a bundled profile, but got {name!r}. Choose from "
            f"{', '.join(profile_names())}."
        )
    return read_profile(PROFILES / name)


def read_profile(folder: Path) -> Profile:
    """Return the profile that a folder's profile.json holds."""
    fields = json.loads((folder / "profile.json").read_text(encoding="utf-8"))
    rates = {int(threads): Rates(**rates) for threads, rates in fields.pop("rates").items()}
    return Profile(rates=rates, **fields)


class ProfiledDevice:
    """The Raspberry Pi 5 of the bundled profile; every latency is marked predicted.

    Raises:
        ValueError: if the profile has no such runtime, precision or number of threads.
    """

    source: Literal["predicted"] = "predicted"

    def __init__(self, name: str, backend: Backend) -> None:
        options = (
            ("runtime", "onnxruntime", backend.runtime),
            ("precision", "fp32", backend.precision),
        )
        for option, only, given in options:
            if given != only:
                raise ValueError(
                    f"`{option}` must be {only} for the profile of the Raspberry Pi 5, but got "
                    f"{given!r}. Leave it out, or attach a board with `fasternas devices add`."
                )
        self.name = name
        self.remarks: list[str] = []
        self._known: dict[object, list[Part]] = {}  # by the key of the network
        self.backends = (backend,)
        self._threads = backend.threads
        self._profile = load_profile("raspberry_pi_5")
        self._rates = self._profile.rates_for(backend.threads)

    @property
    def description(self) -> str:
        """One line on the board and the error."""
        profile = self._profile
        return (
            f"{profile.board}, {profile.runtime} {profile.runtime_version}, "
            f"{threads_of(self._threads)}: predicted from a profile, "
            f"\u00b1{self._rates.interval:.0%}"
        )

    @property
    def counting(self) -> str:
        """One line on how far the instructions are right."""
        profile = self._profile
        return (
            "Instructions are counted; over whole networks they are "
            f"{profile.mean_error:.2%} off in the mean and {profile.max_error:.1%} at most."
        )

    def measure(self, network: Network | Layered) -> Latency:
        """Return the predicted latency; the interval is the profile's stated error.

        Of any config that knows its layers, and of any network that can be exported.

        Raises:
            ValueError: if the network takes several inputs at once, cannot be exported, or has an
                operator that the profile does not know.
        """
        parts = self.parts(network)
        total = sum(part.instructions for part in parts)
        fma = sum(part.fma_instructions for part in parts)
        mean, low, high = self._rates.latency_ms(total, fma)
        depthwise = any(part.operator.startswith("depthwise") for part in parts)
        if depthwise and self._threads == 1 and _DEPTHWISE not in self.remarks:
            self.remarks.append(_DEPTHWISE)
        merged = by_operator(parts)
        return Latency(
            median_ms=float(mean),
            low_ms=float(low),
            high_ms=float(high),
            source="predicted",
            device=self.name,
            backend=self.backends[0],
            context=Context(
                profile=self._profile.name,
                profile_source=self._profile.source,
                instructions=round(total),
                fma_instructions=round(fma),
                shares={part.operator: round(part.instructions / total, 4) for part in merged},
            ),
        )

    def parts(self, network: Network | Layered) -> list[Part]:
        """Return what a run of the network consists of, from its layers or its ONNX graph.

        Raises:
            ValueError: as `measure`.
        """
        if not isinstance(network, Model) and is_layered(network):
            return layer_parts(network.layers(), self._profile.forms)
        model = as_model(cast("Network", network))
        if model.batch_size > 1:
            raise ValueError(
                f"`batch` must be 1 for a profile, but {model.name} takes {model.batch_size}. "
                f"{HOW_TO_ATTACH}"
            )
        if model.layers and not model.features:
            return layer_parts(model.layers, self._profile.forms)
        if model.key not in self._known:
            self._known[model.key] = self._graph_parts(model)
        return self._known[model.key]

    def _graph_parts(self, model: Model) -> list[Part]:
        if model.file_half:
            raise ValueError(
                f"`network` must have numbers of 32 bits for a profile, but those of {model.name} "
                f"have 16. Export it in fp32. {HOW_TO_ATTACH}"
            )
        content = _content(model)
        try:
            return graph_parts(_nodes(model, content), self._profile.forms)
        except UnknownOperatorError as error:
            remedy = f"{_FREE_WEIGHTS} " if COMPUTED in str(error) else ""
            raise ValueError(
                "`network` must be one whose operators the profile knows, but of "
                f"{model.name} it does not know {error}. {remedy}{HOW_TO_ATTACH}"
            ) from None
        except ValueError as error:
            raise ValueError(
                f"`network` must be one that ONNX Runtime can run, but {model.name} is not: "
                f"{error}. Export it again."
            ) from None

    def measure_each(
        self, networks: Sequence[Network], *, repeats: int | None = None
    ) -> Iterator[Latency]:
        """Yield the predicted latency of each network; a profile needs no repeated processes."""
        return (self.measure(network) for network in networks)

    def predict(self, configs: Sequence[FasterNetConfig | Buildable]) -> Prediction:
        """Return the predicted latencies of many networks at once.

        Configs that know no layers are built and exported, one by one.
        """
        if not all(is_layered(config) for config in configs):
            found = [self.measure(config) for config in configs]
            rows = [(one.median_ms, one.low_ms, one.high_ms) for one in found]
            return Prediction(*np.array(rows).T)
        mean, low, high = (np.zeros(len(configs)) for _ in range(3))
        for indices, layers in layers_in_groups(configs):
            mean[indices], low[indices], high[indices] = self._profile.latency_ms(
                layers, threads=self._threads
            )
        return Prediction(mean, low, high)


def _content(model: Model) -> bytes:
    """The network as ONNX; a file is read without torch."""
    if model.file is not None:
        return model.file.read_bytes()
    from predictors.backends.onnx_export import onnx_bytes

    return onnx_bytes(model)


def _nodes(model: Model, content: bytes) -> list[Node]:
    """The network's nodes; what lies beside a file is not read."""
    from predictors.aarch64.graph import graph_nodes

    if model.file is None:
        return graph_nodes(content)
    return graph_nodes(content, folder=model.file.parent, shape=model.shape)


def open_arm(name: str, backend: Backend, protocol: TimingProtocol) -> Device:
    """Open this machine where it is an ARM one, else the profile."""
    return open_cpu(name, backend, protocol) if is_arm_machine() else ProfiledDevice(name, backend)

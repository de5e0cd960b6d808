"""A device that is not at hand: latencies predicted from the bundled profile of a board.

    load_profile("raspberry_pi_5").latency_ms(config.layers(), threads=1)  # mean, low, high

Unlike MACs, instructions see what a kernel pays for: channels in fours, positions in eights, the
copies of im2col. A form is a sum of features of a layer, each times a coefficient fitted to exact
counts of single operators (ONNX Runtime on aarch64). One formula serves one network and, on arrays,
a million at once. What comes out is a prediction, not a measurement.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from predictors.backends.model import as_model
from predictors.cost import layers_in_groups
from predictors.devices.device import HOW_TO_ATTACH, Device, Network, threads_of
from predictors.devices.local import is_arm_machine, open_cpu
from predictors.latency import Prediction
from predictors.measurement import Backend, Context, Latency, TimingProtocol
from search_spaces.fasternet import FasterNetConfig
from search_spaces.layers import Layer

Numbers = float | NDArray[np.float64]  # of one network, or of n of them with shape [n]
Features = Mapping[str, Any]  # name -> how much of it a layer has
Form = Mapping[str, float]  # name -> instructions that one of it takes; absent: none
Forms = Mapping[str, Form]  # conv1 to conv4, fused_relu, and the other operators by their name
Counted = Literal["instructions", "fma_instructions"]

_CONVS = ("conv1", "conv2", "conv3", "conv4")


def count_layer(layer: Layer, *counted: Forms) -> tuple[Numbers, ...]:
    """Return what all repeats of a layer take, by each of the given sets of forms.

    A relu takes what it adds to the convolution that it is fused into.
    """
    values = features(layer)
    return tuple(
        layer.repeat * sum((c * values[name] for name, c in _form(layer, forms).items()), 0.0)
        for forms in counted
    )


def _form(layer: Layer, forms: Forms) -> Mapping[str, Any]:
    """The form of a layer; where the kernel is an array, so is each coefficient.

    Kernels that were not counted, and 4x4 on other than three channels, take conv2's form: im2col
    without padding, then the blocked product.
    """
    if layer.op != "conv":
        return forms.get("fused_relu" if layer.op == "relu" else layer.op, {})
    stem = np.equal(layer.kernel, 4) & np.equal(layer.c_in, 3)
    chosen = np.select([np.equal(layer.kernel, 1), np.equal(layer.kernel, 3), stem], [0, 2, 3], 1)
    names = dict.fromkeys(name for form in _CONVS for name in forms[form])
    table = {n: np.array([forms[form].get(n, 0.0) for form in _CONVS])[chosen] for n in names}
    return {name: coefficients for name, coefficients in table.items() if coefficients.any()}


def features(layer: Layer) -> Features:
    """Return what the cost of one repeat of a layer is made of."""
    if layer.op == "conv":
        return _conv_features(layer)
    c_in = np.asarray(layer.c_in, float)
    if layer.op == "linear":
        return {"inner": c_in * layer.c_out, "out": layer.c_out, "one": 1.0}
    return {"elements": c_in * layer.height * layer.width, "channels": c_in, "one": 1.0}


def _conv_features(layer: Layer) -> Features:
    """A convolution as the product of M output channels x K inputs by N positions.

    Its kernels take 4 channels x 16 positions at a time; of the channels left over one pass takes
    two and one takes one. Odd tiles are those of an odd number of eights. K is cut into blocks,
    each of which but the first reads and adds to the output again.
    """
    m, n = np.asarray(layer.c_out, float), np.asarray(layer.out_positions, float)
    k = np.asarray(layer.c_in, float) * layer.kernel**2
    block_k, block_n = block_sizes(k, n)
    blocks_k = np.ceil(k / block_k)
    fours, rest = m // 4, m % 4 // 2 + m % 2
    eights = np.ceil(n / 8)
    return {
        "inner": 4 * fours * 8 * eights * k,
        "rest": rest * 8 * eights * k,
        "tile": (fours + rest) * np.ceil(n / 16) * blocks_k,
        "odd_tile": (fours + rest) * (eights % 2) * blocks_k,
        "out": m * n,
        "out_again": m * n * (blocks_k - 1),
        "columns": k * n,  # numbers that im2col copies; of a 1x1 convolution, those it packs
        "column_rows": k * (layer.height // layer.stride),
        "blocks": blocks_k * np.ceil(n / block_n),
        "bias": m,
        "one": 1.0,
    }


def block_sizes(k: Any, n: Any) -> tuple[Any, Any]:
    """Return the lengths in K and in N of the blocks that a product of K by N is cut into.

    MLAS, the runtime's kernels, starts from 128 x 128 and, while the shorter side fits into half
    of its length, halves that one and doubles the other; in N it stops at 16. As both stay powers
    of two, no loop is needed.
    """
    long = n >= k
    short = np.where(long, np.clip(_power_of_two(k), 1, 128), np.clip(_power_of_two(n), 16, 128))
    other = 128 * 128 / short
    return np.where(long, short, other), np.where(long, other, short)


def _power_of_two(x: Any) -> Any:
    """The smallest power of two that is not below the whole number x."""
    return 2.0 ** np.frexp(x - 1)[1]


PROFILES = Path(__file__).parents[1] / "profiles"
COUNTED: tuple[Counted, Counted] = ("instructions", "fma_instructions")


@final
@dataclass(frozen=True, kw_only=True)
class Rates:
    """What instructions cost at one number of threads, and how far that is wrong.

    The errors are relative and leave-one-out, over the networks that the rates were fitted to.
    """

    ms_per_fma: float  # a vector multiply-add
    ms_per_other: float  # any other instruction
    interval: float  # half-width of the stated interval, as a part of the mean
    mean_error: float
    max_error: float
    source: str


@final
@dataclass(frozen=True, kw_only=True)
class Profile:
    """One board with one runtime, batch 1."""

    name: str
    board: str
    runtime: str
    runtime_version: str
    source: str
    per_run: float  # instructions of a run before the first operator, with the head's Flatten
    forms: Mapping[Counted, Forms]
    rates: Mapping[int, Rates]  # by the number of threads

    def instructions(self, layers: Sequence[Layer]) -> tuple[Numbers, Numbers]:
        """Return the instructions of one run, and how many of them are vector FMAs."""
        layer_counts = [count_layer(x, *(self.forms[c] for c in COUNTED)) for x in layers]
        total, fma = (sum(column, 0.0) for column in zip(*layer_counts, strict=True))
        return total + self.per_run, fma

    def latency_ms(
        self, layers: Sequence[Layer], *, threads: int = 1
    ) -> tuple[Numbers, Numbers, Numbers]:
        """Return the predicted latency in milliseconds and its stated interval: mean, low, high.

        Raises:
            ValueError: if the profile has no rates for that many threads.
        """
        rates = self.rates_for(threads)
        total, fma = self.instructions(layers)
        mean = rates.ms_per_fma * fma + rates.ms_per_other * (total - fma)
        return mean, mean * (1 - rates.interval), mean * (1 + rates.interval)

    def rates_for(self, threads: int) -> Rates:
        """Return the rates for that many threads.

        Raises:
            ValueError: if the profile has none.
        """
        if threads not in self.rates:
            known = " or ".join(str(n) for n in sorted(self.rates))
            raise ValueError(
                f"`threads` must be {known}, but got {threads!r}. The profile holds no other "
                "rates; measure on the board itself."
            )
        return self.rates[threads]


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
    remarks: Sequence[str] = ()

    def __init__(self, name: str, backend: Backend) -> None:
        options = (
            ("runtime", "onnxruntime", backend.runtime),
            ("precision", "fp32", backend.precision),
        )
        for option, only, given in options:
            if given != only:
                raise ValueError(
                    f"`{option}` must be {only} for the profile of the Raspberry Pi 5, but got "
                    f"{given!r}. Others need the board itself."
                )
        self.name = name
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

    def measure(self, network: Network) -> Latency:
        """Return the predicted latency; the interval is the profile's stated error.

        Raises:
            ValueError: if the network's layers are not known, or it takes several inputs at once.
        """
        model = as_model(network)
        if not model.layers:
            raise ValueError(
                f"`network` must be a FasterNet for a profile to predict it, but got {model.name}. "
                f"{HOW_TO_ATTACH}"
            )
        if model.batch_size > 1:
            raise ValueError(
                f"`batch` must be 1 for a profile, but {model.name} takes {model.batch_size}. "
                f"{HOW_TO_ATTACH}"
            )
        mean, low, high = self._profile.latency_ms(model.layers, threads=self._threads)
        return Latency(
            median_ms=float(mean),
            low_ms=float(low),
            high_ms=float(high),
            source="predicted",
            device=self.name,
            backend=self.backends[0],
            context=Context(profile=self._profile.name, profile_source=self._profile.source),
        )

    def measure_each(
        self, networks: Sequence[Network], *, repeats: int | None = None
    ) -> Iterator[Latency]:
        """Yield the predicted latency of each network; a profile needs no repeated processes."""
        return (self.measure(network) for network in networks)

    def predict(self, configs: Sequence[FasterNetConfig]) -> Prediction:
        """Return the predicted latencies of many networks at once."""
        mean, low, high = (np.zeros(len(configs)) for _ in range(3))
        for indices, layers in layers_in_groups(configs):
            mean[indices], low[indices], high[indices] = self._profile.latency_ms(
                layers, threads=self._threads
            )
        return Prediction(mean, low, high)


def open_arm(name: str, backend: Backend, protocol: TimingProtocol) -> Device:
    """Open this machine where it is an ARM one, else the profile."""
    return open_cpu(name, backend, protocol) if is_arm_machine() else ProfiledDevice(name, backend)

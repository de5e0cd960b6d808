"""The ImageNet-1k top-1 that a FasterNet would reach after full training: an estimate.

    estimate = load_top1(); estimate.predict([FASTERNET["t0"]])  # median, low, high in percent

Error falls with compute as `floor + scale * macs ** -power`, fitted to the published sizes T0 to L
(table 1 of arXiv 2303.03667). A network of another shape counts as T0's shape of more or less MACs:
`log macs + departure`. What departures do is learned from the published ablations and from networks
that were trained on photos, by the points by which they are above or below narrowed T0s there. They
are a Gaussian process with a mean of 0 but for a penalty on unbalanced stages, and for what smaller
images do to MobileNetV2 (arXiv 1801.04381): where nothing was trained the interval grows.
`benchmarks/fit_top1.py` fits all of it and writes what is read here.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictors.accuracy import AccuracyKind
from predictors.cost import costs
from search_spaces.fasternet import FASTERNET, FasterNetConfig
from search_spaces.space import AnySpace
from search_spaces.spaces import resolutions_of

Array = NDArray[np.float64]

PROFILE = Path(__file__).parent / "estimates" / "imagenet_top1"
CLASSES = 1000  # of ImageNet-1k
LEAST_SIDE = 96  # pixels of images: the least of which there are published networks
_ENDS = 1.6449  # deviations of a normal distribution from its middle to the ends of 90 % of it
_STAGES = 4
_DEPTHS = np.array(FASTERNET["t0"].depths)
_GIGA = 1e9
_INGREDIENTS = ("activation", "ingredients")  # departures that are no sizes


@dataclass(frozen=True, kw_only=True)
class TopOne:
    """Estimated top-1 of n configs in percent, arrays of shape [n]; the intervals are of 90 %."""

    median: Array
    low: Array
    high: Array


def estimate_top1(configs: Sequence[FasterNetConfig]) -> TopOne:
    """Return the ImageNet-1k top-1 that each config is estimated to reach, in percent.

    Raises:
        TypeError: if a config is no FasterNetConfig.
        ValueError: if one has another number of stages than four, counting one without blocks.
    """
    return load_top1().predict(configs)


def check_estimable(space: AnySpace, *, data: bool = False) -> None:
    """Refuse a space of whose networks nothing is known; `data` are there to train them on.

    Raises:
        ValueError: if its configs are no FasterNetConfigs of four stages, or its images are small.
    """
    if not (why := not_estimable(space)):
        return
    if data:
        raise ValueError(
            f"`accuracy` must be train for this space, but got estimate: {why}. Add --accuracy "
            "train."
        )
    raise ValueError(
        f"`data` must be given for this space, but is not: {why}. Name a folder of images or an "
        ".npz: --data PATH."
    )


def not_estimable(space: AnySpace) -> str:
    """Say why nothing is known of a space's networks; nothing where something is."""
    config, least = space.decode((0,) * len(space.genes)), min(resolutions_of(space))
    if not is_shaped(space):
        what = f"configs such as {config!r}"
    elif least < LEAST_SIDE:
        what = f"images of {least} px"
    else:
        return ""
    return (
        f"accuracy is estimated of FasterNets of four stages for images of {LEAST_SIDE} px or "
        f"more, not of {what}"
    )


def is_shaped(space: AnySpace) -> bool:
    """Whether its networks are FasterNets of four stages, which an estimate can at least rank."""
    config = space.decode((0,) * len(space.genes))
    return isinstance(config, FasterNetConfig) and len(config.widths) == _STAGES


@dataclass(frozen=True, kw_only=True)
class Top1Estimator:
    """The accuracy estimator of a search without data; it ranks by the interval's lower end."""

    kind: AccuracyKind = "estimated"

    def __call__(self, config: FasterNetConfig) -> float:
        """Return the lower end of the estimated top-1 in percent."""
        return float(load_top1().predict([config]).low[0])


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Top-1 in percent over compute: 100 - floor - scale * macs ** -power, with billions of MACs.

    The floor is the error that no compute removes. Arguments and results are arrays of one shape.
    """

    floor: float
    scale: float
    power: float

    def top1(self, log_macs: Array) -> Array:
        """Return the accuracy of so much compute."""
        return np.asarray(100 - self.floor - self.scale * np.exp(-self.power * log_macs))

    def slope(self, log_macs: Array) -> Array:
        """Return points of accuracy for a unit of `log_macs`."""
        return np.asarray(self.scale * self.power * np.exp(-self.power * log_macs))

    def log_macs(self, top1: Array) -> Array:
        """Return the compute that reaches an accuracy; what none reaches takes very much."""
        error = np.maximum(100 - self.floor - top1, 1e-3)
        return np.asarray(-np.log(error / self.scale) / self.power)


@dataclass(frozen=True, kw_only=True)
class ImageSize:
    """Log MACs that a network counts as besides its own, over x = log(side / 224), in pixels.

    A smaller image leaves compute for width, of which small networks have little: with the log m of
    billions of MACs it is (slope + lean * m) * x + bend * x^2. Above 224 px it is 0, below `least`
    that at `least`. The published networks have up to 0.6 billion MACs; beyond, the line goes on.
    """

    slope: float
    lean: float
    bend: float
    least: float  # log of billions of MACs

    def departure(self, log_side: Array, log_macs: Array) -> Array:
        """Return it, of the shape of both."""
        x, m = np.minimum(log_side, 0.0), np.maximum(log_macs, self.least)
        return np.asarray((self.slope + self.lean * m + self.bend * x) * x)


@dataclass(frozen=True, kw_only=True)
class Scales:
    """What departures are believed to do before any is seen, in units of log MACs.

    The first ones are standard deviations of slopes, each of a block of `departures`.
    """

    widths: float = 0.15
    depths: float = 0.15
    ratios: float = 0.1
    expansions: float = 0.15
    image: float = 0.15  # beside what is known of it
    stem: float = 0.3
    head: float = 0.1
    weights: float = 0.3  # more parameters for as many MACs
    activation: float = 0.15
    ingredients: float = 0.15
    below: float = 0.1  # per unit of log MACs below T0, where nothing was published
    bend: float = 0.2  # the deviation of what is not linear
    length: float = 2.0  # over which that changes
    interplay: float = 0.2  # by how much ingredients change it, against sizes
    imbalance: float = 0.1  # the penalty on the squares of departures in widths and depths
    transfer: float = 0.07  # by which a departure on photos differs from that on ImageNet


@dataclass(frozen=True, kw_only=True)
class Known:
    """A trained network; `effective` is the log of the billions of MACs that it counts as.

    `deviation` is how far chance moves that. Of one that is not `published`, nothing is learned
    about the curve below T0.
    """

    name: str
    config: FasterNetConfig
    effective: float
    deviation: float
    published: bool


@dataclass(frozen=True, kw_only=True)
class TopOneEstimate:
    """The curve, the process of departures, and the networks to which it is conditioned."""

    curve: Curve
    image: ImageSize
    scales: Scales
    known: Sequence[Known]
    chance: float  # points by which one full training differs from another

    def predict(self, configs: Sequence[FasterNetConfig]) -> TopOne:
        """Return the estimates; of no configs, empty arrays.

        Raises:
            TypeError: if a config is no FasterNetConfig.
            ValueError: if one has another number of stages than four, counting one without blocks.
        """
        mean, deviation = self.effective(configs)
        reach = _ENDS * np.hypot(deviation, self.chance / self.curve.slope(mean))
        low, median, high = (self.curve.top1(mean + step) for step in (-reach, 0.0, reach))
        return TopOne(median=median, low=low, high=high)

    def effective(self, configs: Sequence[FasterNetConfig]) -> tuple[Array, Array]:
        """Return the log MACs that networks count as, and their standard deviations, [n] each."""
        from scipy.linalg import solve_triangular

        if not len(configs):
            return np.zeros(0), np.zeros(0)
        shapes = shapes_of(configs)
        factor, weights = self._posterior
        cross = self._covariance(shapes, self._shapes)
        mean = self._expected(shapes) + cross @ weights
        shrunk = solve_triangular(factor, cross.T, lower=True)
        variance = self._variances(shapes) - np.sum(shrunk * shrunk, axis=0)
        return mean, np.sqrt(np.maximum(variance, 1e-12))

    def log_likelihood(self) -> float:
        """Return that of the known networks."""
        factor, weights = self._posterior
        return float(
            -0.5 * self._residuals @ weights
            - np.sum(np.log(np.diag(factor)))
            - 0.5 * len(self.known) * np.log(2 * np.pi)
        )

    @cached_property
    def _shapes(self) -> "Shapes":
        published = np.array([one.published for one in self.known])
        return shapes_of([one.config for one in self.known], published=published)

    @cached_property
    def _residuals(self) -> Array:
        found = np.array([one.effective for one in self.known])
        return found - self._expected(self._shapes)

    @cached_property
    def _posterior(self) -> tuple[Array, Array]:
        """The Cholesky factor of K + noise, and (K + noise)^-1 residuals."""
        from scipy.linalg import cho_solve, cholesky

        deviations = np.array([one.deviation for one in self.known])
        kernel = self._covariance(self._shapes, self._shapes)
        elsewhere = np.array([not one.published for one in self.known])
        noise = deviations**2 + elsewhere * self.scales.transfer**2
        kernel[np.diag_indices_from(kernel)] += noise
        factor = cholesky(kernel, lower=True)
        return factor, cho_solve((factor, True), self._residuals)

    def _expected(self, shapes: "Shapes") -> Array:
        """The mean of the process."""
        uneven = np.hstack([shapes.blocks["widths"], shapes.blocks["depths"]])
        penalty = self.scales.imbalance * np.sum(uneven**2, axis=1)
        image = self.image.departure(shapes.blocks["image"][:, 0], shapes.log_macs)
        return np.asarray(shapes.log_macs + image - penalty)

    def _covariance(self, here: "Shapes", there: "Shapes") -> Array:
        """Slopes by block, and a Matern 3/2 of all departures that is pinned to 0 at T0's shape."""
        found = np.zeros((len(here.log_macs), len(there.log_macs)))
        for name, block in here.blocks.items():
            found += getattr(self.scales, name) ** 2 * (block @ there.blocks[name].T)
        a, b = self._distances(here), self._distances(there)
        squares = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T
        return found + self.scales.bend**2 * (
            _matern(squares) - _matern((a * a).sum(1))[:, None] * _matern((b * b).sum(1))[None]
        )

    def _variances(self, shapes: "Shapes") -> Array:
        """The diagonal of the covariance."""
        found = np.zeros(len(shapes.log_macs))
        for name, block in shapes.blocks.items():
            found += getattr(self.scales, name) ** 2 * np.sum(block * block, axis=1)
        squares = np.sum(self._distances(shapes) ** 2, axis=1)
        return found + self.scales.bend**2 * (1 - _matern(squares) ** 2)

    def _distances(self, shapes: "Shapes") -> Array:
        """All departures side by side, in lengths, but that in compute alone.

        What an ingredient does is taken to be much the same in networks of other sizes.
        """
        parts = [
            block * (self.scales.interplay if name in _INGREDIENTS else 1.0)
            for name, block in shapes.blocks.items()
            if name != "below"
        ]
        return np.hstack(parts) / self.scales.length


def _matern(squares: Array) -> Array:
    r = np.sqrt(3 * np.maximum(squares, 0.0))
    return np.asarray((1 + r) * np.exp(-r))


@dataclass(frozen=True, kw_only=True, eq=False)
class Shapes:
    """Networks by compute, and by how they depart from T0's shape of as much of it.

    `log_macs` [n] is of billions, and of T0's shape with as many MACs outside of the mixing of
    positions; each of `blocks` is [n, k], all 0 for T0 itself: logarithms of
    sizes over those of T0's shape, and shares of ingredients.
    """

    log_macs: Array
    blocks: Mapping[str, Array]


def shapes_of(
    configs: Sequence[FasterNetConfig], *, published: NDArray[np.bool_] | None = None
) -> Shapes:
    """Describe networks; `published` [n] are those that tell of the curve below T0: all, if None.

    Raises:
        TypeError: if a config is no FasterNetConfig.
        ValueError: if one has another number of stages than four, counting one without blocks.
    """
    for config in configs:
        _check(config)
    embeds = _embed_of(_pointwise_macs(configs))
    log_macs = np.log(_macs_of(embeds))
    tells = np.ones(len(configs)) if published is None else published
    below = np.maximum(np.log(_macs_of(np.array(40.0))) - log_macs, 0) * tells
    weights = np.log(_weights(configs) / _weights_of(embeds))
    blocks = {
        **_sizes(configs, embeds),
        **_ingredients(configs),
        "weights": weights[:, None],
        "below": below[:, None],
    }
    return Shapes(log_macs=log_macs, blocks=blocks)


def _check(config: object) -> None:
    if not isinstance(config, FasterNetConfig):
        raise TypeError(
            f"`configs` must be FasterNetConfigs, but got {config!r}. Train others: there is no "
            "estimate of their accuracy."
        )
    if len(config.widths) != _STAGES:
        raise ValueError(
            f"`widths` must have {_STAGES} stages for an estimate of the accuracy, but got "
            f"{len(config.widths)}. Give data, on which the network is trained."
        )


def _pointwise_macs(configs: Sequence[FasterNetConfig]) -> Array:
    """Return the MACs [n] of all but the mixing of positions, a fused convolution taken as 1x1.

    More of the channels mixed, at the same sizes, is more MACs and hardly more accuracy.
    """
    widths, hidden, depths = (
        np.array([getattr(c, name) for c in configs], dtype=float)
        for name in ("widths", "hidden_widths", "depths")
    )
    branches = 2 + np.array([[one == "star" for one in c.mlps] for c in configs])
    first = np.array([c.resolution / c.stem_stride for c in configs])[:, None]
    areas = (first / 2.0 ** np.arange(_STAGES)) ** 2
    blocks = depths * areas * widths * hidden * branches
    merges = 4 * areas[:, 1:] * widths[:, :-1] * widths[:, 1:] * (depths[:, 1:] > 0)
    out, head = (np.array([getattr(c, n) for c in configs]) for n in ("out_width", "head_width"))
    heads = np.where(head > 0, head * (out + CLASSES), out * CLASSES)
    return np.asarray(blocks.sum(1) + merges.sum(1) + 48 * areas[:, 0] * widths[:, 0] + heads)


def _embed_of(pointwise: Array) -> Array:
    """Return the first width e of the network of T0's shape with such MACs, [n]."""
    a, b, c = _coefficients(mixing=False)
    rest = np.maximum(pointwise - c, 0.05 * pointwise)  # small networks have smaller heads
    return np.asarray((np.sqrt(b * b + 4 * a * rest) - b) / (2 * a))


def _macs_of(embeds: Array) -> Array:
    """Return the billions of MACs of networks of T0's shape by their first widths."""
    a, b, c = _coefficients(mixing=True)
    return np.asarray((a * embeds**2 + b * embeds + c) / _GIGA)


def _weights(configs: Sequence[FasterNetConfig]) -> Array:
    """Return the parameters [n] with a classifier for ImageNet's classes."""
    more = [(CLASSES - c.classes) * ((c.head_width or c.out_width) + 1) for c in configs]
    return np.asarray(costs(configs).params + np.array(more), dtype=float)


def _weights_of(embeds: Array) -> Array:
    """Return the parameters of networks of T0's shape by their first widths, [n]."""
    widths, head = 2.0 ** np.arange(_STAGES), 1280
    a = (4 + 9 / 16) * _DEPTHS @ widths**2 + 8 * (widths[:-1] ** 2).sum()
    norms = 4 * _DEPTHS @ widths + 2 * widths.sum()
    return np.asarray(a * embeds**2 + (48 + norms + 8 * head) * embeds + (head + 1) * CLASSES)


def _coefficients(*, mixing: bool) -> tuple[float, float, float]:
    """MACs of T0's shape are a e^2 + b e + c, with or without the mixing of positions.

    On a map of 56x56 a block has (4 + 9/16) (56 e)^2, the 9/16 by PConv, and so have the blocks
    of all stages; a merging has 2 (56 e)^2. Then there are stem, head and classifier.
    """
    side, head = 56, 1280
    block = 4 + 9 / 16 * mixing
    a = side**2 * (_DEPTHS.sum() * block + 2 * (_STAGES - 1))
    return float(a), float(48 * side**2 + 8 * head), float(head * CLASSES)


def _sizes(configs: Sequence[FasterNetConfig], embeds: Array) -> dict[str, Array]:
    """Logarithms of sizes over those of T0's shape; a stage without blocks has but its depth."""
    there = np.array([[depth > 0 for depth in c.depths] for c in configs])
    doubling = embeds[:, None] * 2.0 ** np.arange(_STAGES)
    widths = np.array([c.widths for c in configs])
    depths = np.array([c.depths for c in configs])
    convolved = np.array([c.partial_widths for c in configs]) / widths
    fused = np.array([_fused(c) for c in configs])
    heads = [[(c.head_width + 160) / (1280 + 160)] for c in configs]
    return {
        "widths": np.log(widths / doubling) * there,
        "depths": np.log((depths + 0.5) / (_DEPTHS + 0.5)),
        "ratios": np.log(4 * convolved) * there * ~fused,
        "expansions": np.log(np.array([c.expansions for c in configs]) / 2) * there,
        "image": np.log([[c.resolution / 224] for c in configs]),
        "stem": np.log([[c.stem_stride / 4] for c in configs]),
        "head": np.log(heads),
    }


def _ingredients(configs: Sequence[FasterNetConfig]) -> dict[str, Array]:
    """What is not a size: 0 as in T0, by stage where it is one of a stage."""
    activations = [
        [_share(c, c.stage_activations, other) for other in ("relu", "hardswish")] for c in configs
    ]
    kinds = [[*_of_stages(c), c.stem == "convs", c.stages < _STAGES] for c in configs]
    return {
        "activation": np.array(activations, dtype=float),
        "ingredients": np.array(kinds, dtype=float),
    }


def _of_stages(config: FasterNetConfig) -> Array:
    """The ingredients that are built, kind by kind and stage by stage."""
    there, fused = np.array(config.depths) > 0, _fused(config)
    attention = (np.array(config.mixers) == "attention") & ~fused
    apart = np.array(config.partial_widths) < np.array(config.widths)
    kinds = [
        np.log(np.array(config.kernels) / 3) * ~attention,
        np.log(np.array(config.partial_groups)) * ~(attention | fused),
        (np.array(config.untouched) == "gate") & apart & ~fused,
        attention,
        fused,
        np.array(config.mlps) == "star",
    ]
    return np.ravel(np.array(kinds, dtype=float) * there)


def _fused(config: FasterNetConfig) -> NDArray[np.bool_]:
    """In which stages the first 1x1 convolution is a larger one, in PConv's place."""
    return np.asarray(np.array(config.expands) == "fused")


def _share(config: FasterNetConfig, values: Sequence[str], wanted: str) -> float:
    """The share of the blocks that have this value."""
    blocks = sum(config.depths)
    return sum(d for d, one in zip(config.depths, values, strict=True) if one == wanted) / blocks


@cache
def load_top1(folder: Path = PROFILE) -> TopOneEstimate:
    """Return the estimate that a folder holds; without one, the bundled one.

    Raises:
        FileNotFoundError: if it is not there.
    """
    profile = json.loads((folder / "profile.json").read_text(encoding="utf-8"))
    lines = (folder / "networks.jsonl").read_text(encoding="utf-8").splitlines()
    return TopOneEstimate(
        curve=Curve(**profile["curve"]),
        image=ImageSize(**profile["image"]),
        scales=Scales(**profile["scales"]),
        known=[_known(json.loads(line)) for line in lines],
        chance=profile["chance"],
    )


def _known(row: Mapping[str, Any]) -> Known:
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in row["config"].items()
    }
    return Known(**{**row, "config": FasterNetConfig(**fields)})

"""Fits the estimate of ImageNet-1k top-1 that a search without data maximises.

    python benchmarks/fit_top1.py            fits, judges, writes predictors/estimates/imagenet_top1
    python benchmarks/fit_top1.py --check    fits and judges only
    python benchmarks/fit_top1.py --time     times the networks of the bench first, on this CPU

The curve over compute is fitted to the published sizes T0 to L, what smaller images do to those of
MobileNetV2 (arXiv 1801.04381). What other shapes do is learned
from the paper's ablations and from the trainings of PConv-Bench-Photos
(benchmarks/results/photos/trainings.jsonl): the points by which a network is above or below the
narrowed T0s there count as points on ImageNet, up to a deviation that is fitted. (The narrowed T0
that is as accurate would be no measure: on those photos an eighth of T0's compute is nearly as good
as all of it.) The scales of the process are those of the highest likelihood times a
prior about their defaults.

Judged are the published networks, each left out of curve and process in turn, and the networks of
the bench, left out by tenths and by parts of the space: all those that depart most in widths, in
depths, and so on. The scales are not fitted anew meanwhile. Those left out by tenths are also
ranked by what they reached on photos, among all and among those of nearly one latency, beside
rankings by MACs, parameters and latency. The figures also go to benchmarks/results/fit_top1.json.
"""

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pconv_bench import by_hand
from photo_training import TRAININGS, PhotoRecipe, PhotoTrained, read_trained
from provenance import provenance
from rank_correlation import STATISTICS, bootstrapped, difference, kendall, kendall_in_bands
from scipy.optimize import least_squares, minimize

from nas.study import journal
from predictors.cost import cost
from predictors.devices.registry import open_device
from predictors.top1 import (
    PROFILE,
    Curve,
    ImageSize,
    Known,
    Scales,
    TopOneEstimate,
    shapes_of,
)
from search_spaces.fasternet import FASTERNET, FasterNetConfig
from search_spaces.io import atomic_write

Array = NDArray[np.float64]

RESULTS = Path(__file__).parent / "results" / "fit_top1.json"
LATENCIES = TRAININGS.with_name("latencies.jsonl")
T0, T2 = FASTERNET["t0"], FASTERNET["t2"]
SOURCE = (
    "arXiv 2303.03667, tables 1 and 3 to 5: 300 epochs of ImageNet-1k, evaluated at 224 px; for "
    "smaller images MobileNetV2, arXiv 1801.04381; networks named `on photos`: PConv-Bench-Photos"
)
PUBLISHED: Mapping[str, tuple[FasterNetConfig, float]] = {
    "t0": (T0, 71.9),
    "t1": (FASTERNET["t1"], 76.2),
    "t2": (T2, 78.9),
    "s": (FASTERNET["s"], 81.3),
    "m": (FASTERNET["m"], 83.0),
    "l": (FASTERNET["l"], 83.5),
    "t0, r = 1/2": (by_hand()["t0, r = 1/2"], 71.7),
    "t0, r = 1/8": (by_hand()["t0, r = 1/8"], 71.3),
    "t0, relu": (by_hand()["t0, relu"], 71.3),
    "t2, gelu": (replace(T2, activation="gelu"), 78.7),
}
NATIVE = 224  # pixels
MOBILENETV2 = {  # width, side: millions of MACs, top-1
    (1.4, 224): (582, 75.0),
    (1.3, 224): (509, 74.4),
    (1.0, 224): (300, 71.8),
    (1.0, 192): (221, 70.7),
    (1.0, 160): (154, 68.8),
    (1.0, 128): (99, 65.3),
    (1.0, 96): (56, 60.3),
    (0.75, 224): (209, 69.8),
    (0.75, 192): (153, 68.7),
    (0.75, 160): (107, 66.4),
    (0.75, 128): (69, 63.2),
    (0.5, 224): (97, 65.4),
    (0.5, 192): (71, 63.9),
    (0.5, 160): (50, 61.0),
    (0.35, 224): (59, 60.3),
}
"""arXiv 1801.04381 and the table of its authors' checkpoints: those that are no less accurate than
the least at 224 px."""
SEEDS = 0.25  # points by which chance and recipe move a training on ImageNet: a guess
WORST = 8.0  # points below the curve: of one that learned nothing, more would set all scales
PHOTO_SEEDS = 1.2  # points between two trainings; 0.9 are chance among 2,803 photos
FEWEST = 4  # networks of T0's shape that make a curve on photos
PRIOR = 0.5  # deviation of the logarithm of each scale from its default
FOLDS = 10
ENDS = 1.6449  # deviations to the ends of a 90 % interval
PARTS = ("widths", "depths", "ratios", "expansions", "activation", "head", "image", "ingredients")


@dataclass(frozen=True, kw_only=True)
class OnPhotos:
    """A network of the bench with its accuracy in percent, the mean over so many seeds."""

    name: str
    config: FasterNetConfig
    accuracy: float
    seeds: int


@dataclass(frozen=True, kw_only=True)
class PhotosCurve:
    """Accuracy on photos of T0's shape: a parabola over log billions of MACs, level outside."""

    coefficients: tuple[float, ...]  # the highest power first
    ends: tuple[float, float]  # of the log MACs to which it was fitted

    def accuracy(self, log_macs: Array) -> Array:
        """Return the accuracy in percent."""
        return np.asarray(np.polyval(self.coefficients, np.clip(log_macs, *self.ends)), float)


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A network that the estimate does not know, with its accuracy and that estimate in percent.

    The interval is the 90 % one of what a training would find.
    """

    name: str
    macs: int
    top1: float
    median: float
    low: float
    high: float


def main() -> None:
    """Fit, judge, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write no profile")
    parser.add_argument("--trainings", type=Path, default=TRAININGS, help="the bench's table")
    parser.add_argument("--time", action="store_true", help="time what is not timed yet")
    options = parser.parse_args()
    bench = read_bench(options.trainings)
    if options.time:
        time_all([one.config for one in bench])
    estimate = fitted(bench)
    judged = judge(estimate)
    for one in judged["published"]:
        print(
            f"{one.name:12} {one.top1:.1f} %, without it {one.median:.1f} "
            f"[{one.low:.1f}, {one.high:.1f}]"
        )
    report = {kind: summary(found) for kind, found in judged.items()}
    print(json.dumps({"scales": asdict(estimate.scales), **report}, indent=1))
    left_out, latencies = judged.get("bench, by tenths", []), read_latencies()
    plain = [one for one in bench if not one.config.unpublished]
    ranked = {
        name: ranking(some, left_out, latencies)
        for name, some in (("all", bench), ("without ingredients", plain))
    }
    print(json.dumps(ranked, indent=1))
    rows = {kind: [asdict(one) for one in found] for kind, found in judged.items()}
    whole = {"judged": report, "ranking": ranked, "rows": rows, **provenance("numpy", "scipy")}
    atomic_write(RESULTS, json.dumps(whole, indent=1) + "\n")
    if not options.check:
        write(estimate, report)


def read_bench(file: Path) -> list[OnPhotos]:
    """Return the networks that the usual recipe trained."""
    found: dict[FasterNetConfig, dict[int, PhotoTrained]] = {}
    for config, row in read_trained(file):
        if row.recipe == PhotoRecipe() and not row.error:
            found.setdefault(config, {})[row.seed] = row
    names: Counter[str] = Counter()  # each search calls what it found alike
    bench = []
    for config, rows in found.items():
        name = next(iter(rows.values())).name
        names[name] += 1
        bench.append(
            OnPhotos(
                name=f"{name} ({names[name]})" if names[name] > 1 else name,
                config=config,
                accuracy=fmean(row.accuracy for row in rows.values()),
                seeds=len(rows),
            )
        )
    return bench


def fitted(bench: Sequence[OnPhotos]) -> TopOneEstimate:
    """Return the estimate of all that is known."""
    curve = fit_curve([PUBLISHED[name] for name in FASTERNET])
    known = [*published(curve), *trained(bench, curve)]
    image = fit_image()
    return fit_scales(
        TopOneEstimate(curve=curve, image=image, scales=Scales(), known=known, chance=SEEDS)
    )


def fit_image() -> ImageSize:
    """Fit it to MobileNetV2: smaller images against the curve of its widths at 224 px."""
    found = {key: (math.log(m / 1e3), top1) for key, (m, top1) in MOBILENETV2.items()}
    native = [one for (_, side), one in found.items() if side == NATIVE]
    curve = least_squares_curve(*map(np.array, zip(*native, strict=True)))
    rows, departures = [], []
    for (_, side), (log_macs, top1) in found.items():
        if side != NATIVE:
            x = math.log(side / NATIVE)
            rows.append((x, log_macs * x, x * x))
            departures.append(float(curve.log_macs(np.array(top1))) - log_macs)
    solution = np.linalg.lstsq(np.array(rows), np.array(departures), rcond=None)[0]
    slope, lean, bend = (round(float(value), 3) for value in solution)
    least = round(min(log_macs for log_macs, _ in native), 3)
    return ImageSize(slope=slope, lean=lean, bend=bend, least=least)


def fit_curve(sizes: Sequence[tuple[FasterNetConfig, float]]) -> Curve:
    """Fit the curve to networks of T0's shape and their top-1 in percent."""
    log_macs = np.log([cost(config).macs / 1e9 for config, _ in sizes])
    return least_squares_curve(log_macs, np.array([one for _, one in sizes]))


def least_squares_curve(log_macs: Array, top1: Array) -> Curve:
    """Fit the curve to top-1 in percent over the log of billions of MACs, arrays of one shape."""

    def curve(values: Array) -> Curve:
        floor, log_scale, power = map(float, values)
        return Curve(floor=floor, scale=math.exp(log_scale), power=power)

    found = least_squares(lambda values: curve(values).top1(log_macs) - top1, [10.0, 2.5, 0.3])
    return curve(found.x)


def published(curve: Curve) -> list[Known]:
    """Return the published networks by the compute that they count as."""
    found = []
    for name, (config, top1) in PUBLISHED.items():
        effective = curve.log_macs(np.array(top1))
        found.append(
            Known(
                name=name,
                config=config,
                effective=float(effective),
                deviation=SEEDS / float(curve.slope(effective)),
                published=True,
            )
        )
    return found


def trained(bench: Sequence[OnPhotos], curve: Curve) -> list[Known]:
    """Return the networks of the bench by the compute that they count as on ImageNet's `curve`.

    None, unless there are enough of T0's shape to say what is above and below them.
    """
    photos = fit_photos(bench)
    if photos is None:
        return []
    log_macs = shapes_of([one.config for one in bench]).log_macs
    above = np.array([one.accuracy for one in bench]) - photos.accuracy(log_macs)
    above = np.maximum(above, -WORST)
    slopes = curve.slope(log_macs)
    return [
        Known(
            name=f"{one.name}, on photos",
            config=one.config,
            effective=float(log_macs[i] + above[i] / slopes[i]),
            deviation=float(PHOTO_SEEDS / math.sqrt(one.seeds) / slopes[i]),
            published=False,
        )
        for i, one in enumerate(bench)
    ]


def fit_photos(bench: Sequence[OnPhotos]) -> PhotosCurve | None:
    """Fit the curve to networks of T0's shape; None where they are too few."""
    shaped = {config for name, config in by_hand().items() if "," not in name}
    hand = [one for one in bench if one.config in shaped]
    if len(hand) < FEWEST:
        return None
    log_macs = shapes_of([one.config for one in hand]).log_macs
    weights = [math.sqrt(one.seeds) for one in hand]
    coefficients = np.polyfit(log_macs, [one.accuracy for one in hand], 2, w=weights)
    return PhotosCurve(
        coefficients=tuple(map(float, coefficients)),
        ends=(float(log_macs.min()), float(log_macs.max())),
    )


def fit_scales(estimate: TopOneEstimate) -> TopOneEstimate:
    """Return it with the scales of the highest likelihood times a prior about the defaults."""
    names = [field.name for field in fields(Scales)]
    defaults = np.log([getattr(Scales(), name) for name in names])

    def scaled(logs: Array) -> TopOneEstimate:
        values = dict(zip(names, map(float, np.exp(logs)), strict=True))
        return replace(estimate, scales=Scales(**values))

    def minus(logs: Array) -> float:
        z = (logs - defaults) / PRIOR
        return float(0.5 * z @ z) - scaled(logs).log_likelihood()

    best = scaled(minimize(minus, defaults, method="L-BFGS-B").x).scales
    rounded = {name: round(value, 4) for name, value in asdict(best).items()}
    return replace(estimate, scales=Scales(**rounded))


def judge(estimate: TopOneEstimate) -> dict[str, list[LeftOut]]:
    """Estimate each network by what is known without it, or without its part of the space."""
    found = {"published": [_published_left_out(estimate, name) for name in PUBLISHED]}
    known = [one for one in estimate.known if not one.published]
    if known:
        random = np.random.default_rng(0).permutation(len(known)) % FOLDS
        found["bench, by tenths"] = list(_bench_left_out(estimate, known, random))
        found["bench, by parts"] = list(_bench_left_out(estimate, known, parts(known)))
    return found


def parts(known: Sequence[Known]) -> NDArray[np.intp]:
    """Return for each network the block in which it departs most, beside what the others do."""
    blocks = shapes_of([one.config for one in known]).blocks
    lengths = [np.linalg.norm(blocks[name], axis=1) for name in PARTS]
    return np.asarray(np.argmax([one / (one.std() or 1.0) for one in lengths], axis=0))


def _published_left_out(estimate: TopOneEstimate, name: str) -> LeftOut:
    """Leave a network out of the curve, if it is in that, and out of the process."""
    config, top1 = PUBLISHED[name]
    curve = fit_curve([PUBLISHED[other] for other in FASTERNET if other != name])
    bench = [one for one in estimate.known if not one.published]
    others = [one for one in published(curve) if one.name != name]
    without = replace(estimate, curve=curve, known=[*others, *bench])
    chance = SEEDS / float(curve.slope(curve.log_macs(np.array(top1))))
    return _left_out(without, name, config, top1, chance)


def _bench_left_out(
    estimate: TopOneEstimate, known: Sequence[Known], folds: NDArray[np.intp]
) -> Iterator[LeftOut]:
    """Leave out one fold of the bench at a time; accuracies are on the scale of ImageNet."""
    for fold in np.unique(folds):
        out = [one for one, here in zip(known, folds == fold, strict=True) if here]
        without = replace(estimate, known=[one for one in estimate.known if one not in out])
        for one in out:
            top1 = float(estimate.curve.top1(np.array(one.effective)))
            chance = math.hypot(one.deviation, estimate.scales.transfer)
            yield _left_out(without, one.name, one.config, top1, chance)


def _left_out(
    without: TopOneEstimate, name: str, config: FasterNetConfig, top1: float, chance: float
) -> LeftOut:
    """Compare; the interval is that of what one more training would find."""
    mean, deviation = without.effective([config])
    reach = ENDS * math.hypot(float(deviation[0]), chance)
    low, median, high = (float(without.curve.top1(mean[0] + step)) for step in (-reach, 0, reach))
    macs = cost(config).macs
    return LeftOut(name=name, macs=macs, top1=top1, median=median, low=low, high=high)


def summary(found: Sequence[LeftOut]) -> dict[str, float]:
    """Return how far off a group of estimates is, what its intervals hold, and how it ranks."""
    truth = np.array([one.top1 for one in found])
    median = np.array([one.median for one in found])
    macs = np.array([float(one.macs) for one in found])
    return {
        "networks": len(found),
        "mean_error": float(np.mean(np.abs(median - truth))),
        "largest_error": float(np.max(np.abs(median - truth))),
        "covered": float(np.mean([one.low <= one.top1 <= one.high for one in found])),
        "tau": kendall(median, truth),
        "tau_of_macs": kendall(macs, truth),
        "tau_in_bands": kendall_in_bands(median, truth, macs),
        "tau_of_macs_in_bands": kendall_in_bands(macs, truth, macs),
    }


def ranking(
    bench: Sequence[OnPhotos],
    left_out: Sequence[LeftOut],
    latencies: Mapping[FasterNetConfig, float],
) -> dict[str, Any]:
    """Return how well what is known before training ranks what the bench reached; 95 % intervals.

    Of the networks that are timed; `in_bands` are those within 15 % of one latency.
    """
    estimated = {one.name: one.median for one in left_out}
    known = [one for one in bench if f"{one.name}, on photos" in estimated]
    timed = [one for one in known if one.config in latencies]
    if len(timed) < 2:
        return {}
    truth = np.array([one.accuracy for one in timed])
    ms = np.array([latencies[one.config] for one in timed])
    costs = [cost(one.config) for one in timed]
    scores = {
        "estimate": np.array([estimated[f"{one.name}, on photos"] for one in timed]),
        "macs": np.array([float(one.macs) for one in costs]),
        "parameters": np.array([float(one.params) for one in costs]),
        "latency": ms,
    }
    rows = {
        name: {
            "all": asdict(bootstrapped(STATISTICS["kendall"], values, truth, ms)),
            "in_bands": asdict(bootstrapped(kendall_in_bands, values, truth, ms)),
        }
        for name, values in scores.items()
    }
    counts = [name for name in scores if name != "estimate"]
    best = max(counts, key=lambda name: rows[name]["in_bands"]["value"])
    above = difference(kendall_in_bands, (scores["estimate"], scores[best]), truth, ms)
    return {"networks": len(timed), "rows": rows, "above": {"count": best, **asdict(above)}}


def time_all(configs: Sequence[FasterNetConfig]) -> None:
    """Time those that are not, on this processor, beside T0: all are at the speed of its first."""
    known = read_latencies()
    missing = [config for config in configs if config not in known]
    first, *timed = open_device("cpu").measure_each([T0, *missing])
    speed = known.get(T0, first.median_ms) / first.median_ms
    for config, latency in zip(missing, timed, strict=True):
        entry = {"median_ms": speed * latency.median_ms, "source": latency.source}
        journal.append_record(LATENCIES, config, entry)


def read_latencies() -> dict[FasterNetConfig, float]:
    """Return the latencies of networks in ms."""
    found = journal.read_records(LATENCIES, lambda entry: float(entry["median_ms"]), what="latency")
    return dict(found)


def write(estimate: TopOneEstimate, judged: Mapping[str, Mapping[str, float]]) -> None:
    """Write the profile that `load_top1` reads."""
    profile = {
        "source": SOURCE,
        "curve": asdict(estimate.curve),
        "image": asdict(estimate.image),
        "scales": asdict(estimate.scales),
        "chance": estimate.chance,
        "judged": judged,
    }
    lines = [json.dumps(asdict(one)) for one in estimate.known]
    PROFILE.mkdir(parents=True, exist_ok=True)
    atomic_write(PROFILE / "networks.jsonl", "\n".join(lines) + "\n")
    atomic_write(PROFILE / "profile.json", json.dumps(profile, indent=1) + "\n")


if __name__ == "__main__":
    main()

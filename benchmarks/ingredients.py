"""What does each ingredient of a FasterNet buy? At half of T0's latency, trained alike on photos.

    python benchmarks/ingredients.py --measure   scales each variant to that latency; wants a
                                                 machine that does nothing else
    python benchmarks/ingredients.py --train     trains what was scaled and is not trained yet
    python benchmarks/ingredients.py             prints the table

The hand narrows T0 until it takes half of T0's measured latency on this CPU, without and with each
ingredient: widths are multiples of 8, c_p of 4, the depths are T0's. Each is then trained by the
recipe of `photo_training.py` from two seeds, the one without any from four. A difference has the
95 % interval of the scatter between seeds, which all variants share. What was scaled is kept in
benchmarks/results/ingredients/, trainings in results/photos/, beside those of PConv-Bench, so that
it goes on where it ended. The table also goes to ingredients.json.
"""

import argparse
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice, product
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np
from photo_images import PHOTOS
from photo_training import (
    TRAININGS,
    Job,
    Network,
    PhotoRecipe,
    PhotoTrained,
    Trained,
    config_of,
    read_trained,
    train_all,
)
from provenance import provenance
from scipy.stats import t as student

from nas.study import journal
from predictors.cost import cost, costs
from predictors.devices.device import Device
from predictors.devices.registry import open_device
from predictors.measurement import compare
from search_spaces.fasternet import FASTERNET, FasterNetConfig
from search_spaces.io import atomic_write

RESULTS = Path(__file__).parent / "results"
T0 = FASTERNET["t0"]
SHARE = 0.5  # of T0's latency
SEEDS = {"base": (0, 1, 2, 3)}  # by variant
OTHER_SEEDS = (0, 1)
SCALES = np.arange(0.2, 1.2, 0.01)
TURNS = 3  # in each of which every variant is timed at a width nearer to its latency
PROCESSES, LAST_PROCESSES = 3, 5  # that time each network
BESIDE_T0 = 7  # networks in one group with it
EXPONENT = 0.8  # latency over MACs, until two widths of a variant are timed
EXPONENTS = (0.5, 1.2)  # that are believed
PRIOR_ERROR, PRIOR_ERRORS = 1.2, 4  # points between seeds as expected; 0.9 are chance among photos
LATENCIES, NETWORKS = "latencies.jsonl", "networks.json"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """T0 with other choices, and where those come from."""

    changes: Mapping[str, Any]
    source: str = ""
    branches: bool = False  # in training only

    def recipe(self, recipe: PhotoRecipe) -> PhotoRecipe:
        """Return the recipe with what the variant adds to it."""
        return replace(recipe, branches=self.branches)

    @cached_property
    def widths(self) -> Mapping[FasterNetConfig, float]:
        """T0's widths, narrowed and rounded up or down to multiples of 8; with the log of MACs."""
        found = {
            tuple(
                max(8 * rounded(scale * w / 8), 8)
                for w, rounded in zip(T0.widths, ways, strict=True)
            )
            for scale in SCALES.tolist()
            for ways in product((math.floor, math.ceil), repeat=len(T0.widths))
        }
        configs = [with_widths(widths, self.changes) for widths in sorted(found)]
        return dict(zip(configs, np.log(costs(configs).macs).tolist(), strict=True))


def with_widths(
    widths: tuple[int, ...], changes: Mapping[str, Any] | None = None
) -> FasterNetConfig:
    """Return T0 with other widths and choices; PConv convolves multiples of 4 channels."""
    config = replace(T0, **{"widths": widths, **(changes or {})})
    shares = zip(widths, config.partial_ratios, strict=True)
    return replace(config, partial_ratios=tuple(_partial(w, r) / w for w, r in shares))


def _partial(width: int, ratio: float) -> int:
    """The multiple of 4 that is nearest to so much of the channels."""
    return max(4 * math.floor(width * ratio / 4 + 0.5), 4)


def _each(value: int | str) -> tuple[int | str, ...]:
    return (value,) * len(T0.widths)


VARIANTS: Mapping[str, Variant] = {
    "base": Variant(changes={}),
    "kernels 2": Variant(changes={"kernels": _each(2)}, source="arXiv 2603.26425"),
    "groups 2": Variant(changes={"groups": _each(2)}, source="arXiv 2603.26425"),
    "gate": Variant(changes={"untouched": _each("gate")}, source="arXiv 2503.03148, 2502.01303"),
    "attention in the last stage": Variant(
        changes={"mixers": ("pconv", "pconv", "pconv", "attention")}, source="arXiv 2401.16456"
    ),
    "head 640": Variant(changes={"head_width": 640}),
    "fused in the first stage": Variant(
        changes={"expands": ("fused", "plain", "plain", "plain")}, source="arXiv 2104.00298"
    ),
    "star": Variant(changes={"mlps": _each("star")}, source="arXiv 2403.19967"),
    "hardswish": Variant(changes={"activation": "hardswish"}, source="arXiv 1905.02244"),
    "stem of two convolutions": Variant(changes={"stem": "convs"}, source="arXiv 2106.14881"),
    "branches in training": Variant(changes={}, source="arXiv 2101.03697", branches=True),
    "relu": Variant(changes={"activation": "relu"}),
    "192 px": Variant(changes={"resolution": 192}, source="arXiv 1801.04381"),
    "groups 2, kernels 2": Variant(
        changes={"groups": _each(2), "kernels": _each(2)}, source="arXiv 2603.26425"
    ),
    "ratio 1/2 in the last two stages": Variant(changes={"partial_ratios": (0.25, 0.25, 0.5, 0.5)}),
    "ratio 1 in the last two stages": Variant(changes={"partial_ratios": (0.25, 0.25, 1.0, 1.0)}),
    "kernels 5": Variant(changes={"kernels": _each(5)}),
    "kernels 7": Variant(changes={"kernels": _each(7)}),
    "fused in the first two stages": Variant(
        changes={"expands": ("fused", "fused", "plain", "plain")}, source="arXiv 2104.00298"
    ),
    "head 320": Variant(changes={"head_width": 320}),
    "no head": Variant(changes={"head_width": 0}),
    "three stages": Variant(changes={"depths": (1, 2, 10, 0)}, source="arXiv 2401.16456"),
}
"""The most interesting first; the blocks of a fourth stage that is left out are the third's."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A latency as a multiple of T0's, timed beside it in so many processes; 95 % intervals."""

    ratio: float
    low: float
    high: float
    processes: int
    t0_ms: float
    device: str


TimedNetworks = Mapping[FasterNetConfig, Timed]
Networks = Mapping[str, tuple[FasterNetConfig, Timed]]


def main() -> None:
    """Measure, train or print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="time networks, train none")
    parser.add_argument("--train", action="store_true", help="train what is not trained yet")
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="folders of classes")
    parser.add_argument("--epochs", type=int, default=PhotoRecipe.epochs)
    parser.add_argument("--images", type=int, default=0, help="to train on; 0: all")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="trainings at once")
    parser.add_argument("--trainings", type=Path, default=TRAININGS, help="the table")
    parser.add_argument("--out", type=Path, default=RESULTS / "ingredients")
    options = parser.parse_args()
    folder: Path = options.out
    folder.mkdir(parents=True, exist_ok=True)
    recipe = PhotoRecipe(epochs=options.epochs, images=options.images)
    if options.measure:
        measure(folder, open_device("cpu"))
    networks, file = read_networks(folder / NETWORKS), options.trainings
    if options.train:
        train_all(planned(networks, recipe), file, options.photos, workers=options.workers)
    rows = table(networks, read_trained(file), recipe)
    for row in rows:
        print(_words(row))
    document = {
        "share": SHARE,
        "recipe": asdict(recipe),
        "rows": rows,
        **provenance("torch", "onnxruntime"),
    }
    folder.with_suffix(".json").write_text(json.dumps(document, indent=2) + "\n")


def measure(folder: Path, device: Device) -> None:
    """Time each variant at widths that come nearer to the latency; keep the nearest, timed again.

    A variant that was kept before stays as it is.
    """
    file, kept = folder / LATENCIES, folder / NETWORKS
    known = read_networks(kept)
    new = {name: variant for name, variant in VARIANTS.items() if name not in known}
    for _ in range(TURNS):
        timed = read_timed(file)
        near = [nearest(variant, timed) for variant in new.values()]
        _time(file, device, [c for c in near if c not in timed], PROCESSES)
    timed = read_timed(file)
    chosen = {name: nearest(variant, timed, known=True) for name, variant in new.items()}
    _time(file, device, list(chosen.values()), LAST_PROCESSES)
    timed = read_timed(file)
    found = {**known, **{name: (config, timed[config]) for name, config in chosen.items()}}
    content = {
        name: {"config": asdict(found[name][0]), **asdict(found[name][1])} for name in VARIANTS
    }
    atomic_write(kept, json.dumps(content, indent=2) + "\n")


def read_timed(file: Path) -> TimedNetworks:
    """Return what was timed; of one network that with the most processes, the last of these."""
    found: dict[FasterNetConfig, Timed] = {}
    for config, row in journal.read_records(file, lambda entry: Timed(**entry), what="a latency"):
        if config not in found or found[config].processes <= row.processes:
            found[config] = row
    return found


def read_networks(file: Path) -> dict[str, tuple[FasterNetConfig, Timed]]:
    """Return the variants that were scaled to the latency, by name."""
    if not file.exists():
        return {}
    entries = json.loads(file.read_text()).items()
    return {name: (config_of(entry.pop("config")), Timed(**entry)) for name, entry in entries}


def nearest(variant: Variant, timed: TimedNetworks, *, known: bool = False) -> FasterNetConfig:
    """Return the widths that come nearest to the latency, and to T0's proportions.

    `known` are only those that are timed.
    """
    ratios = {config: timed[config].ratio for config in variant.widths if config in timed}
    expected = _expected(variant.widths, ratios)
    choices = [config for config in variant.widths if config in ratios or not known]
    return min(choices, key=lambda c: abs(math.log(expected[c] / SHARE)) + distortion(c.widths))


def distortion(widths: Sequence[int]) -> float:
    """How far widths are from T0's proportions: as bad as so large a difference in latency."""
    return 0.1 * pstdev(math.log(w / of_t0) for w, of_t0 in zip(widths, T0.widths, strict=True))


def _expected(
    log_macs: Mapping[FasterNetConfig, float], ratios: Mapping[FasterNetConfig, float]
) -> dict[FasterNetConfig, float]:
    """The ratio of each network, from the nearest ones: on a line in the logarithms of MACs."""
    points = [(log_macs[config], math.log(ratio)) for config, ratio in ratios.items()]
    known = points or [(math.log(cost(T0).macs), 0.0)]

    def at(here: float) -> float:
        (x, y), *others = sorted(known, key=lambda point: abs(point[0] - here))
        slope = EXPONENT
        if others and others[0][0] != x:
            slope = float(np.clip((others[0][1] - y) / (others[0][0] - x), *EXPONENTS))
        return math.exp(y + slope * (here - x))

    return {config: ratios.get(config, at(here)) for config, here in log_macs.items()}


def _time(file: Path, device: Device, configs: Sequence[FasterNetConfig], processes: int) -> None:
    waiting = iter(dict.fromkeys(configs))
    while group := list(islice(waiting, BESIDE_T0)):
        t0, *others = device.measure_each([T0, *group], repeats=processes)
        for config, latency in zip(group, others, strict=True):
            found = compare(t0, latency)
            row = Timed(
                ratio=found.ratio,
                low=found.low,
                high=found.high,
                processes=processes,
                t0_ms=t0.now_ms(),
                device=device.description,
            )
            journal.append_record(file, config, asdict(row))
            print(f"{config.widths}: {row.ratio:.3f} of T0 [{row.low:.3f}, {row.high:.3f}]")


def planned(networks: Networks, recipe: PhotoRecipe) -> list[Job]:
    """Return all trainings: each variant from the first seed, then from the next one, and so on."""
    most = max(map(len, SEEDS.values()))
    return [
        Job(name=name, config=config, seed=seed, recipe=VARIANTS[name].recipe(recipe))
        for seed in range(most)
        for name, (config, _) in networks.items()
        if seed in SEEDS.get(name, OTHER_SEEDS)
    ]


def table(
    networks: Networks, trained: Sequence[Trained], recipe: PhotoRecipe
) -> list[dict[str, Any]]:
    """Return a row for each variant, with its difference to the base where both are trained."""
    accuracies = {
        name: [
            row.accuracy
            for other, row in trained
            if other == config and row.recipe == VARIANTS[name].recipe(recipe) and not row.error
        ]
        for name, (config, _) in networks.items()
    }
    error, freedom = deviation_of(trained, recipe)
    base = accuracies.get("base", [])
    return [
        {
            "variant": name,
            "source": VARIANTS[name].source,
            "config": asdict(config),
            "macs": cost(config).macs,
            "params": cost(config).params,
            "of_t0": asdict(timed),
            "accuracies": accuracies[name],
            "gain": gain(accuracies[name], base, error, freedom) if name != "base" else None,
        }
        for name, (config, timed) in networks.items()
    ]


def deviation_of(
    trained: Sequence[tuple[Network, PhotoTrained]], recipe: PhotoRecipe
) -> tuple[float, int]:
    """Return the deviation between the seeds of any network that was trained so, pooled.

    Beside those stand errors of the usual size: a few pairs of seeds may be alike by chance.
    """
    groups: dict[tuple[Network, PhotoRecipe], list[float]] = {}
    for config, row in trained:
        if replace(row.recipe, branches=recipe.branches) == recipe and not row.error:
            groups.setdefault((config, row.recipe), []).append(row.accuracy)
    found, freedom = pooled_deviation(list(groups.values()))
    squares = PRIOR_ERRORS * PRIOR_ERROR**2 + (freedom * found**2 if freedom else 0.0)
    return math.sqrt(squares / (PRIOR_ERRORS + freedom)), PRIOR_ERRORS + freedom


def pooled_deviation(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Return the standard deviation within groups, and its degrees of freedom."""
    freedom = sum(len(group) - 1 for group in groups if group)
    if not freedom:
        return math.nan, 0
    squares = sum((value - fmean(group)) ** 2 for group in groups for value in group)
    return math.sqrt(squares / freedom), freedom


def gain(
    ours: Sequence[float], base: Sequence[float], deviation: float, freedom: int
) -> dict[str, float] | None:
    """The difference of the means with its 95 % interval; None before there is one."""
    if not (ours and base and freedom):
        return None
    points = fmean(ours) - fmean(base)
    error = deviation * math.sqrt(1 / len(ours) + 1 / len(base))
    half = float(student.ppf(0.975, freedom)) * error
    return {"points": points, "low": points - half, "high": points + half}


def _words(row: Mapping[str, Any]) -> str:
    known, gain = row["accuracies"], row["gain"]
    accuracy = f"{fmean(known):.2f} % ({len(known)})" if known else "not trained"
    above = f"{gain['points']:+.2f} [{gain['low']:+.2f}, {gain['high']:+.2f}]" if gain else ""
    return (
        f"{row['variant']:34} {'-'.join(map(str, row['config']['widths'])):16} "
        f"{row['macs'] / 1e6:4.0f} MMACs  {row['of_t0']['ratio']:.3f} of T0  {accuracy:14} {above}"
    )


if __name__ == "__main__":
    main()

"""The tables of docs/ about what was trained on photos."""

from collections import defaultdict
from statistics import fmean

from photo_training import TRAININGS, PhotoRecipe, PhotoTrained, read_trained

from nas.quantities import format_count
from predictors.cost import cost
from predictors.devices.profiled import ProfiledDevice
from predictors.measurement import Backend
from search_spaces.fasternet import FasterNetConfig


def photo_bench() -> str:
    """Return the networks that the present recipe trained, by their MACs."""
    found: dict[FasterNetConfig, list[PhotoTrained]] = defaultdict(list)
    for config, row in read_trained(TRAININGS):
        if row.recipe == PhotoRecipe(branches=row.recipe.branches) and not row.error:
            found[config].append(row)
    arm = ProfiledDevice("arm", Backend())
    lines = [
        "| network | MACs | ms on ARM, predicted | accuracy on photos | seeds |",
        "|---|---|---|---|---|",
    ]
    for config in sorted(found, key=lambda config: cost(config).macs):
        rows = found[config]
        lines.append(
            f"| {rows[0].name} | {format_count(cost(config).macs)} | "
            f"{arm.measure(config).median_ms:.1f} | "
            f"{fmean(row.accuracy for row in rows):.1f} % | {len(rows)} |"
        )
    return "\n".join(lines)


def photo_rates() -> str:
    """Return the accuracies of networks that were trained at two learning rates."""
    found: dict[tuple[FasterNetConfig, int], dict[float, PhotoTrained]] = defaultdict(dict)
    for config, row in read_trained(TRAININGS):
        found[config, row.seed][row.recipe.lr] = row
    both = [by_rate for by_rate in found.values() if len(by_rate) > 1]
    rates = sorted({rate for by_rate in both for rate in by_rate})
    lines = [
        "| network | " + " | ".join(f"{rate:g}" for rate in rates) + " |",
        "|---|" + "---|" * len(rates),
    ]
    for by_rate in both:
        cells = [f"{by_rate[rate].accuracy:.1f} %" for rate in rates]
        first = by_rate[rates[0]]
        lines.append(f"| {first.name}, seed {first.seed} | " + " | ".join(cells) + " |")
    return "\n".join(lines)

"""The tables of docs/ about accuracies on photos, and about the estimate."""

import json
from collections import defaultdict
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from fit_top1 import RESULTS as FIT
from photo_training import TRAININGS, PhotoRecipe, PhotoTrained, read_trained
from shorter_trainings import FILE as SHORTER

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


def published_left_out(result: Mapping[str, Any]) -> str:
    """A row for each published network, estimated by the others."""
    judged = result["judged"]["published"]
    lines = [
        f"By `benchmarks/fit_top1.py` on {judged['networks']} published networks: mean error "
        f"{judged['mean_error']:.1f} points, largest {judged['largest_error']:.1f}; 90 % intervals "
        f"cover {100 * judged['covered']:.0f} %. Kendall's tau with the published accuracy is "
        f"{judged['tau']:.2f}, that of MACs {judged['tau_of_macs']:.2f}.",
        "",
        "| network | MACs | published | estimated | 90 % interval |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['name']} | {format_count(row['macs'])} | {row['top1']:.1f} % "
        f"| {row['median']:.1f} % | {row['low']:.1f} to {row['high']:.1f} |"
        for row in result["rows"]["published"]
    ]
    return "\n".join(lines)


def photo_ranking() -> str:
    """Return how well what is known before training ranks the networks of the bench."""
    groups = json.loads(FIT.read_text())["ranking"]
    found, plain = groups["all"], groups["without ingredients"]
    lines = [
        f"Kendall's tau with the accuracy on photos of {found['networks']} networks, left out of "
        f"the fit by tenths, and of the {plain['networks']} of them without ingredients:",
        "",
        "| ranked by | all | within 15 % of one latency | without ingredients | and within 15 % |",
        "|---|---|---|---|---|",
    ]
    for name, row in found["rows"].items():
        cells = [_interval(each["rows"][name][of]) for each in groups.values() for of in row]
        lines.append(f"| {name.replace('macs', 'MACs')} | {' | '.join(cells)} |")
    for words, above in (("", found["above"]), (", without ingredients", plain["above"])):
        lines += [
            "",
            f"Within one latency{words}, the estimate's tau less that of {above['count']}, the "
            f"best count there, is {above['value']:+.2f} ({above['low']:+.2f} to "
            f"{above['high']:+.2f}).",
        ]
    return "\n".join(lines)


def short_trainings() -> str:
    """A row for each short training: how well it ranks networks as whole ones do."""
    found = json.loads(SHORTER.read_text())
    lines = [
        f"By `benchmarks/shorter_trainings.py` on {found['networks']} networks:",
        "",
        "| ranked by | cost (whole: 1) | all | within 15 % of one latency |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {_ranked_by(row)} | {row['cost']:.2f} | {_interval(row['tau'])} | "
        f"{_interval(row['tau_in_bands'])} |"
        for row in found["rows"]
    ]
    return "\n".join(lines)


def _ranked_by(row: Mapping[str, Any]) -> str:
    if row["by"] != "training":
        return str(row["by"])
    weights = f", from {row['init'].upper()}" * bool(row["init"])
    classes = f", {row['classes']} classes"
    epochs = f"{row['epochs']} epoch{'s' * (row['epochs'] > 1)}"
    return f"{epochs} at {row['side']} px{classes}{weights}"


def _interval(row: Mapping[str, float]) -> str:
    return f"{row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})"


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


def ingredients(result: Mapping[str, Any]) -> str:
    """Return what each ingredient buys at equal latency, the most first."""
    trained = [row for row in result["rows"] if row["accuracies"]]
    lines = [
        "| T0 at half its latency, with | latency of T0's | MACs | accuracy | seeds | points |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(trained, key=lambda row: -fmean(row["accuracies"])):
        known = row["accuracies"]
        lines.append(
            f"| {row['variant']} | {row['of_t0']['ratio']:.3f} | {format_count(row['macs'])} | "
            f"{fmean(known):.1f} % | {len(known)} | {_points(row['gain'])} |"
        )
    return "\n".join(lines)


def found_on_photos(result: Mapping[str, Any]) -> str:
    """Return what a search finds without data beside what a hand makes."""
    lines = [
        "| device, what is to be beaten | accuracy (seeds) | space | found in it | points | time |",
        "|---|---|---|---|---|---|",
    ]
    trained = [row for row in result["rows"] if row["gain"]]
    for row in sorted(trained, key=lambda row: (row["device"], row["bar"], row["space"])):
        hand, found = (
            f"{fmean(values):.1f} % ({len(values)})"
            for values in (row["accuracies"]["hand"], row["accuracies"]["found"])
        )
        lines.append(
            f"| {row['device']}, {row['bar']} | {hand} | "
            f"{row['space']}{', earlier' if row.get('earlier') else ''} | {found} | "
            f"{_points(row['gain'])} | {row['times_the_bar'][0]:.2f}, {row['source']} |"
        )
    return "\n".join(lines)


def _points(gain: Mapping[str, float] | None) -> str:
    if gain is None:
        return "-"
    return f"{gain['points']:+.1f} ({gain['low']:+.1f} to {gain['high']:+.1f})"

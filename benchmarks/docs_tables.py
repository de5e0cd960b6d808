"""Write the benchmarks' figures, and tables of the code, between their marks in docs/.

    python benchmarks/docs_tables.py [--check]

`--check` writes nothing and fails where a page differs from benchmarks/results or from the code.
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from photo_tables import (
    found_on_photos,
    ingredients,
    photo_bench,
    photo_ranking,
    photo_rates,
    published_left_out,
    short_trainings,
)

from predictors.aarch64.layers import LayerShape, count_shape, layer_nodes
from predictors.aarch64.parts import macs as node_macs
from predictors.backends.table import runtime_names, runtimes
from predictors.devices.profiled import load_profile
from search_spaces.layers import Op

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def main() -> None:
    """Fill the tables in or compare them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    for page in sorted((ROOT / "docs").rglob("*.md")):
        before = page.read_text(encoding="utf-8")
        after = filled(before)
        if options.check and after != before:
            sys.exit(
                f"{page.relative_to(ROOT)} must hold the figures of benchmarks/results and the "
                "tables of the code, but holds others: run this without --check."
            )
        if after != before:
            page.write_text(after, encoding="utf-8")


def filled(text: str) -> str:
    """Return the text with every table that it has made anew, if there is a result file for it."""
    for name in [*OF_THE_CODE, *TABLES]:
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        content = made(name) if mark else ""
        if content:
            text = f"{before}{mark}{content}\n<!-- end -->" + rest.split("<!-- end -->", 1)[1]
    return text


def made(name: str) -> str:
    """Return a table; of results, nothing where there are none yet."""
    if name in OF_THE_CODE:
        return OF_THE_CODE[name]()
    file = RESULTS / f"{name}.json"
    return TABLES[name](json.loads(file.read_text())) if file.exists() else ""


def backends() -> str:
    """Return the runtimes as the table of backends has them."""
    rows = [
        "| `--runtime` | `--precision`: file, as `export --to` writes it | `--device cuda` |",
        "|---|---|---|",
    ]
    for name in runtime_names():
        lines = [line for line in runtimes() if line.name == name]
        files = ", ".join(f"{line.precision}: `{line.format}`" for line in lines)
        cuda = ", ".join(line.precision for line in lines if line.cuda_clock)
        rows.append(f"| `{name}` | {files} | {cuda or '-'} |")
    return "\n".join(rows)


def _latency_predictor(space: str, result: dict[str, Any]) -> str:
    lines = [
        f"Fitted to {result['fitted']} measured networks of the `{space}` space under "
        f"{result['limit_ms']:.0f} ms, evaluated on {result['tested']} random others, all timed by "
        f"`benchmarks/latency_predictor.py` ({result['device']}):",
        "",
        "| predictor | Spearman | Kendall | mean error | largest | within 5 % | interval covers |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in result["predictors"].items():
        covers = f"{row['covers']:.0f} %" if "covers" in row else "-"
        lines.append(
            f"| {name} | {row['spearman']:.3f} | {row['kendall']:.3f} | "
            f"{row['mape']:.1f} % | {row['max']:.0f} % | {row['within_5']:.0f} % | {covers} |"
        )
    return "\n".join(lines)


def _repeatability(result: dict[str, Any]) -> str:
    lines = [
        f"{result['runs']} runs in fresh processes, a core kept busy in every other one, by "
        f"`benchmarks/repeatability.py` ({result['device']}):",
        "",
        "| T0 against MobileNetV2, spread of ten runs | median | largest |",
        "|---|---|---|",
    ]
    lines += [
        f"| {name} | {spread['median']:.1f} % | {spread['largest']:.1f} % |"
        for name, spread in result["spread_percent"].items()
    ]
    inside = ", ".join(
        f"{count} ({name})" for name, count in result["intervals_that_contain_the_truth"].items()
    )
    return "\n".join(
        [
            *lines,
            "",
            f"Two networks {result['slower_by_percent']:.1f} % apart are ranked right in "
            f"{result['ranked_right']} of {result['runs']} runs. 95 % intervals contain the "
            "long-run "
            f"truth in {inside} runs.",
        ]
    )


def _paper_ratios(rows: list[dict[str, Any]]) -> str:
    lines = [
        f"By `benchmarks/paper_ratios.py` ({rows[0]['device'].split(',')[0]}, one thread; images "
        "of 256 pixels for MobileViT, as in the paper, of 224 for the others):",
        "",
        f"| faster than | runtime | here, {rows[0]['source']}, with 95 % interval | the paper |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['ours']} than {row['theirs']} | {row['runtime']} | {row['ratio']:.2f}x "
        f"({row['low']:.2f} to {row['high']:.2f}) | {row['paper']:.1f}x |"
        for row in rows
    ]
    return "\n".join(lines)


def _deployed_form(result: dict[str, Any]) -> str:
    """A row for each form, a column for each network; the same class in the worst of them."""
    rows, random = result["rows"], not all(result["trained"].values())
    networks = list(dict.fromkeys(row["network"] for row in rows))
    forms = dict.fromkeys((row["form"], row["runtime"], row["precision"]) for row in rows)
    weights = "random weights, with which that says little" if random else "trained"
    lines = [
        f"Latency by `benchmarks/deployed_form.py` ({result['device'].split(',')[0]}, one thread), "
        "as a multiple of what timm's own export takes in ONNX Runtime in fp32, with 95 % "
        f"intervals; the share of images ({result['images']}) that get the same class as in torch "
        f"is that of the worst network ({weights}):",
        "",
        f"| file, backend | {' | '.join(networks)} | same class |",
        "|---" * (len(networks) + 2) + "|",
    ]
    for form in forms:
        own = {
            row["network"]: row
            for row in rows
            if (row["form"], row["runtime"], row["precision"]) == form
        }
        cells = [_ratio(own[network]) for network in networks]
        same = [row["agreement"]["same"] for row in own.values() if row["agreement"]]
        shown = f"{min(same):.1f} %" if same else "-"
        lines.append(f"| {_form_words(*form)} | {' | '.join(cells)} | {shown} |")
    return "\n".join(lines)


def _ratio(row: dict[str, Any]) -> str:
    if row["refused"]:
        return "refused"
    return f"{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})"


def _form_words(form: str, runtime: str, precision: str) -> str:
    if form == "timm":
        return f"timm's export, {runtime} {precision}"
    if form == "floor":
        return f"without 3x3 convolutions, {runtime} {precision}"
    return f"{runtime} {precision}"


def _exporters(result: dict[str, Any]) -> str:
    """A table of T0's files; one of the small networks' accuracies."""
    t0, *small = result["networks"]
    columns = f"largest difference | correlation | same class | accuracy | lost |\n{'|---' * 6}|"
    lines = [
        f"By `benchmarks/exporters.py`: T0 with timm's weights ({t0['weights']}) through every "
        f"exporter, compared with torch on {_images(t0)}. A difference is one of logits, as a "
        "share of the largest; points lost have 95 % intervals, of the paired difference:",
        "",
        f"| `--to` | {columns}",
    ]
    lines += [f"| `{row['format']}` | {_exported(row)} |" for row in t0["rows"]]
    lines += [
        "",
        "What eight bits cost networks of `fasternet-32`'s kind, "
        f"{small[0]['weights']}, on {_images(small[0])}:",
        "",
        f"| network, `--to` | {columns}",
    ]
    lines += [
        f"| {network['network']}, `{row['format']}` | {_exported(row)} |"
        for network in small
        for row in network["rows"]
    ]
    return "\n".join(lines)


def _images(network: dict[str, Any]) -> str:
    counts = [row["agreement"]["images"] for row in network["rows"] if row["agreement"]]
    return f"{max(counts, default=0):,} {network['split']} images of {network['data']}"


def _exported(row: dict[str, Any]) -> str:
    found, lost = row["agreement"], row["lost"]
    if row["refused"] or not found:
        return " | ".join(["refused" if row["refused"] else "nothing to compute", *"----"])
    right = (
        "- | -"
        if not lost
        else (
            f"{found['accuracy']:.2f} % | {lost['points']:+.2f} "
            f"({lost['low']:+.2f} to {lost['high']:+.2f})"
        )
    )
    return (
        f"{found['difference']:.1e} | {found['correlation']:.4f} | {found['same']:.2f} % | {right}"
    )


def _ranking(result: dict[str, Any]) -> str:
    """A row for each score, and beside them the default's on networks that nobody had looked at."""
    statistics = result["statistics"]
    lines = [
        f"By `benchmarks/ranking.py` on {result['networks']} trained networks, with 95 % intervals "
        "(bootstrap; of the predictor, over splits); in bands, each is compared with those within "
        f"15 % of its latency, itself known to +-{result['half_width_percent']:.0f} %. The default "
        "was chosen by looking at some of the networks, so it is evaluated on the "
        f"{result['networks_unseen']} others too:",
        "",
        f"| | {' | '.join(statistics)} |",
        "|---" * (len(statistics) + 1) + "|",
    ]
    lines += [_ranking_row(name, row) for name, row in result["rows"].items()]
    lines += [
        _ranking_row(f"of the {result['networks_unseen']} others: {name}", row)
        for name, row in result["unseen"].items()
    ]
    return "\n".join(lines)


def _ranking_row(name: str, row: dict[str, dict[str, float]]) -> str:
    cells = [f"{c['value']:.2f} ({c['low']:.2f} to {c['high']:.2f})" for c in row.values()]
    return f"| {name} | {' | '.join(cells)} |"


def _searchers(where: str, result: dict[str, Any]) -> str:
    """A row for each searcher, the medians after each number of evaluations."""
    counts, tasks = result["evaluations"], result["quartiles"]
    header = [*(f"{n} evaluations" for n in counts), *(f"regret at {n}" for n in counts[:2])]
    lines = [
        f"Against other searchers on {where}, by `benchmarks/searchers.py`: the fraction of the "
        "largest hypervolume known and, within a budget, how many points are missed of the best "
        f"accuracy known (medians of {result['seeds']} seeds, with quartiles). `guided`, the "
        "default, knows costs before it evaluates; the others learn them on the way:",
        "",
        f"| | {' | '.join(header)} |",
        "|---" * (len(header) + 1) + "|",
    ]
    for name, fractions in tasks["hypervolume"].items():
        regrets = tasks["regret"][name][:2]
        cells = [*(_quartiles(q, 3) for q in fractions), *(_quartiles(q, 2) for q in regrets)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _quartiles(quartiles: list[float], digits: int) -> str:
    low, median, high = (f"{q:.{digits}f}" for q in quartiles)
    return f"{median} ({low} to {high})"


def _beats_the_hand(result: dict[str, Any]) -> str:
    """A row for each bar."""
    lines = [
        f"By `benchmarks/beats_the_hand.py`: {result['trials']} trials for each budget, both "
        f"networks then trained for {result['epochs']} epochs from three seeds on all but the test "
        "images (mean test accuracy, with the standard deviation over seeds; latencies are "
        "measured):",
        "",
        "| budget: the hand's latency | by hand | found | gain | found takes, of the hand's time |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        hand, found, times = row["hand"], row["found"], row["times_the_bar"]
        lines.append(
            f"| {row['bar_ms']:.3f} ms | {hand['mean']:.1f} % ({hand['deviation']:.1f}) "
            f"| {found['mean']:.1f} % ({found['deviation']:.1f}) | {row['gain']:+.1f} points "
            f"| {times['ratio']:.2f} ({times['low']:.2f} to {times['high']:.2f}) |"
        )
    return "\n".join([*lines, "", f"On average {result['gain']:+.1f} points."])


def _training_speed(result: dict[str, Any]) -> str:
    return (
        f"By `benchmarks/training_speed.py` ({result['network'].upper()}, batches of "
        f"{result['batch']} images of {result['resolution']} px, {result['device']}, "
        f"{result['threads']} threads that train, {result['loaders']} process that loads): "
        f"{result['ours']:.0f} images a second, {result['ratio']:.2f} times "
        f"({result['low']:.2f} to {result['high']:.2f}) as many as timm's own training loop, and "
        f"{result['ratio_kept']:.2f} times ({result['low_kept']:.2f} to "
        f"{result['high_kept']:.2f}) as many where that keeps its memory from step to step as ours."
    )


def _ray_overhead(result: dict[str, Any]) -> str:
    return (
        f"By `benchmarks/ray_overhead.py`: a trial takes {result['overhead_ms']:.1f} ms beside its "
        f"own time, {result['trials']:,} trials that sleep {result['sleep_s']:g} s reach "
        f"{100 * result['share_of_ideal']:.0f} % of the ideal on {result['workers']} workers, and "
        f"after {result['memory_trials']:,} trials the driver has {result['driver_mib']:.0f} MiB, "
        f"{result['growth_percent']:.0f} % more than after the first tenth."
    )


def _latency_transfer(result: dict[str, Any]) -> str:
    """A row for each pair of a device and its relative, with the mean errors after so many.

    Of networks that are chosen; of those drawn at random; of one factor.
    """
    counts = result["counts"][:-1]  # the last is not the same in all pairs
    lines = [
        f"| device, and what it starts from | {' | '.join(map(str, counts))} | timings' error |",
        "|---|" + "---|" * len(counts) + "---|",
    ]
    for pair, ways in result["pairs"].items():
        chosen, drawn, factor = (
            {row["networks"]: row["mean"] for row in rows if row}
            for rows in list(ways.values())[:3]
        )
        cells = [f"{chosen[n]:.1f} % ({drawn[n]:.1f} %, {factor[n]:.1f} %)" for n in counts]
        lines.append(f"| {pair} | {' | '.join(cells)} | {result['timing_errors'][pair]:.1f} % |")
    return "\n".join(lines)


def _device_pool(result: dict[str, Any]) -> str:
    runs = len(result["speedups"])
    return (
        f"By `benchmarks/device_pool.py`: three boards time {result['networks']} networks in "
        f"{fmean(result['three_boards_s']):.0f} s, one board in {fmean(result['one_board_s']):.0f} "
        f"s: {result['speedup']:.1f} times as many (mean of {runs} runs: "
        f"{', '.join(f'{ratio:.1f}' for ratio in result['speedups'])})."
    )


def _proposing(result: dict[str, Any]) -> str:
    times = ", ".join(
        f"{found['median']:.0f} ms by `{name}` after {found['trials']} trials"
        for name, found in result["proposal_ms"].items()
    )
    million = result["million_networks_s"]
    return (
        f"By `benchmarks/proposing.py`, CPU time on one core: a proposal takes {times}. Costs of a "
        f"million networks take {million['costs']:.1f} s, their latencies "
        f"{million['latencies']:.1f} s."
    )


def arm_profile() -> str:
    """Return how far the instructions and the milliseconds of the ARM profile are right."""
    profile = load_profile("raspberry_pi_5")
    lines = [
        f"{profile.board}, {profile.runtime} {profile.runtime_version}. Instructions of whole "
        f"networks are {percent(profile.mean_error)} off in the mean and "
        f"{percent(profile.max_error)} at most.",
        "",
        "| threads | stated interval | mean error | largest error | found on |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {threads} | \u00b1{percent(rates.interval)} | {percent(rates.mean_error)} "
        f"| {percent(rates.max_error)} | {rates.source} |"
        for threads, rates in profile.rates.items()
    ]
    return "\n".join(lines)


def arm_intervals() -> str:
    """Return the intervals that the ARM profile states."""
    rates = load_profile("raspberry_pi_5").rates
    return "\n".join(
        f"- `--threads {threads}`: \u00b1{percent(found.interval)}, with a mean error of "
        f"{percent(found.mean_error)} on networks that the rates were not fitted to."
        for threads, found in rates.items()
    )


def percent(share: float) -> str:
    """Return a share in per cent with two figures."""
    return f"{100 * share:.2g} %"


def arm_instructions() -> str:
    """Return what operators cost on ARM, by the loops of `predictors/aarch64`."""
    forms = load_profile("raspberry_pi_5").forms
    lines = ["| operator | on a map of | instructions a MAC |", "|---|---|---|"]
    for words, shape in _PRODUCTS:
        total, _ = count_shape(shape, forms)
        macs = sum(node_macs(node) for node in layer_nodes(shape))
        lines.append(f"| {words} | {_map_words(shape)} | {total / macs:.2f} |")
    lines += ["", "| operator | on a map of | instructions an element |", "|---|---|---|"]
    for words, shape in _ELEMENTWISE:
        total, _ = count_shape(shape, forms)
        elements = shape.c_in * shape.height * shape.width
        lines.append(f"| {words} | {_map_words(shape)} | {total / elements:.2f} |")
    return "\n".join(lines)


def _map_words(shape: LayerShape) -> str:
    return f"{shape.c_in} x {shape.height} x {shape.width}"


def _conv(c_in: int, c_out: int, side: int, **more: int) -> LayerShape:
    return LayerShape("conv", c_in, c_out, side, side, padded=True, bias=True, **more)


_PRODUCTS = (
    ("1x1 convolution", _conv(96, 192, 28)),
    ("1x1 convolution", _conv(384, 768, 7)),
    ("1x1 convolution", _conv(768, 1536, 2)),
    ("1x1 convolution of the pooled vector", _conv(320, 1280, 1)),
    ("the same as Gemm", LayerShape("linear", 320, 1280, 1, 1)),
    ("3x3 convolution, as in PConv, 8 channels", _conv(8, 8, 56, kernel=3)),
    ("3x3 convolution, as in PConv, 24 channels", _conv(24, 24, 28, kernel=3)),
    ("3x3 convolution, as in PConv, 96 channels", _conv(96, 96, 14, kernel=3)),
    ("3x3 convolution in 2 groups", _conv(96, 96, 14, kernel=3, groups=2)),
    ("depthwise 3x3", _conv(96, 96, 28, kernel=3, groups=96)),
    ("depthwise 3x3 of stride 2", _conv(96, 96, 28, kernel=3, stride=2, groups=96)),
    ("depthwise 3x3 of stride 2", _conv(384, 384, 14, kernel=3, stride=2, groups=384)),
    ("depthwise 5x5", _conv(96, 96, 28, kernel=5, groups=96)),
)


def _elementwise(op: Op) -> LayerShape:
    return LayerShape(op, 96, 96, 28, 28, bias=True)


_ELEMENTWISE = (
    ("ReLU, fused into the convolution before", _elementwise("relu")),
    ("hardswish", _elementwise("hardswish")),
    ("GELU", _elementwise("gelu")),
    ("addition of two maps", _elementwise("add")),
    ("split and concatenation of PConv", _elementwise("split_concat")),
)


OF_THE_CODE: dict[str, Callable[[], str]] = {
    "photo_rates": photo_rates,
    "photo_bench": photo_bench,
    "photo_ranking": photo_ranking,
    "short_trainings": short_trainings,
    "backends": backends,
    "arm_profile": arm_profile,
    "arm_intervals": arm_intervals,
    "arm_instructions": arm_instructions,
}
TABLES: dict[str, Callable[[Any], str]] = {
    "latency_predictor-cpu": partial(_latency_predictor, "fasternet"),
    "latency_predictor-cpu-pconv": partial(_latency_predictor, "pconv"),
    "latency_transfer-cpu": _latency_transfer,
    "repeatability-cpu": _repeatability,
    "paper_ratios-cpu": _paper_ratios,
    "deployed_form": _deployed_form,
    "exporters": _exporters,
    "training_speed": _training_speed,
    "device_pool": _device_pool,
    "fit_top1": published_left_out,
    "ingredients": ingredients,
    "found_on_photos": found_on_photos,
    "proposing": _proposing,
    "ray_overhead": _ray_overhead,
    "ranking": _ranking,
    "beats_the_hand-cifar10_10k_2k": _beats_the_hand,
    "searchers-nas_bench_macro": partial(
        _searchers, "NAS-Bench-Macro's 6,561 trained networks (arXiv 2103.11922)"
    ),
    "searchers-pconv_bench-cifar10_10k_2k": partial(
        _searchers, "`fasternet-32`, accuracies and latencies predicted by models of PConv-Bench"
    ),
}

if __name__ == "__main__":
    main()

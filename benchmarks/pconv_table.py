"""The table of PConv-Bench and what it says of itself, from the records of trainings and timings.

python benchmarks/pconv_table.py benchmarks/results/pconv_bench-NAME
"""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from rank_correlation import kendall

from nas.study import journal
from predictors.cost import cost
from search_spaces.fasternet import SPACES
from search_spaces.space import Space

Row = Mapping[str, Any]

LATENCY = ("median_ms", "low_ms", "high_ms")


def write_table(folder: Path, space: Space[Any]) -> None:
    """Write table.csv, a line a training, and README.md, which describes it."""
    trainings = journal.read(folder / "trainings.jsonl")
    if not trainings:
        return
    latencies = {tuple(row["genes"]): row for row in journal.read(folder / "latencies.jsonl")}
    lines = [_line(space, row, latencies.get(tuple(row["genes"]), {})) for row in trainings]
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    (folder / "README.md").write_text(_description(folder, trainings, latencies))


def _line(space: Space[Any], row: Row, ms: Row) -> dict[str, Any]:
    found = cost(space.decode(tuple(row["genes"])))
    choices = [gene.choices[i] for gene, i in zip(space.genes, row["genes"], strict=True)]
    return {
        **dict(zip(space.names, choices, strict=True)),
        "seed": row["seed"],
        "macs": found.macs,
        "params": found.params,
        **{name: f"{ms[name]:.4g}" if ms else "" for name in LATENCY},
        "unstable": int(ms["unstable"]) if ms else "",
        **{f"epoch_{i}": f"{a:.2f}" for i, a in enumerate(row["accuracies"], start=1)},
    }


def _description(folder: Path, trainings: Sequence[Row], latencies: Mapping[Any, Row]) -> str:
    networks = {tuple(row["genes"]) for row in trainings}
    by_seed = _by_seed(trainings)
    first = trainings[0]
    recipe = {k: v for k, v in first["recipe"].items() if k != "seed"}
    devices = sorted({row["device"] for row in latencies.values()}) or ["not timed yet"]
    data = folder.name.partition("-")[2]
    return f"""# PConv-Bench on {data}

{len(networks)} FasterNets of the space `fasternet-32`, each really trained from scratch, {len(trainings)} trainings in all.
{sum(len(runs) > 1 for runs in by_seed.values())} of the networks were trained from several seeds. Written by `benchmarks/pconv_table.py`.

## Columns of table.csv

| column | what it is |
|---|---|
| `widths[0]` ... | the choices, as `fasternas spaces fasternet-32` lists them |
| `seed` | of the initial weights and of the order of images |
| `macs`, `params` | of one inference with batch norms folded; parameters when training |
| `median_ms`, `low_ms`, `high_ms` | measured latency with its 95 % interval: {"; ".join(devices)} |
| `unstable` | 1 where that interval is wider than +-2 % or processes contradict one another |
| `epoch_1` ... | accuracy in percent on the test split after each epoch |

{_precision(latencies)}

## Recipe

All training images, none held out; nothing was chosen by the test split but this recipe's learning
rate, warm-up and augmentation, on one network and by eye.

    {json.dumps(recipe)}

The accuracy after the last epoch is the network's. It lies between {_extremes(trainings)} %.

## Noise ceiling

{_noise(by_seed)}

{_again(data)}"""  # noqa: E501 - lines of a document


def _again(data: str) -> str:
    return f"""## How to make it again

    python benchmarks/pconv_bench_32.py --data {data}.npz --latency
    python benchmarks/pconv_bench_32.py --data {data}.npz
    python benchmarks/pconv_bench_32.py --data {data}.npz --latency

Each goes on where it ended. The second trains the first networks, stops where it needs the
latencies of all of them, and is begun again after the third. Two more numbers of each network,
for `benchmarks/ranking.py`, are not in the table. The first is made by

    python benchmarks/pconv_bench_32.py --data {data}.npz --early

`early.jsonl` has the accuracy of averaged weights after an eighth of the training from the first
seed, and `supernet.jsonl` how likely the labels were, in percent, with a supernet's weights. The
supernet is gone: commit 516b2e2 is the last that has it, and `benchmarks/pconv_supernet.py`.
"""


def _precision(latencies: Mapping[Any, Row]) -> str:
    if not latencies:
        return "Nothing is timed yet."
    widths = [(r["high_ms"] - r["low_ms"]) / 2 / r["median_ms"] for r in latencies.values()]
    return (
        f"The latencies' intervals reach {100 * fmean(widths):.1f} % to each side on average; "
        f"{sum(r['unstable'] for r in latencies.values())} of {len(widths)} are unstable."
    )


def _by_seed(trainings: Sequence[Row]) -> dict[Any, dict[int, float]]:
    found: dict[Any, dict[int, float]] = {}
    for row in trainings:
        found.setdefault(tuple(row["genes"]), {})[row["seed"]] = row["accuracies"][-1]
    return found


def _extremes(trainings: Sequence[Row]) -> str:
    last = [row["accuracies"][-1] for row in trainings]
    return f"{min(last):.1f} and {max(last):.1f}"


def _noise(by_seed: Mapping[Any, Mapping[int, float]]) -> str:
    several = [runs for runs in by_seed.values() if len(runs) > 1]
    if len(several) < 2:
        return "Not known before some networks are trained from several seeds."
    scatter = fmean(pstdev(runs.values()) ** 2 * len(runs) / (len(runs) - 1) for runs in several)
    seeds = sorted(set.intersection(*(set(runs) for runs in several)))
    taus = [
        kendall([runs[a] for runs in several], [runs[b] for runs in several])
        for a, b in combinations(seeds, 2)
    ]
    spread = pstdev(fmean(runs.values()) for runs in several)
    return (
        f"Of the {len(several)} networks with several seeds, accuracies of one scatter by "
        f"{scatter**0.5:.2f} points (standard deviation)\nand those of different networks by "
        f"{spread:.2f}; one seed ranks them as another does with Kendall's tau "
        f"{fmean(taus):.3f}."
    )


if __name__ == "__main__":
    write_table(Path(sys.argv[1]), SPACES["fasternet-32"])

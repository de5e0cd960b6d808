"""What runtime and precision make of a network, against timm's own export of it in fp32.

    python benchmarks/deployed_form.py [--data DATA] [--weights t0=FILE ...] [--found FILE ...]

T0, T1, T2, S and two networks that searches found, in every runtime and precision that is installed
here. 1.00 is the same network as timm exports it, in ONNX Runtime; beside it is the floor, the
network without its 3x3 convolutions. All forms of a network take turns, a fresh process a turn, in
an order drawn anew; those in ONNX Runtime in fp32 alternate block by block. The share of images
that get the same class as in torch is of validation images of `--data`, or of noise; weights that
are not given are random, and then it says little. Prints a table and writes
benchmarks/results/deployed_form.json; `--quick` takes T0 alone, twice, and writes only to `--out`.
"""

import argparse
import json
import platform
import random
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from deployed_forms import Contender, contenders_of

from nas.finetune.export import find_weights, real_images
from predictors.backends.agreement import Batches
from predictors.backends.model import checkpoint_model
from predictors.backends.table import Runtime, installed_version, runtime_names, runtimes
from predictors.devices.registry import open_device
from predictors.measurement import Comparison, Latency, estimate, paired_ratios
from predictors.training.evaluate import RandomImages
from search_spaces.io import one_line

HERE = Path(__file__).parent
FOUND = (HERE / "found" / "cpu-5ms.yaml", HERE / "found" / "cpu-10ms.yaml")
SIZES = ("t0", "t1", "t2", "s")
TURNS, QUICK_TURNS = 7, 2
NOISE = 64  # images, where there are no real ones
PLAIN = ("onnxruntime", "fp32")  # the first runtime: in it are timm's export and the floor


@dataclass(frozen=True, kw_only=True)
class Turns:
    """What was timed of each contender, a measurement a turn, and what devices refused to time."""

    measured: dict[Contender, list[Latency]]
    refused: dict[Contender, str]


def main() -> None:
    """Export, evaluate, time in turn, write."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="fasternas-") as folder:
        contenders = [
            found for name in options.networks for found in _contenders(name, options, Path(folder))
        ]
        turns = timed(contenders, options.device, turns=options.turns)
    rows = [_row(contender, turns, _timms(contender, contenders)) for contender in contenders]
    result = {
        "device": open_device(options.device).description,
        "turns": options.turns,
        "seed": 0,
        "images": Path(options.data).name if options.data else "noise",
        "platform": platform.platform(),
        "versions": {
            name: found
            for name in ("timm", "onnx", *(r.package for r in runtimes()))
            if (found := installed_version(name))
        },
        "trained": {Path(name).stem: _weights(name, options)[1] for name in options.networks},
        "rows": rows,
    }
    for row in rows:
        print(words(row))
    if options.out is not None:
        (options.out / "deployed_form.json").write_text(json.dumps(result, indent=2) + "\n")


def timed(contenders: Sequence[Contender], device: str, *, turns: int) -> Turns:
    """Time all that is not refused in so many turns.

    The forms of a network follow one another, so that little time lies between them.
    """
    rng, found = random.Random(0), Turns(measured={}, refused={})
    groups: dict[tuple[str, ...], list[Contender]] = {}
    for c in contenders:
        groups.setdefault((c.network, c.runtime, c.precision), []).append(c)
    for turn in range(turns):
        for network in dict.fromkeys(c.network for c in contenders):
            own = [key for key in groups if key[0] == network]
            for key in rng.sample(own, len(own)):
                _time(groups[key], device, found)
            print(f"turn {turn + 1} of {turns}: {network}", flush=True)
    return found


def words(row: dict[str, Any]) -> str:
    """Say a row of the result in one line."""
    what = f"{row['network']}, {row['form']} in {row['runtime']} {row['precision']}"
    if row["refused"]:
        return f"{what}: refused: {row['refused']}"
    found = row["agreement"]
    same = "" if not found else f"; the same class for {found['same']:.1f} % of {found['images']}"
    return (
        f"{what}: {row['ratio']:.3f} ({row['low']:.3f} to {row['high']:.3f}), "
        f"{row['ms']:.3g} ms{same}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--data", help="as `fasternas search --data` takes it (noise)")
    parser.add_argument("--images", type=int, default=500, help="of --data to compare (500)")
    parser.add_argument(
        "--weights",
        nargs="*",
        default=[],
        metavar="NETWORK=FILE",
        help="as `fasternas export --weights` takes them (random)",
    )
    parser.add_argument(
        "--found",
        nargs="*",
        default=FOUND,
        metavar="FILE",
        help="configs or checkpoints besides T0 to S",
    )
    parser.add_argument("--sizes", nargs="*", default=SIZES, help="of T0 to L (t0 t1 t2 s)")
    parser.add_argument(
        "--runtime",
        nargs="*",
        choices=runtime_names(),
        help="those to time (all, but for torch-compiled)",
    )
    parser.add_argument("--turns", type=int, help=f"({TURNS})")
    parser.add_argument("--quick", action="store_true", help="T0 alone, two turns, writes nothing")
    parser.add_argument("--out", type=Path, help="folder of the result")
    options = parser.parse_args()
    options.networks = [*options.sizes, *map(str, options.found)]
    if options.quick:
        options.networks = options.networks[:1]
    options.turns = options.turns or (QUICK_TURNS if options.quick else TURNS)
    if options.out is None and not options.quick:
        options.out = HERE / "results"
    return options


def _contenders(name: str, options: argparse.Namespace, folder: Path) -> list[Contender]:
    checkpoint, trained = _weights(name, options)
    real = None
    if options.data:
        real = real_images(options.data, checkpoint, trained=trained, count=options.images)
    model = checkpoint_model(
        Path(name).stem,
        checkpoint,
        calibration_images=None if real is None else real.calibration_images(1),
    )
    images: Batches = real or RandomImages(shape=model.shape, count=NOISE)
    return list(contenders_of(model, _runtimes(options.runtime), images, folder / model.name))


def _weights(name: str, options: argparse.Namespace) -> tuple[Any, bool]:
    given = dict(entry.split("=", 1) for entry in options.weights)
    return find_weights(name, weights=given.get(name))


def _runtimes(names: Sequence[str] | None) -> list[Runtime]:
    """Those that are asked for; ONNX Runtime in fp32 is what all are compared in."""
    wanted = names or [name for name in runtime_names() if name != "torch-compiled"]
    return [
        runtime
        for runtime in runtimes()
        if (runtime.name, runtime.precision) == PLAIN
        or (runtime.name in wanted and runtime.version)
    ]


def _time(group: Sequence[Contender], device: str, found: Turns) -> None:
    """Time what one runtime runs at one precision side by side, in one process."""
    entered = {c: c.model for c in group if c.model and c not in found.refused}
    if not entered:
        return
    try:
        opened = open_device(device, runtime=group[0].runtime, precision=group[0].precision)
        timings = list(opened.measure_each(list(entered.values()), repeats=1))
    except (ValueError, RuntimeError) as error:
        found.refused.update(dict.fromkeys(entered, one_line(error)))
        return
    for contender, measurement in zip(entered, timings, strict=True):
        found.measured.setdefault(contender, []).append(measurement)


def _timms(contender: Contender, contenders: Sequence[Contender]) -> Contender:
    return next(c for c in contenders if (c.network, c.form) == (contender.network, "timm"))


def compare_in_turn(first: Sequence[Latency], second: Sequence[Latency]) -> Comparison:
    """Compare what was timed in turn, by a process each time, in whatever runtimes.

    What the machine's speed is at the time is in both of a turn, so it is the blocks' own
    milliseconds that are divided, not those by the references, which differ from runtime to
    runtime.

    Raises:
        ValueError: if the turns are not as many, or none, or one was not timed.
    """
    if len(first) != len(second) or not first:
        raise ValueError(
            f"`first` and `second` must be timed in as many turns, but got {len(first)} and "
            f"{len(second)}."
        )
    pairs = zip(first, second, strict=True)
    turns = [turn for m, n in pairs for turn in zip(m.samples_ms, n.samples_ms, strict=True)]
    if not turns:
        raise ValueError("`first` and `second` must be timed, but have no samples.")
    found = estimate([paired_ratios(a, b) for a, b in turns])
    return Comparison(ratio=found.median, low=found.low, high=found.high, source="measured")


def _row(contender: Contender, turns: Turns, timms: Contender) -> dict[str, Any]:
    row: dict[str, Any] = {
        "network": contender.network,
        "form": contender.form,
        "runtime": contender.runtime,
        "precision": contender.precision,
        "refused": contender.refusal or turns.refused.get(contender, ""),
        "agreement": contender.agreement and asdict(contender.agreement),
    }
    if row["refused"]:
        return row
    own = turns.measured[contender]
    found = compare_in_turn(turns.measured[timms], own)
    return {
        **row,
        "ratio": found.ratio,
        "low": found.low,
        "high": found.high,
        "ms": median(median(blocks) for m in own for blocks in m.samples_ms),
    }


if __name__ == "__main__":
    main()

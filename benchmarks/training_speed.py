"""Is full training as fast as timm's? Images per second of both, on one network, batch and machine.

    python benchmarks/training_speed.py [--network t0] [--batch 32] [--data FOLDER] [--quick]

Ours is what `fasternas train` runs. timm's is the loop of its train.py, which the package does not
bring, from timm's own loader, augmentation, mixup, optimizer, schedule and loss; both by the
published recipe, at one resolution. A third keeps its memory as ours does, which timm's does not,
and is timm's loop otherwise. They take turns, each a fresh process with some steps that are not
timed. Images are those of `--data` (a folder of classes in `train` and `val`), or JPEGs of noise.
Prints the ratios and writes benchmarks/results/training_speed.json; `--quick` takes few steps of
small images, and writes only to `--out`.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, get_args

import numpy as np
from training_sides import Side, Workload

from predictors.measurement import estimate, ratios

HERE = Path(__file__).parent
ROUNDS, QUICK_ROUNDS = 7, 3
SIDE = 320  # pixels of the JPEGs, of which random crops are taken
CLASSES = 10
SIDES: tuple[Side, ...] = get_args(Side)

Speeds = dict[Side, list[list[float]]]  # images per second, by round and block


def main() -> None:
    """Train in turn, compare, write."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="fasternas-") as folder:
        workload = _workload(options, Path(folder))
        if options.data is None:
            write_noise(Path(folder), workload)
        found = in_turn(workload, rounds=options.rounds)
    data = Path(options.data).name if options.data else "noise"
    result = {
        **asdict(replace(workload, data=data)),
        **compared(found),
        "images_per_s": found,
        "seed": 0,
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "versions": {name: version(name) for name in ("torch", "timm")},
    }
    print(
        f"{workload.network}, batch {workload.batch}: ours {result['ours']:.3g}, timm's "
        f"{result['timm']:.3g} images a second, {_words(result, '')}, where timm's keeps its "
        f"memory {result['timm_kept']:.3g}, {_words(result, '_kept')}"
    )
    if options.out is not None:
        (options.out / "training_speed.json").write_text(json.dumps(result, indent=2) + "\n")


def in_turn(workload: Workload, *, rounds: int) -> Speeds:
    """Run both in every round, in an order drawn anew, each in a process of its own."""
    rng = random.Random(0)
    found: Speeds = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side in rng.sample(SIDES, len(SIDES)):
            command = [
                sys.executable,
                str(HERE / "training_sides.py"),
                side,
                json.dumps(asdict(workload)),
            ]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[side].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{side}: {median(found[side][-1]):.4g} images a second", flush=True)
    return found


def compared(found: Mapping[Side, Sequence[Sequence[float]]]) -> dict[str, float]:
    """How many times timm's images per second ours are, with 95 % intervals, and the medians."""
    result = {str(side): median(map(median, found[side])) for side in SIDES}
    for other, name in ((found["timm"], ""), (found["timm_kept"], "_kept")):
        both = zip(found["ours"], other, strict=True)
        ratio = estimate([ratios(*blocks) for blocks in both])
        result |= {f"ratio{name}": ratio.median, f"low{name}": ratio.low, f"high{name}": ratio.high}
    return result


def write_noise(folder: Path, workload: Workload) -> None:
    """Write JPEGs in `train` and `val`, dealt out to the classes; noise that compresses as photos.

    There are as many in `train` as are needed.
    """
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, count in (("train", workload.images), ("val", workload.classes)):
        for i in range(count):
            path = folder / split / f"class{i % workload.classes}" / f"{i:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(
                rng.integers(0, 256, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
            )
            coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path, quality=90)


def _words(result: Mapping[str, Any], name: str) -> str:
    low, high = result[f"low{name}"], result[f"high{name}"]
    return f"{result[f'ratio{name}']:.3f} times as many ({low:.3f} to {high:.3f})"


def _workload(options: argparse.Namespace, noise: Path) -> Workload:
    folder = Path(options.data or noise)
    classes = len(list((folder / "train").iterdir())) if options.data else CLASSES
    workload = Workload(
        data=str(folder),
        classes=classes,
        network=options.network,
        batch=options.batch,
        threads=options.threads,
        loaders=options.loaders,
        device=options.device,
    )
    if options.quick:
        return replace(workload, resolution=96, batch=4, warm_up=1, steps=1, blocks=2)
    return workload


def _options() -> argparse.Namespace:
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="t0", help="t0 to l (t0)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--data", help="a folder with train/CLASS/IMAGE and val (noise)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=cores, help=f"that train ({cores})")
    parser.add_argument(
        "--loaders",
        type=int,
        default=max(cores - 1, 1),
        help=f"processes that decode ({max(cores - 1, 1)})",
    )
    parser.add_argument("--rounds", type=int, help=f"({ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="few steps; writes nothing")
    parser.add_argument("--out", type=Path, help="folder of the result")
    options = parser.parse_args()
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    if options.out is None and not options.quick:
        options.out = HERE / "results"
    return options


if __name__ == "__main__":
    main()

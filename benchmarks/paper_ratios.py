"""The paper's two headline comparisons, timed side by side on a device.

    python benchmarks/paper_ratios.py [--device cpu]

FasterNet-T0 against MobileViT-XXS, and FasterNet-L against Swin-B, in torch eager, which the paper
used on its CPU, and in ONNX Runtime; batch norm folded, one thread, batch 1, MobileViT at its own
256 pixels as in the paper (arXiv 2303.03667). Prints a table and writes
benchmarks/results/paper_ratios-DEVICE.json.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nas.bench import plain_name
from predictors.backends.model import Model, config_model, timm_model
from predictors.devices.registry import open_device
from predictors.measurement import compare
from search_spaces.fasternet import FASTERNET

PROCESSES = 3  # of the slowest pair, each takes minutes
RESULTS = Path(__file__).parent / "results"
PAPER = {"FasterNet-T0": 3.3, "FasterNet-L": 349.2 / 219.5}  # how often as fast on an i9-9900X


def main() -> None:
    """Time, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    pairs = [
        (config_model(FASTERNET["t0"], name="FasterNet-T0"), timm_model("mobilevit_xxs")),
        (
            config_model(FASTERNET["l"], name="FasterNet-L"),
            timm_model("swin_base_patch4_window7_224"),
        ),
    ]
    rows = [
        _row(options.device, runtime, pair)
        for pair in pairs
        for runtime in ("torch", "onnxruntime")
    ]
    results = RESULTS / f"{plain_name('paper_ratios', options.device)}.json"
    results.write_text(json.dumps(rows, indent=2) + "\n")


def _row(device_name: str, runtime: str, pair: tuple[Model, Model]) -> dict[str, Any]:
    device = open_device(device_name, runtime=runtime)
    ours, theirs = device.measure_each(pair, repeats=PROCESSES)
    found = compare(ours, theirs)
    print(f"{runtime}: {found.words(pair[0].name, pair[1].name)}", flush=True)
    return {
        "device": device.description,
        "runtime": runtime,
        "ours": pair[0].name,
        "theirs": pair[1].name,
        "ours_ms": ours.median_ms,
        "theirs_ms": theirs.median_ms,
        "paper": PAPER[pair[0].name],
        **asdict(found),
    }


if __name__ == "__main__":
    main()

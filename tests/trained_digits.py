"""Two networks that have learned something of scikit-learn's digits, and runs that found them."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from nas.study.options import SearchOptions
from search_spaces.fasternet import FasterNetConfig

SMALL = FasterNetConfig(
    widths=(16, 32),
    depths=(1, 1),
    partial_ratios=(0.25, 0.5),
    expansions=(2.0, 2.0),
    resolution=8,
    stem_stride=2,
    head_width=32,
    classes=10,
)
CONFIGS = {"small": SMALL, "large": replace(SMALL, widths=(32, 64))}


def train_command(folder: Path, *names: str) -> list[str]:
    """The command that trains the configs of these names in a folder."""
    configs = [str(folder / f"{name}.yaml") for name in names]
    return ["train", *configs, "--data", "digits", "--out", str(folder / "out"), "--gpus", "0"]


def run_with(networks: Path, **options: Any) -> Path:
    """A run folder whose front are the two networks, which are trained already."""
    run = networks / "run"
    (run / "configs").mkdir(parents=True)
    lines = ["config,accuracy,ratio"]
    for i, name in enumerate(CONFIGS):
        shutil.copyfile(networks / f"{name}.yaml", run / "configs" / f"{name}.yaml")
        lines.append(f"configs/{name}.yaml,{50 + i},{1 + i}")
    (run / "pareto.csv").write_text("\n".join(lines) + "\n")
    asked = SearchOptions(space="fasternet-32", accuracy="train", data="digits", **options)
    (run / "run.json").write_text(json.dumps({"options": asked.as_json()}))
    shutil.copytree(networks / "out", run / "trained")
    return run


def final_rows(folder: Path) -> dict[str, dict[str, str]]:
    """The rows of its final table by network."""
    with (folder / "final.csv").open(newline="") as file:
        return {row["network"]: row for row in csv.DictReader(file)}

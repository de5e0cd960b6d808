"""Does each exported file say what torch says?

    python benchmarks/exporters.py --data DATA --small-data DATA [--weights FILE]

T0 with timm's weights goes through every exporter that is installed, and each file is compared with
torch on validation images of `--data`. `--weights` takes timm's checkpoint of `fasternet_t0`;
without it, timm's own module is trained for a while, on smaller images. Two small networks, with
ReLU and with GELU, are trained by `fasternas train` on `--small-data` (Debian's Fashion-MNIST, say)
and go through the exporters of ONNX Runtime and OpenVINO; their accuracy is that on the whole test
split. Int8 is calibrated with training images, as `fasternas export` does. What was trained is kept
in `--kept`, so that it goes on where it ended. Prints a line for each file and writes
benchmarks/results/exporters.json.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from export_subjects import PUBLISHED, Exported, Short, given_t0, trained_small, trained_t0
from provenance import provenance

from nas.finetune.export import Export, export_each
from predictors.backends.table import Run, Runtime, formats, installed_version

RESULTS = Path(__file__).parent / "results"
SMALL_RESOLUTION = 64  # px, of T0 where it has to be trained
SMALL_TARGETS = ("onnx", "onnx-int8", "openvino", "openvino-int8")
DEVIATIONS = 1.959964  # of a normal distribution, between which 95 % of it lie


@dataclass(frozen=True, kw_only=True)
class Paired:
    """On how many images torch alone is right, and the file alone; what the file lost thereby."""

    images: int
    only_torch: int
    only_file: int

    @property
    def lost(self) -> float:
        """Accuracy, in points, that torch has and the file has not."""
        return 100 * (self.only_torch - self.only_file) / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """Agresti's and Min's of 95 % for matched shares, in points (Stat. Med. 24, 729-740, 2005).

        Half an image more in each cell of the table: no interval has no width.
        """
        n, b, c = self.images + 2, self.only_torch + 0.5, self.only_file + 0.5
        half = DEVIATIONS * math.sqrt(b + c - (b - c) ** 2 / n)
        return 100 * (b - c - half) / n, 100 * (b - c + half) / n


def main() -> None:
    """Train what is missing, export, compare, write."""
    options = _options()
    options.kept.mkdir(parents=True, exist_ok=True)
    networks = [_compared(exported, _targets(names)) for exported, names in _subjects(options)]
    result = {
        "networks": networks,
        **provenance("torch", "timm", "onnx", "onnxruntime"),
        "runtimes": {
            name: found
            for line in formats().values()
            for name in line.module.PACKAGES
            if (found := installed_version(name))
        },
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "exporters.json").write_text(json.dumps(result, indent=2) + "\n")


def paired(exported: Exported, run: Run) -> Paired:
    """Count on which images torch and a file differ in being right."""
    network, images = exported.model.network(), 0
    only_torch = only_file = 0
    for batch, labels in exported.images(exported.model.at_once):
        with torch.no_grad():
            reference = network(batch).argmax(1) == labels
        ours = run(batch)[0].reshape(len(batch), -1).argmax(1) == labels
        images += len(batch)
        only_torch += int((reference & ~ours).sum())
        only_file += int((ours & ~reference).sum())
    return Paired(images=images, only_torch=only_torch, only_file=only_file)


def words(network: str, row: dict[str, Any]) -> str:
    """Say a row of the result in one line."""
    what = f"{network} as {row['format']}"
    if row["refused"]:
        return f"{what}: refused: {row['refused']}"
    found, lost = row["agreement"], row["lost"]
    if found is None:
        return f"{what}: written, there is nothing to compute"
    said = (
        f"{what}: differs by {found['difference']:.1e}, correlates by "
        f"{found['correlation']:.4f}, the same class for {found['same']:.2f} % of "
        f"{found['images']} images"
    )
    if lost is None:
        return said
    return (
        f"{said}; {found['accuracy']:.2f} % right, {lost['points']:+.2f} points lost "
        f"({lost['low']:+.2f} to {lost['high']:+.2f})"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="for T0, as `fasternas export` takes it")
    parser.add_argument("--small-data", required=True, help="for the small networks")
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="timm's checkpoint of fasternet_t0 (trained here)",
    )
    parser.add_argument(
        "--resolution", type=int, help=f"of T0 in px ({PUBLISHED}; trained: {SMALL_RESOLUTION})"
    )
    parser.add_argument("--images", type=int, default=500, help="of --data to compare (500)")
    parser.add_argument("--epochs", type=int, default=10, help="of T0 where it is trained (10)")
    parser.add_argument("--small-epochs", type=int, default=8, help="of the small networks (8)")
    known = list(formats())
    parser.add_argument("--to", nargs="*", choices=known, default=known, help="(all installed)")
    parser.add_argument(
        "--kept", type=Path, default=RESULTS / "exporters", help="folder of what is trained"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result")
    return parser.parse_args()


def _subjects(options: argparse.Namespace) -> Iterator[tuple[Exported, Sequence[str]]]:
    """What is exported, and to what; each is trained when its turn comes."""
    common: dict[str, Any] = {"count": options.images, "folder": options.kept}
    if options.weights:
        yield (
            given_t0(
                options.weights, options.data, resolution=options.resolution or PUBLISHED, **common
            ),
            options.to,
        )
    else:
        short = Short(
            data=options.data,
            resolution=options.resolution or SMALL_RESOLUTION,
            epochs=options.epochs,
        )
        yield trained_t0(short, **common), options.to
    small = [name for name in options.to if name in SMALL_TARGETS]
    for exported in trained_small(
        options.small_data, epochs=options.small_epochs, folder=options.kept
    ):
        yield exported, small


def _targets(names: Sequence[str]) -> list[Runtime]:
    """Those that are installed here."""
    return [
        line
        for line in formats().values()
        if line.format in names and all(map(installed_version, line.module.PACKAGES))
    ]


def _compared(exported: Exported, targets: Sequence[Runtime]) -> dict[str, Any]:
    """Export to each target; print what came of it and return it."""
    model, rows = exported.model, []
    with tempfile.TemporaryDirectory(prefix="fasternas-") as folder:
        for export in export_each(model, targets, Path(folder), exported.images):
            rows.append(_row(exported, export))
            print(words(model.name, rows[-1]), flush=True)
    return {
        "network": model.name,
        "weights": exported.weights,
        "resolution": model.shape[-1],
        "data": Path(exported.images.data.name).name,
        "split": exported.split,
        "rows": rows,
    }


def _row(exported: Exported, export: Export) -> dict[str, Any]:
    lost, line = None, export.runtime
    run = None if export.refusal else line.module.run(exported.model, export.path, line)
    if run and exported.images.labelled:
        found = paired(exported, run)
        low, high = found.interval
        lost = {"points": found.lost, "low": low, "high": high, **asdict(found)}
    return {
        "format": line.format,
        "int8": line.precision == "int8",
        "refused": export.refusal,
        "agreement": export.agreement and asdict(export.agreement),
        "lost": lost,
    }


if __name__ == "__main__":
    main()

"""The options that say where networks are timed and how, of every command that times."""

import argparse
from collections.abc import Callable
from typing import get_args

from nas.cli.arguments import by_device, device, either, positive, word
from predictors.backends.table import Precision, runtime_names

PRECISIONS = f"{either(get_args(Precision))}, what the runtime has"


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add one device, and how it times."""
    parser.add_argument(
        "--device",
        type=device,
        default="cpu",
        help="see `fasternas devices` (cpu); boards of one kind: pi1,pi2",
    )
    _add_how(parser, str, int)


def add_devices(parser: argparse.ArgumentParser) -> None:
    """Add one device or, by naming the option again, several; and how each times."""
    parser.add_argument(
        "--device", type=device, action="append",
        help="see `fasternas devices` (cpu); boards of one kind: pi1,pi2; again for each further "
             "device, with a budget of its own",
    )  # fmt: skip
    _add_how(parser, by_device(word), by_device(int))


def _add_how(
    parser: argparse.ArgumentParser, name: Callable[[str], object], number: Callable[[str], object]
) -> None:
    add = parser.add_argument
    add(
        "--runtime",
        type=name,
        help=f"{either(runtime_names())}, or auto: what is fastest; of several with commas, each "
        "network's fastest (as registered, or onnxruntime)",
    )
    add("--precision", type=name, help=f"{PRECISIONS}, or several (as registered, or fp32)")
    add("--threads", type=number, help="threads of one inference (as registered, or 1)")


def add_timing(parser: argparse.ArgumentParser) -> None:
    """Add how many images, and how many processes."""
    parser.add_argument("--batch", type=positive, default=1, metavar="N",
                        help="images that one inference takes (1)")  # fmt: skip
    parser.add_argument("--repeats", type=positive, default=7, metavar="N",
                        help="fresh processes that time each network (7)")  # fmt: skip

"""The options of `fasternas export`, apart from the rest so that `--help` loads nothing else."""

import argparse

from nas.cli.arguments import batch, positive, word, words

FORMATS = "onnx, onnx-int8, openvino, openvino-int8, ncnn, torch, torchscript, timm, yaml"


def add_export_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add = parser.add_argument
    add("network", metavar="NETWORK", help="a checkpoint or config file, t0 to l")
    add("--to", type=words, default=("onnx",), metavar="F[,F]", help=f"{FORMATS} (onnx)")
    add("--weights", type=word, metavar="FILE",
        help="the weights of a config, under timm's names (random)")  # fmt: skip
    add("--data", type=word, metavar="DATA",
        help="to calibrate int8 and to check with, as search takes it (noise)")  # fmt: skip
    add("--images", type=positive, default=500, metavar="N",
        help="validation images to check with (500)")  # fmt: skip
    add("--features", action="store_true", help="the backbone: the map after each stage")
    add("--batch", type=batch, metavar="N", help="images at once, or dynamic (dynamic)")
    add("--out", type=word, default="exports", metavar="DIR", help="the folder for them (exports)")

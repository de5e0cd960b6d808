"""The lines that a backend adds to the table of runtimes.

    fasternas measure t0 --runtime onnxruntime-plain
    fasternas export t0 --to onnxruntime-plain

The entry point bears the runtime's name. There is a line for each precision that it has.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import fasternas as fn
from my_lab import plain_onnxruntime

LINES = (fn.Runtime("onnxruntime-plain", "fp32", "onnx-plain", plain_onnxruntime),)


def main() -> None:
    """Write a network in its format; the file is checked against PyTorch on the way."""
    (line,) = LINES
    config = replace(fn.FASTERNET["t0"], resolution=64)
    with tempfile.TemporaryDirectory() as folder:
        file = line.deploy(fn.as_model(config), Path(folder, "files"))
        print(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB, as PyTorch computes it")


if __name__ == "__main__":
    main()

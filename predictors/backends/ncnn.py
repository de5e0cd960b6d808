"""ncnn: torch's trace, converted by pnnx into a text that describes the network and its weights.

The input is `in0`, the outputs `out0`, `out1`, ...; images are taken one at a time. The files hold
fp32, which ncnn rounds when it loads them in bf16. A convolution of several groups is written as
one for each: of those groups themselves ncnn computes wrong numbers in bf16.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from predictors.backends.model import Model
    from predictors.backends.table import Run, Runtime, Start

PACKAGES = ("ncnn", "pnnx")
EXTRA = "ncnn"
# ncnn ends the process with what it cannot run. Packages are found as they are here.
_COMPUTE = (
    "import sys; sys.path[:] = sys.argv[4:]; from predictors.backends.ncnn import compute; "
    "compute(sys.argv[1], sys.argv[2], outputs=int(sys.argv[3]))"
)


def write(model: Model, stem: Path, runtime: Runtime) -> Path:
    """Write `.ncnn.param` and `.ncnn.bin`."""
    import pnnx

    from predictors.backends.onnx_export import folded, ungrouped
    from predictors.backends.torch import save_trace

    if model.batch_size != 1:
        raise ValueError(f"`batch` must be 1 for ncnn, but got {model.batch_size}. Leave it out.")
    image = model.image()
    main = model.path(stem, ".ncnn.param")
    with tempfile.TemporaryDirectory(prefix="fasternas-") as folder:
        network = ungrouped(folded(model.network(), image))
        save_trace(network, image, Path(folder, "network.pt"))
        command = [
            *(pnnx.EXEC_PATH, "network.pt", f"inputshape={list(image.shape)}".replace(" ", "")),
            *("fp16=0", "ncnnparam=network.param", "ncnnbin=network.bin"),
        ]
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
        if done.returncode or not Path(folder, "network.param").exists():
            raise _refusal(model, f"pnnx ended with status {done.returncode}")
        for suffix in (".param", ".bin"):
            content = Path(folder, f"network{suffix}").read_bytes()
            main.with_suffix(suffix).write_bytes(content)
    return main


def run(model: Model, file: Path, runtime: Runtime) -> Run:
    """Run the file in processes of their own."""
    import numpy as np
    import torch

    count = len(model.outputs)
    settings = [str(file.absolute()), runtime.precision, str(count)]
    command = [sys.executable, "-c", _COMPUTE, *settings, *sys.path]

    def outputs(images: Tensor) -> list[Tensor]:
        with tempfile.TemporaryDirectory(prefix="fasternas-") as folder:
            np.save(f"{folder}/images.npy", images.numpy())
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                said = done.stderr.strip() or f"status {done.returncode}"
                raise _refusal(model, " ".join(said.split()).strip(" ."))
            return [torch.from_numpy(np.load(f"{folder}/out{i}.npy")) for i in range(count)]

    return outputs


def compute(param: str, precision: str, *, outputs: int) -> None:
    """Run a network on `images.npy` of this folder and write `out0.npy`, `out1.npy`, ..."""
    import ncnn
    import numpy as np

    try:
        net = _net(param, precision, threads=1)
    except RuntimeError as error:
        sys.exit(str(error))
    found: list[list[np.ndarray]] = [[] for _ in range(outputs)]
    for image in np.load("images.npy"):  # a name: the Mat only borrows it
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(image))
        for i in range(outputs):
            failed, output = extractor.extract(f"out{i}")
            if failed:
                sys.exit("it does not run")
            found[i].append(np.array(output))
    for i in range(outputs):
        np.save(f"out{i}.npy", np.stack(found[i]))


def code(model: Model, file: Path, runtime: Runtime) -> str:
    """Return how the files are loaded, in Python."""
    weights = file.with_suffix(".bin")
    return f'net = ncnn.Net(); net.load_param("{file}"); net.load_model("{weights}")'


def load(start: Start) -> list[Callable[[], object]]:
    """Load files, two in one zip file each, to time them, each with a random input."""
    import ncnn
    import numpy as np

    generator = np.random.default_rng(0)

    def inference(path: str, shape: list[int]) -> Callable[[], object]:
        with tempfile.TemporaryDirectory() as folder:
            zipfile.ZipFile(path).extractall(folder)
            param = next(Path(folder).glob("*.param"))
            net = _net(str(param), start["precision"], threads=start["threads"])
        array = generator.standard_normal(shape[1:], dtype=np.float32)
        image = ncnn.Mat(array).clone()  # before, it only borrows the array

        def infer() -> object:
            extractor = net.create_extractor()  # keeps results: one for each inference
            extractor.input("in0", image)
            return extractor.extract("out0")

        return infer

    return list(map(inference, start["models"], start["shapes"]))


def _net(param: str, precision: str, *, threads: int) -> Any:
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_packed = net.opt.use_bf16_storage = precision == "bf16"
    if net.load_param(param) or net.load_model(param[: -len(".param")] + ".bin"):
        raise RuntimeError("ncnn cannot load the network")
    return net


def _refusal(model: Model, reason: str) -> ValueError:
    return ValueError(
        f"`runtime` must be one that runs {model.name}, but ncnn does not: {reason}. "
        "Use onnxruntime."
    )

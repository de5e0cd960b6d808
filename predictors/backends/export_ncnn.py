"""From a network to the file that ncnn loads: torch's trace, converted by pnnx.

ncnn reads a text that describes the network and a file with its weights; both are packed into one
zip file, uncompressed, as `network.param` and `network.bin`. Their input is `in0`, their output
`out0`; they hold fp32, and with bf16 ncnn rounds them when it loads them.
"""

import io
import subprocess
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from predictors.backends.model import Model
from predictors.backends.onnx_export import TOLERANCES, folded, logits_of, relative_difference
from search_spaces.io import atomic_write

# Run by a process of its own in a folder with the network and its input: ncnn ends the process
# with what it cannot run. Packages are found as they are here.
RUN = """\
import sys
precision, outputs, sys.path[:] = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
import ncnn
import numpy as np
net = ncnn.Net()
net.opt.num_threads = 1
net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
net.opt.use_bf16_packed = net.opt.use_bf16_storage = precision == "bf16"
if net.load_param("network.param") or net.load_model("network.bin"):
    sys.exit("it does not load")
found = [[] for _ in range(outputs)]
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
"""


def export_ncnn(model: Model, path: Path, *, precision: str, check: bool) -> Path:
    """Write the network as ncnn loads it; `check` runs it in ncnn once and compares with torch.

    Raises:
        ValueError: if pnnx or ncnn cannot do this network, or its outputs differ from torch's.
        OSError: if the file cannot be written.
    """
    if model.batch_size > 1:
        raise _refusal(model, "it takes one image at a time")
    with tempfile.TemporaryDirectory(prefix="fasternas-") as folder:
        room = Path(folder)
        convert(model, room)
        if check:
            _check(model, room, precision)
        return atomic_write(path, _packed(room))


def convert(model: Model, room: Path) -> None:
    """Write `network.param` and `network.bin` into a folder, not checked against torch.

    Raises:
        ValueError: if pnnx cannot do this network.
    """
    import pnnx

    image = model.image()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing announces its successor
        trace: Any = torch.jit.trace
        trace(folded(model.network(), image), image).save(str(room / "network.pt"))
    shape = "[" + ",".join(map(str, image.shape)) + "]"
    command = [pnnx.EXEC_PATH, "network.pt", f"inputshape={shape}", "fp16=0",
               "ncnnparam=network.param", "ncnnbin=network.bin"]  # fmt: skip
    done = subprocess.run(command, cwd=room, capture_output=True, text=True, check=False)
    if done.returncode or not (room / "network.param").exists():
        raise _refusal(model, f"pnnx ended with status {done.returncode}")


def run(
    model: Model, room: Path, images: Tensor, *, precision: str = "fp32", outputs: int = 1
) -> list[Tensor]:
    """Return what ncnn computes from images [n, ...] with the network in a folder: [n, ...] each.

    Raises:
        ValueError: if ncnn cannot run it.
    """
    np.save(room / "images.npy", images.numpy())
    command = [sys.executable, "-c", RUN, precision, str(outputs), *sys.path]
    done = subprocess.run(command, cwd=room, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise _refusal(model, said[0].strip(" ."))
    return [torch.from_numpy(np.load(room / f"out{i}.npy")) for i in range(outputs)]


def _check(model: Model, room: Path, precision: str) -> None:
    image = model.image()
    (logits,) = run(model, room, image, precision=precision)
    reference = logits_of(model.network(), image)
    same = logits.numel() == reference.numel()
    difference = relative_difference(logits.reshape(reference.shape), reference) if same else np.nan
    if not difference <= TOLERANCES[precision]:
        raise _refusal(model, f"its outputs differ from torch's by {difference:.1e}")


def _packed(room: Path) -> bytes:
    """Both files in one, without their times: the same bytes for the same network."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in ("network.param", "network.bin"):
            archive.writestr(zipfile.ZipInfo(name), (room / name).read_bytes())
    return packed.getvalue()


def _refusal(model: Model, reason: str) -> ValueError:
    return ValueError(f"`runtime` must be one that runs {model.name}, but ncnn does not: {reason}. "
                      "Use onnxruntime.")  # fmt: skip

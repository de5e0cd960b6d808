"""The ONNX file of a network in fp32, wherever the network comes from."""

import tempfile
from pathlib import Path

from predictors.backends.foreign import deployed_bytes
from predictors.backends.model import Model
from predictors.backends.onnx_export import export_onnx
from search_spaces.io import atomic_write


def write_onnx(model: Model, path: Path) -> Path:
    """Write the network as ONNX, checked against torch; one that came as a file is copied.

    Raises:
        ValueError: if it came as a file whose batch is another one.
    """
    if model.file is not None:
        if model.batch == "fixed" and model.batch_size != 1:
            raise ValueError(f"`batch` must be 1 for {model.file}, but got {model.batch_size}. "
                             "Export the file with a dynamic batch.")  # fmt: skip
        return atomic_write(path, deployed_bytes(model.file))
    return export_onnx(model.network(), model.image(), path, batch=model.batch)


def onnx_bytes(model: Model) -> bytes:
    """Return what `write_onnx` writes."""
    with tempfile.TemporaryDirectory(prefix="fasternas-") as folder:
        return write_onnx(model, Path(folder) / "network.onnx").read_bytes()

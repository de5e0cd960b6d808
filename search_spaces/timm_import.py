"""`import timm` where the installed torchvision was built for another torch.

timm imports torchvision, whose compiled operators may fail to load (a CUDA build beside a CPU
torch); then its Python part stops at "operator torchvision::nms does not exist" although nothing
here uses those operators. Declaring their signatures lets both packages import.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

# The declarations live as long as the Library objects, hence the module-level list.
_declared: list[object] = []


def import_timm() -> ModuleType:
    """Import timm, mending torchvision's import where it fails for that one reason."""
    try:
        return importlib.import_module("timm")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [m for m in sys.modules if m.split(".")[0] in ("timm", "torchvision")]:
        del sys.modules[name]  # half-imported
    _declare_operators()
    return importlib.import_module("timm")


def _declare_operators() -> None:
    import torch

    library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)

"""Networks of timm, by name."""

import math
from dataclasses import replace
from typing import Any

from predictors.deployment.models import Model, identity
from search_spaces.fasternet import FASTERNET


def timm_model(name: str) -> Model:
    """Return a model of timm, its weights random; NAME@PX gives it another image size.

    Models that are trained with more branches than they are deployed with have those merged. MACs
    are fvcore's, batch norm folded; attention is counted as its two matrix products.

    Raises:
        ValueError: if timm has no such model, or none for that image size.
    """
    from search_spaces.timm_import import import_timm

    timm = import_timm()
    base, _, size = name.partition("@")
    if not timm.is_model(base) or not ((size.isdigit() and int(size)) or size == ""):
        raise ValueError(
            f"`network` must be a config or ONNX file, one of {', '.join(FASTERNET)}, or a model "
            f"of timm (NAME, or NAME@PX for another image size), but got {name!r}, which is none."
        )
    pretrained = timm.get_pretrained_cfg(base)
    channels, *own = pretrained.input_size if pretrained else (3, 224, 224)
    shape = (channels, int(size), int(size)) if size else (channels, *own)

    def build() -> Any:
        options = {"img_size": int(size)} if size and _fixed(timm, base) else {}
        network = timm.create_model(base, pretrained=False, exportable=True, **options)
        return timm.utils.reparameterize_model(network.eval())

    model = Model(name=name, identity=identity("timm", {"name": name, "version": timm.__version__}),
                  shape=shape, build=build, batch="fixed")  # fmt: skip
    return _counted(model)


def _fixed(timm: Any, name: str) -> bool:
    """Whether a model is built for one image size."""
    pretrained = timm.get_pretrained_cfg(name)
    return bool(pretrained and pretrained.fixed_input_size)


def _counted(model: Model) -> Model:
    """Build it once to count it, which also finds out whether it takes its input."""
    from fvcore.nn import FlopCountAnalysis

    from predictors.deployment.folding import folded

    try:
        network, image = model.network(), model.image()
        analysis = FlopCountAnalysis(folded(network, image), image)
    except Exception as error:  # its authors' asserts and divisions by zero among them
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"`network` must take images of {model.shape[-1]} pixels, but "
                         f"{model.name} does not: {why}.") from None  # fmt: skip
    for warn in (analysis.unsupported_ops_warnings, analysis.uncalled_modules_warnings):
        warn(enabled=False)
    analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
    params = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return replace(model, macs=int(analysis.total()), params=params)


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """Queries times keys, then weights times values."""
    query, key, value = (item.type().sizes() for item in inputs[:3])
    return int(math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1]))

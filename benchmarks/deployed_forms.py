"""The forms of a network that `deployed_form.py` times: timm's, the floor, ours by runtime."""

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from predictors.backends.agreement import Agreement, Batches, check
from predictors.backends.model import Model, identity
from predictors.backends.table import Precision, Runtime
from search_spaces.fasternet import FASTERNET
from search_spaces.network import Block
from search_spaces.timm_models import NAME, import_timm, register

Form = Literal["timm", "ours", "floor"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Contender:
    """A network in a form, for a runtime at a precision; `refusal` says why it is not timed."""

    network: str
    form: Form
    runtime: str
    precision: Precision
    model: Model | None = None
    agreement: Agreement | None = None
    refusal: str = ""


def contenders_of(
    model: Model, runtimes: Sequence[Runtime], images: Batches, room: Path
) -> Iterator[Contender]:
    """Yield timm's export and the floor for the first runtime, and our form for each.

    Raises:
        RuntimeError: if timm's export computes something else than the network.
    """
    first = runtimes[0]
    yield _timms(model, first, images, _made(room / "timm"))
    yield Contender(
        network=model.name,
        form="floor",
        runtime=first.name,
        precision=first.precision,
        model=floor_of(model),
    )
    for runtime in runtimes:
        place = _made(room / f"{runtime.name}-{runtime.precision}")
        yield _ours(model, runtime, images, place)


def export_by_timm(model: Model, path: Path) -> Path:
    """Write the network as timm's own exporter does, from timm's own module where it has one.

    What a search found has no name in timm: it is our module, registered there.
    """
    timm, checkpoint = import_timm(), model.checkpoint
    assert checkpoint is not None
    register()
    with torch.random.fork_rng(devices=[]):
        if FASTERNET.get(model.name) == checkpoint.config:
            network = timm.create_model(f"fasternet_{model.name}", exportable=True)
        else:
            network = timm.create_model(NAME, config=checkpoint.config, exportable=True)
    network.load_state_dict(dict(checkpoint.weights))
    exporter: Any = importlib.import_module("timm.utils.onnx")
    exporter.onnx_export(
        network,
        str(path),
        example_input=model.image(),
        input_names=["image"],
        output_names=["logits"],
    )
    return path


def floor_of(model: Model) -> Model:
    """Return the network without its 3x3 convolutions: what no PConv can be faster than."""

    def build() -> nn.Module:
        network = model.network()
        for block in [module for module in network.modules() if isinstance(module, Block)]:
            block.add_module("spatial_mixing", nn.Identity())
        return network

    return replace(model, identity=deployed_identity(model, form="floor"), build=build)


def _timms(model: Model, runtime: Runtime, images: Batches, room: Path) -> Contender:
    file = export_by_timm(model, room / "network.onnx")
    timms = replace(model, identity=deployed_identity(model, form="timm"), file=file, build=None)
    return Contender(
        network=model.name,
        form="timm",
        runtime=runtime.name,
        precision="fp32",
        model=timms,
        agreement=check(model, file, runtime, images),
    )


def _ours(model: Model, runtime: Runtime, images: Batches, room: Path) -> Contender:
    entry = Contender(
        network=model.name, form="ours", runtime=runtime.name, precision=runtime.precision
    )
    try:
        file = runtime.module.write(model, room / model.name, runtime)
        found = check(model, file, runtime, images)
    except (ValueError, RuntimeError) as error:
        return replace(entry, refusal=" ".join(str(error).split()))
    ours = replace(model, identity=deployed_identity(model, form="ours"))
    if file.suffix == ".onnx":
        ours = replace(ours, file=file, build=None)
    return replace(entry, model=ours, agreement=found)


def deployed_identity(model: Model, *, form: str) -> str:
    """Return what tells a deployed form from others, and from its config alone."""
    return identity("Deployed", {"network": model.identity, "form": form})


def _made(room: Path) -> Path:
    room.mkdir(parents=True)
    return room

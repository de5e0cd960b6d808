"""The forms of a network that `deployed_form.py` times: timm's, the floor, ours by runtime."""

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from predictors.backends.agreement import Agreement, Batches
from predictors.backends.deployed import Deployed, deploy, deployed_identity, judged
from predictors.backends.export_running import run_onnx
from predictors.backends.export_subject import Subject
from predictors.backends.model import Model
from predictors.backends.table import Precision, Runtime
from search_spaces.fasternet import FASTERNET
from search_spaces.io import one_line
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
    subject: Subject, runtimes: Sequence[Runtime], images: Batches, room: Path
) -> Iterator[Contender]:
    """Yield timm's export and the floor for the first runtime, and our form for each.

    Raises:
        RuntimeError: if timm's export computes something else than the network.
    """
    first = runtimes[0]
    yield _timms(subject, first, images, _made(room / "timm"))
    yield Contender(network=subject.name, form="floor", runtime=first.name,
                    precision=first.precision, model=floor_of(subject))  # fmt: skip
    for runtime in runtimes:
        place = _made(room / f"{runtime.name}-{runtime.precision}")
        yield _ours(subject, runtime, images, place)


def export_by_timm(subject: Subject, path: Path) -> Path:
    """Write the network as timm's own exporter does, from timm's own module where it has one.

    What a search found has no name in timm: it is our module, registered there.
    """
    timm = import_timm()
    register()
    with torch.random.fork_rng(devices=[]):
        if FASTERNET.get(subject.name) == subject.config:
            network = timm.create_model(f"fasternet_{subject.name}", exportable=True)
        else:
            network = timm.create_model(NAME, config=subject.config, exportable=True)
    network.load_state_dict(dict(subject.checkpoint.weights))
    exporter: Any = importlib.import_module("timm.utils.onnx")
    exporter.onnx_export(network, str(path), example_input=subject.example(),
                         input_names=["image"], output_names=["logits"])  # fmt: skip
    return path


def floor_of(subject: Subject) -> Model:
    """Return the network without its 3x3 convolutions: what no PConv can be faster than."""

    def build() -> nn.Module:
        network = subject.network()
        for block in [module for module in network.modules() if isinstance(module, Block)]:
            block.add_module("spatial_mixing", nn.Identity())
        return network

    return replace(subject.model(), identity=deployed_identity(subject, form="floor"), build=build)


def _timms(subject: Subject, runtime: Runtime, images: Batches, room: Path) -> Contender:
    file = export_by_timm(subject, room / "network.onnx")
    model = replace(subject.model(), identity=deployed_identity(subject, form="timm"), file=file,
                    build=None)  # fmt: skip
    written = Deployed(model=model, run=run_onnx(subject, file), file=file, precision="fp32")
    return Contender(network=subject.name, form="timm", runtime=runtime.name, precision="fp32",
                     model=model, agreement=judged(written, subject, images))  # fmt: skip


def _ours(subject: Subject, runtime: Runtime, images: Batches, room: Path) -> Contender:
    entry = Contender(network=subject.name, form="ours", runtime=runtime.name,
                      precision=runtime.precision)  # fmt: skip
    try:
        written = deploy(subject, runtime, room)
        found = judged(written, subject, images)
    except (ValueError, RuntimeError) as error:
        return replace(entry, refusal=one_line(error))
    return replace(entry, model=written.model, agreement=found)


def _made(room: Path) -> Path:
    room.mkdir(parents=True)
    return room

"""What is timed of a network is the file that is judged, and that computes what torch does."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from networks import TINY
from torch import nn

from nas.training.export_images import RandomImages
from predictors.backends.deployed import deploy, deployed_identity, judged
from predictors.backends.export_subject import Subject
from predictors.backends.model import config_identity
from predictors.backends.table import RUNTIMES, Runtime
from search_spaces.checkpoint import Checkpoint
from search_spaces.network import build

IMAGES = RandomImages(shape=(3, 32, 32), count=5)


def _subject() -> Subject:
    """A network whose batch norms have seen something."""
    torch.manual_seed(0)
    network = build(TINY)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                assert values is not None
                values.data.uniform_(0.5, 1.5)
    weights = network.eval().state_dict()
    return Subject(name="tiny", checkpoint=Checkpoint(config=TINY, weights=weights), trained=True)


@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda r: f"{r.name}-{r.precision}")
def test_each_form_is_judged_by_what_it_computes(runtime: Runtime, tmp_path: Path) -> None:
    if not runtime.version:
        pytest.skip(f"{runtime.package} is not installed.")
    subject = _subject()
    try:
        form = deploy(subject, runtime, tmp_path)
    except RuntimeError as error:
        if "processor has, but bf16 is not" not in str(error):
            raise
        pytest.skip("this processor has no bf16.")
    found = judged(form, subject, IMAGES)
    assert found.images == 5
    assert (found.difference < 1e-4) == (runtime.precision == "fp32")  # rounding is seen
    assert found.correlation > 0.9
    timed = runtime.export(form.model, tmp_path / f"timed{runtime.suffix}")
    if form.file.suffix == ".onnx":
        assert timed.read_bytes() == form.file.read_bytes()


def test_a_form_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    subject = _subject()
    form = deploy(subject, RUNTIMES[0], tmp_path)
    other = replace(form, run=lambda images: [torch.ones(len(images), 10)])
    with pytest.raises(RuntimeError, match=r"tiny\.onnx must agree with torch to 1e-04"):
        judged(other, subject, IMAGES)
    with pytest.raises(RuntimeError, match="must compute in int8 much the same as in fp32"):
        judged(replace(other, precision="int8"), subject, IMAGES)


def test_a_form_has_an_identity_of_its_own() -> None:
    subject = _subject()
    names = {deployed_identity(subject, form=form) for form in ("ours", "floor")}
    assert len(names | {config_identity(TINY)}) == 3

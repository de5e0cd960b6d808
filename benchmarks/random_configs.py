"""Do cost, folded branches and ONNX files hold on random networks of a space?

    python benchmarks/random_configs.py --count 200

Parameters are held against the module's, multiply-accumulates against those that fvcore counts.
Each network has branches in its partial convolutions, batch norms that have seen images, and is
evaluated before and after the branches are folded, then in ONNX Runtime from the exported file.
Differences are the largest of any logit, as a share of the largest logit. Prints what was found and
writes benchmarks/results/random_configs-SPACE.json.
"""

import argparse
import json
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from statistics import median

import onnx
import onnxruntime
import torch
from fvcore.nn import FlopCountAnalysis
from provenance import provenance
from torch import Tensor, nn

from predictors.backends.model import config_model
from predictors.backends.onnx_export import write_onnx
from predictors.cost import cost
from search_spaces.fasternet import SPACES, FasterNetConfig
from search_spaces.network import build, fold_branches

RESULTS = Path(__file__).parent / "results"
IMAGES = 2  # that are compared
DEBRIS = ("Shape", "Gather", "ScatterND", "Slice", "Pad", "BatchNormalization")


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What one network's cost is off by, and its outputs' differences."""

    config: FasterNetConfig
    parameters_off: int
    macs_off: int
    folded_difference: float
    onnx_difference: float
    operators: dict[str, int]


def main() -> None:
    """Check so many networks of a space, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", choices=SPACES, default="pconv")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = Random(options.seed)
    found: list[Checked] = []
    for number in range(options.count):
        found.append(check(SPACES[options.space].sample(rng), number))
        if (number + 1) % 20 == 0:
            print(f"{number + 1} of {options.count}", flush=True)
    summary = summarised(found)
    for name, value in summary.items():
        print(f"{name}: {value}")
    document = {
        "space": options.space,
        **summary,
        "networks": [asdict(one) for one in found],
        **provenance("torch", "onnx", "onnxruntime", "fvcore"),
    }
    file = RESULTS / f"random_configs-{options.space}.json"
    file.write_text(json.dumps(document, indent=1) + "\n")


def summarised(found: list[Checked]) -> dict[str, object]:
    """Return the worst of each figure over all networks."""
    operators = Counter[str]()
    for one in found:
        operators.update(one.operators)
    folds, exports = (
        [getattr(c, n) for c in found] for n in ("folded_difference", "onnx_difference")
    )
    return {
        "count": len(found),
        "parameters_wrong": sum(one.parameters_off != 0 for one in found),
        "macs_wrong": sum(one.macs_off != 0 for one in found),
        "folded_difference_median": median(folds),
        "folded_difference_largest": max(folds),
        "onnx_difference_median": median(exports),
        "onnx_difference_largest": max(exports),
        "operators": dict(sorted(operators.items())),
        "debris": sorted(operators.keys() & set(DEBRIS)),
    }


@torch.no_grad()
def check(config: FasterNetConfig, seed: int) -> Checked:
    """Compare one network's cost and outputs with those of its module, its file and fvcore."""
    torch.manual_seed(seed)
    expected = cost(config)
    plain = build(config).eval()
    branched = build(config, branches=True)
    shape = (IMAGES, 3, config.resolution, config.resolution)
    _see_images(branched, torch.randn(shape))
    images = torch.randn(shape)
    before = branched.eval()(images)
    fold_branches(branched)
    after = branched(images)
    file, operators = _exported(config, branched, images)
    return Checked(
        config=config,
        parameters_off=expected.params - sum(p.numel() for p in plain.parameters()),
        macs_off=expected.macs_with_batch_norm - _counted(plain, images[:1]),
        folded_difference=_difference(after, before),
        onnx_difference=_difference(file, after),
        operators=operators,
    )


def _see_images(network: nn.Module, images: Tensor) -> None:
    """Give batch norms statistics of images, and scales and shifts that matter."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1.5)
            module.bias.uniform_(-0.5, 0.5)
            module.momentum = 0.5
    network.train()
    for _ in range(4):
        network(images)


def _exported(
    config: FasterNetConfig, network: nn.Module, images: Tensor
) -> tuple[Tensor, dict[str, int]]:
    """The logits of the network's ONNX file, and how many there are of each operator in it."""
    with tempfile.TemporaryDirectory() as folder:
        model = replace(config_model(config), build=lambda: network)
        path = write_onnx(model, Path(folder, "network"))
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (logits,) = session.run(None, {"image": images.numpy()})
        operators = Counter(node.op_type for node in onnx.load(path).graph.node)
    return torch.from_numpy(logits), dict(operators)


def _counted(network: nn.Module, image: Tensor) -> int:
    analysis = FlopCountAnalysis(network, image)
    analysis.unsupported_ops_warnings(enabled=False).uncalled_modules_warnings(enabled=False)
    return int(analysis.total())


def _difference(ours: Tensor, reference: Tensor) -> float:
    return float((ours - reference).abs().max() / reference.abs().max())


if __name__ == "__main__":
    main()

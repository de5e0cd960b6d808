"""Searched networks in timm's registry, as its model "fasternas".

timm builds its own FasterNets from one ratio and widths that double. This one takes any config,
and has what timm's training, feature extraction and fine-tuning ask of a network.
"""

import importlib
import logging
import sys
from collections.abc import Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn
from torch.library import Library
from torch.utils.checkpoint import checkpoint as recomputed

from search_spaces.checkpoint import Checkpoint, is_checkpoint, read_checkpoint, weights_of
from search_spaces.fasternet import FasterNetConfig
from search_spaces.formats import from_mapping, load_config
from search_spaces.io import short_repr
from search_spaces.network import FasterNet, build, initialise, strides

# The declarations live as long as the Library objects, hence the module-level list.
_declared: list[Library] = []


def import_timm() -> ModuleType:
    """Import timm also where the installed torchvision was built for another torch.

    timm imports torchvision, whose compiled operators may fail to load (a CUDA build beside a CPU
    torch); then its Python part stops at "operator torchvision::nms does not exist" although
    nothing here uses those operators. Declaring their signatures lets both packages import.
    What timm warns of, such as a schedule of one epoch, is said in our words or not at all.
    """
    logging.getLogger("timm").setLevel(logging.ERROR)
    try:
        return importlib.import_module("timm")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [m for m in sys.modules if m.split(".")[0] in ("timm", "torchvision")]:
        del sys.modules[name]  # half-imported
    library = Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    _declared.append(library)
    return importlib.import_module("timm")


NAME = "fasternas"
# Of timm's models those that differ in nothing but what the arguments say.
THEIRS = {"gelu": "fasternet_t0", "relu": "fasternet_t2"}

Config = str | Path | Mapping[str, object] | FasterNetConfig
Indices = int | list[int] | None  # of stages, as timm counts them: a number is of the last ones


class TimmNetwork(nn.Module):
    """classifier(dropout(act(conv_head(pool(stages(patch_embed(x))))))), as timm handles networks.

    It takes over the parts of a FasterNet, so that the weights keep their names.
    """

    def __init__(self, network: FasterNet, *, drop_rate: float = 0.0) -> None:
        super().__init__()
        config = network.config
        self.config = config
        self.in_chans, self.num_classes = 3, config.classes
        self.num_features = config.out_width
        self.head_hidden_size = config.head_width or config.out_width
        self.drop_rate, self.grad_checkpointing = drop_rate, False
        self.feature_info = [
            {"num_chs": c, "reduction": stride, "module": f"stages.{i}"}
            for i, (c, stride) in enumerate(zip(config.widths, strides(config), strict=False))
        ]
        self.patch_embed, self.stages = network.patch_embed, network.stages
        self.global_pool: nn.Module = network.global_pool
        self.conv_head: nn.Module = network.conv_head
        self.act: nn.Module = network.act
        self.classifier: nn.Module = network.classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        return self._through(self.patch_embed(x), len(self.stages))[-1]

    def forward_head(self, x: Tensor, *, pre_logits: bool = False) -> Tensor:
        x = self.act(self.conv_head(self.global_pool(x))).flatten(1)
        x = nn.functional.dropout(x, self.drop_rate, training=self.training)
        logits: Tensor = x if pre_logits else self.classifier(x)
        return logits

    def forward_intermediates(
        self,
        x: Tensor,
        indices: Indices = None,
        *,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the last map and those of some stages, or the latter alone."""
        take, last = self._taken(indices)
        maps = self._through(self.patch_embed(x), last + 1 if stop_early else len(self.stages))
        taken = [maps[i] for i in sorted(take)]
        return taken if intermediates_only else (maps[-1], taken)

    def prune_intermediate_layers(
        self, indices: Indices = 1, *, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what comes after the last of these stages."""
        take, last = self._taken(indices)
        self.stages = nn.Sequential(*islice(self.stages, last + 1))
        if prune_head:
            self.conv_head, self.act = nn.Identity(), nn.Identity()
            self.num_features = self.head_hidden_size = self.config.widths[last]
            self.reset_classifier(0)
        return take

    def get_classifier(self) -> nn.Module:
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one; of 0 classes, by none."""
        _refuse_other("global_pool", global_pool or "avg", "avg")
        self.num_classes = num_classes
        self.classifier = nn.Identity()
        if num_classes:
            self.classifier = nn.Linear(self.head_hidden_size, num_classes)
            self.classifier.to(next(self.patch_embed.parameters()).device).apply(initialise)

    def group_matcher(self, *, coarse: bool = False) -> dict[str, object]:
        """Which weights come after which, for rates that fall layer by layer."""
        fine = [
            (r"^stages\.(\d+)\.downsample", (0,)),
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^conv_head", (99999,)),
        ]
        return {"stem": r"^patch_embed", "blocks": r"^stages\.(\d+)" if coarse else fine}

    def set_grad_checkpointing(self, enable: bool = True) -> None:  # noqa: FBT001, FBT002
        """Compute the maps again for gradients, which saves memory."""
        self.grad_checkpointing = enable

    def _taken(self, indices: Indices) -> tuple[list[int], int]:
        from timm.models._features import feature_take_indices

        take, last = feature_take_indices(len(self.feature_info), indices)
        return list(take), int(last)

    def _through(self, x: Tensor, stages: int) -> list[Tensor]:
        maps = []
        for stage in islice(self.stages, stages):
            again = self.grad_checkpointing and self.training
            x = recomputed(stage, x, use_reentrant=False) if again else stage(x)
            maps.append(x)
        return maps


def fasternas(
    *,
    pretrained: bool = False,
    config: Config | None = None,
    checkpoint: str | Path | None = None,
    drop_path_rate: float = 0.0,
    pretrained_cfg: dict[str, Any] | None = None,
    **options: Any,
) -> nn.Module:
    """timm's entry: `timm.create_model("fasternas", config="x.yaml")`.

    `checkpoint` is one of ours, then `config` may be left out; or weights under timm's names.
    A classifier of other `num_classes` than those is new.
    """
    from timm.models import build_model_with_cfg

    found = _found(config, checkpoint)

    def make(
        num_classes: int, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0
    ) -> TimmNetwork:
        _refuse_other("in_chans", in_chans, 3)
        _refuse_other("global_pool", global_pool, "avg")
        make_plain = found.network if found.weights else partial(build, found.config)
        plain = make_plain(drop_path=drop_path_rate).train()
        network = TimmNetwork(plain, drop_rate=drop_rate)
        if num_classes != network.num_classes:
            network.reset_classifier(num_classes)
        return network

    return build_model_with_cfg(
        make,
        NAME,
        pretrained and not found.weights,
        pretrained_cfg=pretrained_cfg or pretrained_config(found),
        feature_cfg={
            "out_indices": tuple(range(found.config.stages)),
            "flatten_sequential": True,
        },
        **options,
    )


def pretrained_config(found: Checkpoint) -> dict[str, object]:
    """Return what timm's `pretrained_cfg` says of a network: its images, classes and layers."""
    side = found.config.resolution
    first = {"patch": "proj", "convs": "convs.0"}[found.config.stem]
    said = {
        "architecture": NAME,
        "input_size": (3, side, side),
        "num_classes": found.config.classes,
        "first_conv": f"patch_embed.{first}",
        "classifier": "classifier",
        "crop_pct": found.crop or 1.0,
        "interpolation": "bicubic",
    }
    normalised = {
        name: values * (3 // len(values))
        for name, values in (("mean", found.mean), ("std", found.std))
        if values
    }
    return said | normalised | ({"label_names": found.classes} if found.classes else {})


def published(config: FasterNetConfig, weights: Mapping[str, Tensor]) -> Checkpoint:
    """Return weights that say nothing of their images, with what timm says of its FasterNets."""
    said = import_timm().get_pretrained_cfg(THEIRS["relu"])  # the same of all of them
    return Checkpoint(
        config=config,
        weights=weights,
        mean=tuple(said.mean),
        std=tuple(said.std),
        crop=said.crop_pct,
    )


def register() -> None:
    """Put the model into timm's registry, if it is not there."""
    timm = import_timm()
    if not timm.is_model(NAME):
        timm.models.register_model(fasternas)


def _found(config: Config | None, checkpoint: str | Path | None) -> Checkpoint:
    """The config and the weights that are asked for; no weights where none are given."""
    wanted: FasterNetConfig | None
    if config is None or isinstance(config, FasterNetConfig):
        wanted = config
    else:
        wanted = from_mapping(config) if isinstance(config, Mapping) else load_config(config)
    if checkpoint is None and wanted is not None:
        return Checkpoint(config=wanted, weights={})
    if checkpoint is None:
        raise ValueError(
            "`config` must be given, or a `checkpoint` that holds it, but neither is. "
            'Say config="x.yaml".'
        )
    if wanted is None or is_checkpoint(checkpoint):
        found = read_checkpoint(checkpoint)
        if wanted not in (None, found.config):
            raise ValueError(
                f"`config` must be that of the checkpoint {checkpoint}, but is another one. Leave "
                "it out."
            )
        return found
    return Checkpoint(config=wanted, weights=weights_of(wanted, checkpoint).state_dict())


def _refuse_other(name: str, given: object, wanted: object) -> None:
    if given != wanted:
        raise ValueError(f"`{name}` must be {wanted!r}, but got {short_repr(given)}. Leave it out.")

"""Whose weights lie in a file: the names that trainers and FasterNet's authors give them."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class FileWeights:
    """What a file has of a network's weights, under that network's names.

    `left_over` are the names in the file of other weights beside them; `averaged` says whether the
    file had the plain ones too, or other names for these, and these are the averages. `rivals` are
    what others begin with that are as much of the network, after what these begin with.
    """

    weights: Mapping[str, Tensor]
    left_over: tuple[str, ...] = ()
    averaged: bool = False
    rivals: tuple[str, ...] = ()


# What trainers put around modules, which then is in the names of their weights.
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_AVERAGED = re.compile(r"(^|[._])(\w+_)?(ema|swa|avg|averag(e|ed|ing))(_\w+)?([._]|$)")
_PLAIN_OF_LIGHTNING = "current_model_state."  # beside averages that bear the plain ones' names
_BESIDE = re.compile("optim|sched|scaler|callback|loops|rng")  # where a trainer keeps no weights


@dataclass(frozen=True, kw_only=True, eq=False)
class _Match:
    """What a file has of a network after one beginning of the names."""

    prefix: str
    names: Mapping[str, str]  # in the file, by those that the network has
    fitting: int  # of them have the network's shapes
    left_over: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        """How much of the network it is: a student is the one that fits, beside its teacher."""
        return len(self.names), self.fitting

    @property
    def averaged(self) -> bool:
        return _AVERAGED.search(self.prefix) is not None


def matched(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> FileWeights:
    """Find out what comes before the names: that with which the most of them are the network's."""
    matches = [match for rename in _RENAMES for match in _matches(found, own, rename)]
    if not matches:
        return FileWeights(weights={}, left_over=tuple(found))
    best = max(matches, key=lambda match: (match.size, match.averaged, -len(match.prefix)))
    whole = best.fitting == len(own)
    rivals = [
        match.prefix
        for match in matches
        if (len(match.names), match.averaged) == (len(best.names), best.averaged)
        and not (whole and match.fitting < best.fitting)
        and not _BESIDE.search(match.prefix)
        and not _equal(found, match.names, best.names)
    ]
    plain = [prefix for prefix in rivals if prefix.startswith(_PLAIN_OF_LIGHTNING)]
    return FileWeights(
        weights={name: found[given] for name, given in best.names.items()},
        left_over=tuple(n for n in best.left_over if found[n].ndim),  # counters are no weights
        averaged=best.averaged or bool(plain),
        rivals=tuple(map(_place, dict.fromkeys((best.prefix, *rivals))))
        if rivals and not plain
        else (),
    )


def _place(prefix: str) -> str:
    return prefix.rstrip(".") or "no prefix"


def _equal(
    found: Mapping[str, Tensor], names: Mapping[str, str], others: Mapping[str, str]
) -> bool:
    """Whether weights of these names in a file are the same numbers."""
    pairs = [(found[names[k]], found[others[k]]) for k in names if k in others]
    return all(a is b or torch.equal(a.float(), b.float()) for a, b in pairs)


def _matches(
    found: Mapping[str, Tensor], own: Mapping[str, Tensor], rename: Callable[[str], str]
) -> Iterator[_Match]:
    plain = {name: rename(_unwrapped(name, own)) for name in found}
    for prefix, names in _by_prefix(plain, own).items():
        used = set(names.values())
        beside = [n for n in found if plain[n].startswith(prefix) and n not in used]
        yield _Match(
            prefix=prefix,
            names=names,
            fitting=sum(found[given].shape == own[name].shape for name, given in names.items()),
            left_over=tuple(n for n in beside if prefix or not _BESIDE.match(n)),
        )


def _by_prefix(plain: Mapping[str, str], wanted: Collection[str]) -> dict[str, dict[str, str]]:
    """The names in the file by those that are wanted, for each beginning of theirs."""
    found: dict[str, dict[str, str]] = {}
    for given, name in plain.items():
        for begin in [0, *(match.end() for match in re.finditer(r"\.", name))]:
            if name[begin:] in wanted:
                found.setdefault(name[:begin], {}).setdefault(name[begin:], given)
    return found


def _unwrapped(name: str, wanted: Collection[str]) -> str:
    kept = [part for part in name.split(".") if part not in _WRAPPERS]
    return name if name in wanted else ".".join(kept)


def _from_authors(name: str) -> str:
    """The name in timm; to FasterNet's authors merging layers are stages."""
    match = re.search(r"(^|\.)stages\.(\d+)\.(reduction|norm|blocks)\.", name)
    if match is not None:
        begin, stage, part = match.groups()
        kept = part if part == "blocks" else f"downsample.{part}"
        renamed = f"{begin}stages.{(int(stage) + 1) // 2}.{kept}."
        return f"{name[: match.start()]}{renamed}{name[match.end() :]}"
    name = re.sub(r"(^|\.)avgpool_pre_head\.1\.", r"\1conv_head.", name)
    return re.sub(r"(^|\.)head\.(weight|bias)$", r"\1classifier.\2", name)


def _from_mmpretrain(name: str) -> str:
    """The name in timm; to MMPreTrain the classifier lies beside the backbone, in a head."""
    pattern = r"(^|\.)head\.fc\.(weight|bias)$"
    return _from_authors(re.sub(pattern, r"\1backbone.classifier.\2", name))


_RENAMES: tuple[Callable[[str], str], ...] = (str, _from_authors, _from_mmpretrain)

"""Files of `torch.save`, read without running what is in them: their tensors, by name.

Such a file is a pickle, which may name any function for the reader to call. Here a name stands for
nothing but itself: tensors are put together by this module, and whatever else a trainer keeps
beside them (arguments, optimizers, whole modules) becomes an inert record of what it was made of.
So nothing needs to be allowed, and no class needs to be importable.
"""

import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from search_spaces.io import other_file

# By the name of its class a storage's type: `FloatStorage` holds torch.float32.
_TYPES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
_MAGIC = 0x1950A86A20F9469CFC6C  # of the files before torch 1.6: pickles one after the other
_DEEPEST = 64  # containers in one another
_PARTS = ("_modules", "_parameters", "_buffers")  # of a module that was saved whole


def read_torch_file(path: Path) -> dict[str, Tensor]:
    """Return every tensor of a file; names of containers that it is in come before, with dots.

    Raises:
        ValueError: if the file is none of torch's, or not whole.
    """
    try:
        if zipfile.is_zipfile(path):
            return _of_archive(path)
        with path.open("rb") as file:
            start = file.read(64)
            if start.startswith(b"PK"):
                raise ValueError("it is cut off")
            if start[:1] != pickle.PROTO:
                raise ValueError(other_file(start) or "it was not written by torch.save")
            file.seek(0)
            return _of_pickles(file)
    except Exception as error:  # unpickling raises whatever it likes
        raise ValueError(str(error) or type(error).__name__) from None


def _of_archive(path: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(path) as archive:
        packed = [info for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
        names = [info.filename for info in archive.infolist()]
        root = next((name[: -len("data.pkl")] for name in names if name.endswith("/data.pkl")), "")
        if f"{root}constants.pkl" in names:
            raise ValueError("it is a TorchScript program, which says no names of weights")
        if not root or packed:
            raise ValueError("it is a zip file of something else")
        with archive.open(f"{root}data.pkl") as file:
            content = _Unpickler(io.BytesIO(file.read())).load_checked()
        return _tensors(dict(_named(content)), lambda key: archive.read(f"{root}data/{key}"))


def _of_pickles(file: IO[bytes]) -> dict[str, Tensor]:
    if _Unpickler(file).load_checked() != _MAGIC:
        raise ValueError("it was not written by torch.save")
    for _ in range(2):  # the protocol's version, and facts of the machine
        _Unpickler(file).load_checked()
    reader = _Unpickler(file)
    content = dict(_named(reader.load_checked()))
    storages: dict[str, bytes] = {}
    for key in map(str, _Unpickler(file).load_checked()):
        count = int.from_bytes(file.read(8), "little", signed=True)
        storages[key] = file.read(max(count, 0) * reader.item_bytes[key])
    return _tensors(content, storages.__getitem__)


def _tensors(content: "Mapping[str, _Found]", read: Callable[[str], bytes]) -> dict[str, Tensor]:
    """Put the tensors together; `read` gives the bytes of a storage by its key."""
    storages: dict[str, Tensor] = {}
    for one in {found.storage: None for found in content.values()}:
        numbers = bytearray(read(one.key))
        empty = torch.empty(0, dtype=one.dtype)
        storages[one.key] = torch.frombuffer(numbers, dtype=one.dtype) if numbers else empty
    return {name: found.within(storages[found.storage.key]) for name, found in content.items()}


@dataclass(frozen=True)
class _Storage:
    """Where the numbers of tensors lie."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True)
class _Found:
    """A tensor that is not read yet."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def within(self, flat: Tensor) -> Tensor:
        """Return it as a view of the numbers of its storage."""
        if len(flat) < max(self.storage.count, math.prod(self.size)):
            raise ValueError("its tensors are cut off")
        return flat.as_strided(self.size, self.stride, self.offset)


class _Inert:
    """Stands for an object of any class: it holds what it would have been made of."""

    held: list[object]

    def __new__(cls, *arguments: object, **named: object) -> "_Inert":
        self = super().__new__(cls)
        self.held = [*arguments, named]
        return self

    def __setstate__(self, state: object) -> None:
        self.held.append(state)

    def __setitem__(self, key: object, value: object) -> None:
        self.held.append({key: value})

    def __call__(self, *arguments: object) -> "_Inert":
        return _Inert(self, *arguments)

    def extend(self, values: Sequence[object]) -> None:
        self.held.extend(values)

    append = add = __setstate__


class _Unpickler(pickle.Unpickler):
    """Makes tensors, containers and inert records, whatever it is told to make."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")  # Python 2 wrote some
        self.item_bytes: dict[str, int] = {}  # of each storage
        self._file = file

    def load_checked(self) -> Any:
        """Load an object whose memo has no holes: an index makes room for all that are below it."""
        start, most = self._file.tell(), 0
        for number, (opcode, argument, _) in enumerate(pickletools.genops(self._file)):
            most = max(most, int(argument or 0) - number) if "PUT" in opcode.name else most
        if most > 0:
            raise ValueError("its memo has holes")
        self._file.seek(start)
        return self.load()

    def find_class(self, module: str, name: str) -> Any:
        if name in _TYPES and module in ("torch", "torch.cuda", "torch.storage"):
            return _TYPES[name]
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        make = _MAKERS.get((module, name))
        return type(name, (_Inert,), {}) if make is None else lambda *given: make(*given)

    def persistent_load(self, pid: Any) -> object:
        kind, made_as, *rest = pid
        if kind != "storage" or not isinstance(made_as, torch.dtype):
            return made_as if kind == "module" else _Inert()  # a class; quantised numbers
        key, count = str(rest[0]), int(rest[2])
        self.item_bytes[key] = made_as.itemsize
        return _Storage(key, made_as, count)


def _strided(storage: object, offset: int, size: Any, stride: Any, *_: object) -> object:
    if not isinstance(storage, _Storage):
        return _Inert(storage)
    return _Found(storage, offset, tuple(size), tuple(stride))


def _first(found: object, *_: object) -> object:
    return found


# Callables that are made anew for each file: what a pickle does to one is gone with it.
_MAKERS: Mapping[tuple[str, str], Callable[..., object]] = {
    ("torch._utils", "_rebuild_tensor"): _strided,
    ("torch._utils", "_rebuild_tensor_v2"): _strided,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _first,
    ("torch._tensor", "_rebuild_from_type_v2"): lambda make, _, given, *more: make(*given),
}


def _named(content: object) -> Iterator[tuple[str, _Found]]:
    """Every tensor in containers and records, however deep, by its dotted name; each once."""
    seen: set[int] = set()
    waiting: list[tuple[tuple[str, ...], object]] = [((), content)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, _Found):
            yield ".".join(path), value
        if id(value) in seen or len(path) > _DEEPEST:
            continue
        seen.add(id(value))
        waiting += [
            (path if name in _PARTS else (*path, *filter(None, [name])), child)
            for name, child in reversed(_children(value))
        ]


def _children(value: object) -> list[tuple[str, object]]:
    """What a container holds by name; what an inert record holds is named as in its own state."""
    if isinstance(value, Mapping):
        return [(str(k), child) for k, child in value.items() if isinstance(k, str | int)]
    if isinstance(value, list | tuple):
        return [(str(i), child) for i, child in enumerate(value)]
    return [("", child) for child in value.held] if isinstance(value, _Inert) else []

"""The loops of MLAS, ONNX Runtime's kernels, on aarch64: how often each of their parts is run.

A convolution is the product of M output channels x K inputs of a group by N positions, the columns
of which are gathered (im2col) block by block. Products are cut into blocks whose right side is
packed; within one the kernel takes 4 rows, then 2, then 1, and 16 columns, at the end 8 or 16.
A single row takes a loop of its own (GEMV), and so does the depthwise 3x3 of stride 1.

The names of what is counted are those of a profile's forms.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.intp]
Counts = Mapping[str, int]  # name of a part -> how often it is run
_BLOCK = 128  # both sides of a block, to begin with
_PACKED = 128, 256  # columns and depth of a block of a constant matrix, packed beforehand
_LEAST_COLUMNS = 16


class Pair(NamedTuple):
    """Something in both directions of a map."""

    y: int
    x: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """How a convolution's kernel goes over a map; `before` is the padding above and at the left."""

    size: Pair  # of the input
    out: Pair
    kernel: Pair
    stride: Pair
    before: Pair
    after: Pair
    dilation: Pair

    @property
    def positions(self) -> int:
        """Pixels of the output."""
        return self.out.y * self.out.x


@dataclass(frozen=True, kw_only=True, slots=True)
class Conv:
    """A convolution of one image, with what is fused into it.

    `summand` is a map that is added to the output: `computed` before by the graph, which is then
    overwritten, or `given` from outside, which is copied.
    """

    c_in: int
    c_out: int
    window: Window
    groups: int = 1
    bias: bool = False
    activation: str = ""  # as ONNX calls it
    summand: Literal["", "computed", "given"] = ""


@lru_cache(maxsize=1 << 16)
def count_conv(conv: Conv) -> tuple[Literal["conv", "depthwise3x3"], Counts]:
    """Return which kernel a convolution takes and what that one runs."""
    counts = Counter(_count_around(conv))
    if _is_depthwise_3x3(conv):
        counts.update(_count_depthwise_3x3(conv))
        return "depthwise3x3", counts
    m, n = conv.c_out // conv.groups, conv.window.positions
    if _is_pointwise(conv.window):
        k = conv.c_in // conv.groups
        _add(counts, count_product(m, n, k, accumulate=bool(conv.summand)), conv.groups)
    else:
        counts.update(_count_gathered(conv, m, n))
    return "conv", counts


def _count_around(conv: Conv) -> dict[str, int]:
    """What is run beside the products: for each group, and over the outputs at the end."""
    outputs = conv.c_out * conv.window.positions
    counts = {
        "one": 1,
        "groups": conv.groups,
        "outputs": outputs,
        "finished": outputs * bool(conv.bias or conv.activation),
        "biases": conv.c_out * conv.bias,
        "summed": outputs * bool(conv.summand),
        "copied": outputs * (conv.summand == "given"),
    }
    return counts | ({conv.activation: outputs} if conv.activation else {})


def _is_pointwise(window: Window) -> bool:
    padding = (*window.before, *window.after)
    return max(*window.kernel, *window.stride) == 1 and not any(padding)


def _is_depthwise_3x3(conv: Conv) -> bool:
    window = conv.window
    return (
        conv.c_in == conv.c_out == conv.groups > 1
        and (window.kernel, window.stride, window.dilation) == ((3, 3), (1, 1), (1, 1))
        and max(*window.before, *window.after) <= 1
    )


def _count_depthwise_3x3(conv: Conv) -> dict[str, int]:
    """Rows of each channel, in fours of columns that need no padding; the edges one by one."""
    (top, left), (bottom, right) = conv.window.before, conv.window.after
    height, width = conv.window.out
    fours, tail = divmod(max(width - left - right, 0), 4)
    counts = {
        "rows": height,
        "tails": height * tail,
        "multiply_adds": (3 * height - top - bottom) * 3 * fours,
        "edges": height * (left + right),
        "padded_fours": (top + bottom) * fours,
        "summed_fours": height * fours * bool(conv.summand),
    }
    return {name: conv.c_out * count for name, count in counts.items()}


def _count_gathered(conv: Conv, m: int, n: int) -> Counter[str]:
    """All positions are gathered at once if there are more rows than those, else by blocks."""
    k = conv.c_in // conv.groups * conv.window.kernel.y * conv.window.kernel.x
    fused = bool(conv.summand)
    counts: Counter[str] = Counter()
    if m > n:
        _add(counts, _count_im2col(conv.window, n), conv.c_in)
        _add(counts, count_product(m, n, k, accumulate=fused), conv.groups)
        return counts
    columns, depth = block_lengths(n, k)
    _add(counts, _count_im2col(conv.window, columns), conv.c_in)
    for width, times in _parts(n, columns):
        products = times * conv.groups
        for i, (deep, repeated) in enumerate(_parts(k, depth)):
            first = int(i == 0 and not fused)  # the one that does not add to what is there
            _add(counts, count_product(m, width, deep), products * first)
            again = count_product(m, width, deep, accumulate=True)
            _add(counts, again, products * (repeated - first))
        counts["depth_blocks"] += products * -(-k // depth)
    return counts


@lru_cache(maxsize=1 << 12)
def _count_im2col(window: Window, length: int) -> Counts:
    """The gathering of one channel, `length` positions a call: by tap of the kernel and row.

    What a tap sees of a row of the output, or of the part of one that a call begins or ends with,
    is a segment: all of it zeros where the tap lies above or below the input; else some padding at
    the left, a run that is copied, and, at stride 1, padding at the right.
    """
    n, width = window.positions, window.out.x
    starts = np.union1d(np.arange(0, n, length), np.arange(0, n, width))
    size, stride = np.diff(starts, append=n)[:, None, None], window.stride
    above, left = (start[:, None, None] for start in np.divmod(starts, width))
    row = (
        above * stride.y + np.arange(window.kernel.y)[:, None] * window.dilation.y - window.before.y
    )
    column = left * stride.x + np.arange(window.kernel.x) * window.dilation.x - window.before.x
    outside = np.broadcast_to((row < 0) | (row >= window.size.y), (len(starts), *window.kernel))
    skipped = np.clip(-(column // stride.x), 0, size)
    begin = column + skipped * stride.x
    skipped = np.where(begin < window.size.x, skipped, size)
    run = size - skipped
    taps = window.kernel.y * window.kernel.x
    counts = {
        "column_rows": np.array(taps * -(-n // length)),
        "zero_segments": outside,
        "zero_tails": outside * (size % 4),
        "padding": ~outside * skipped,
        "padding_segments": ~outside & (run == 0),
        "segments": ~outside & (run > 0),
    }
    runs = _count_strided(run, begin, window) if stride.x > 1 else _count_copied(run, begin, window)
    summed = Counter({name: int(count.sum()) for name, count in counts.items()})
    summed.update({name: int((~outside * count).sum()) for name, count in runs.items()})
    return summed


def _count_copied(run: Numbers, begin: Numbers, window: Window) -> dict[str, Numbers]:
    """Runs at stride 1: vectors of four, a tail of one to three, then the padding."""
    copied = np.minimum(run, np.maximum(window.size.x - begin, 0))
    counts = {"fours": copied // 4, "vector_segments": copied > 3, "padding": run - copied}
    return counts | {f"tails_of_{i}": copied % 4 == i for i in (1, 2, 3)}


def _count_strided(run: Numbers, begin: Numbers, window: Window) -> dict[str, Numbers]:
    """Runs at other strides: one by one, with a look at the edge where they may cross it."""
    within = begin + run * window.stride.x <= window.size.x
    return {"strided": within * run, "strided_at_edge": ~within * run}


@lru_cache(maxsize=1 << 16)
def count_product(
    m: int,
    n: int,
    k: int,
    *,
    accumulate: bool = False,
    packed: bool = False,
    transposed: bool = False,
) -> Counts:
    """Return what the product of m x k by k x n runs.

    With `accumulate` it is added to what is there already. The right side may be `packed`, which a
    constant is before the first run. The loop of a single row takes no side that is `transposed`.
    """
    if m == 1 and not packed and not transposed:
        return {"row_fours": k * -(-n // 4), "row_columns": -(-k // 4) * (n // 4)}
    counts: Counter[str] = Counter()
    columns, depth = _PACKED if packed else block_lengths(n, k)
    for width, times in _parts(n, columns):
        for i, (deep, repeated) in enumerate(_parts(k, depth)):
            counts["blocks"] += times * repeated
            if not packed:
                _add(counts, _count_packing(width, deep), times * repeated)
            first = int(i == 0 and not accumulate)
            _add(counts, _count_kernel(m, width, deep), times * first)
            again = _count_kernel(m, width, deep, accumulate=True)
            _add(counts, again, times * (repeated - first))
    return counts


def block_lengths(n: int, k: int) -> tuple[int, int]:
    """Return the lengths in N and in K of the blocks that a product is cut into.

    While the shorter side fits into half of its length, that one is halved and the other doubled.
    """
    columns = depth = _BLOCK
    if n >= k:
        while depth > 1 and depth // 2 >= k:
            columns, depth = 2 * columns, depth // 2
    else:
        while columns > _LEAST_COLUMNS and columns // 2 >= n:
            columns, depth = columns // 2, 2 * depth
    return columns, depth


def _parts(whole: int, length: int) -> Iterator[tuple[int, int]]:
    """The lengths of the parts that a side is cut into, and how many there are of each."""
    parts, rest = divmod(whole, length)
    if parts:
        yield length, parts
    if rest:
        yield rest, 1


def _count_packing(n: int, k: int) -> dict[str, int]:
    """Strips of 16 columns, then what is left of them in eights, fours, twos and ones."""
    return {"packed_strips": n // 16 * k, "packed_rests": (n % 16).bit_count() * k}


def _count_kernel(m: int, n: int, k: int, *, accumulate: bool = False) -> dict[str, int]:
    """One block: `macs` are those of whole tiles, `eights` the depth of the narrow ones."""
    wide, rest = divmod(n, 16)
    narrow = int(0 < rest <= 8)
    wide += rest > 8
    counts = {}
    calls = 0
    for rows, times in ((4, m // 4), (2, m % 4 // 2), (1, m % 2)):
        outputs = times * rows * (16 * wide + 8 * narrow)
        calls += times
        counts[f"macs_{rows}"] = outputs * k
        counts[f"tiles_{rows}"] = times * (wide + narrow)
        counts[f"eights_{rows}"] = times * narrow * k
        counts["accumulated"] = counts.get("accumulated", 0) + outputs * accumulate
    return counts | {"calls": calls}


def _add(total: Counter[str], counts: Counts, times: int) -> None:
    if times:
        total.update({name: times * count for name, count in counts.items()})

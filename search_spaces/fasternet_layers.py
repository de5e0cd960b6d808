"""The layers of a FasterNet as it is deployed, from the numbers of its config.

The formula holds for numbers and for arrays of them alike, so that a million networks take seconds.
"""

from typing import Literal, get_args

from search_spaces.layers import QUERY_WIDTH, Fields, Layer, Numbers, Op

Activation = Literal["relu", "gelu", "hardswish"]


def fasternet_layers(config: Fields, stages: int) -> list[Layer]:
    """The layer formula, in arithmetic that holds for numbers and for arrays alike."""
    height = stem_side(config["resolution"], config["stem_stride"], config["stem"])
    layers = _stem_layers(config)
    c = config["widths"][0]
    for i in range(stages):
        there = (config["depths"][i] > 0) * 1  # all are but, at times, the last
        if i > 0:
            merging = Layer(
                name=f"stages.{i}.merging",
                op="conv",
                kernel=2,
                stride=2,
                norm=True,
                c_in=c,
                c_out=config["widths"][i],
                height=height,
                width=height,
                repeat=there,
            )
            layers.append(merging)
            height = height // 2 * there + height * (1 - there)
            c = config["widths"][i] * there + c * (1 - there)
        layers += _block_layers(config, i, height)
    return layers + _head_layers(config, c, height)


def _stem_layers(config: Fields) -> list[Layer]:
    """BN(Conv(x)), or BN(Conv3x3(act(BN(Conv3x3(x)))))."""
    c, stride, side = config["widths"][0], config["stem_stride"], config["resolution"]
    convs = (config["stem"] == "convs") * 1
    middle = stem_width(c)
    first, second = 1 + (stride > 1), 1 + (stride > 2)  # as `stem_strides`
    half = -(-side // first)
    three: dict[str, Numbers] = {"kernel": 3, "padded": True, "norm": True}
    patch = Layer(
        name="stem",
        op="conv",
        c_in=3,
        c_out=c,
        norm=True,
        kernel=stride,
        stride=stride,
        height=side,
        width=side,
        repeat=1 - convs,
    )
    conv = _layer("stem.0", "conv", 3, middle, side, repeat=convs, stride=first, **three)
    act = _activations("stem", config["activations"][0], middle, half, convs, bias=True)
    last = _layer("stem.1", "conv", middle, c, half, repeat=convs, stride=second, **three)
    return [patch, conv, *act, last]


def _block_layers(config: Fields, i: int, height: Numbers) -> list[Layer]:
    """The layers of stage i: x + Conv1x1(act(BN(Conv1x1(mixer(x)))))."""
    c, n, kernel = config["widths"][i], config["depths"][i], config["kernels"][i]
    c_p, hidden = channels(c * config["partial_ratios"][i]), channels(c * config["expansions"][i])
    name = f"stages.{i}.block"
    fused = n * (config["expands"][i] == "fused")
    star = n * (config["mlps"][i] == "star")
    groups = dividing(c_p, config["groups"][i])
    x = c * height**2  # the residual; fused, it is what the branch reads too
    mixed, product = x * (config["expands"][i] != "fused"), hidden * height**2
    kept = x + mixed * (config["mlps"][i] == "star")
    return [
        *_mixer_layers(config, i, height, n - fused, groups),
        _layer(f"{name}.fused", "conv", c, hidden, height, repeat=fused, kernel=kernel, norm=True),
        _layer(f"{name}.expand", "conv", c, hidden, height, repeat=n - fused, norm=True, alive=x),
        *_activations(name, config["activations"][i], hidden, height, n, bias=True, alive=kept),
        _layer(
            *(f"{name}.star", "conv", c, hidden, height),
            repeat=star,
            norm=True,
            alive=mixed + product,
        ),
        _layer(f"{name}.multiply", "multiply", hidden, hidden, height, repeat=star, alive=x),
        _layer(f"{name}.project", "conv", hidden, c, height, repeat=n, alive=x),
        _layer(f"{name}.add", "add", c, c, height, repeat=n),
    ]


def _mixer_layers(
    config: Fields, i: int, height: Numbers, n: Numbers, groups: Numbers
) -> list[Layer]:
    """cat(Conv(x[:, :c_p]), gate(x[:, c_p:])), or attention in the convolution's place."""
    c, kernel = config["widths"][i], config["kernels"][i]
    c_p = channels(c * config["partial_ratios"][i])
    rest, name = c - c_p, f"stages.{i}.block"
    attention = n * (config["mixers"][i] == "attention")
    partial = n * (rest > 0)
    gate = partial * (config["untouched"][i] == "gate")
    qkv = 2 * QUERY_WIDTH + c_p
    # The residual stays, and what was split off; without a split the residual is the input.
    x, area = c * height**2, height**2
    beside = (x + rest * area) * (rest > 0)
    return [
        _layer(f"{name}.split_concat", "split_concat", c, c_p, height, repeat=partial, alive=x),
        _layer(
            *(f"{name}.pconv", "conv", c_p, c_p, height),
            kernel=kernel,
            groups=groups,
            repeat=n - attention,
            alive=beside,
        ),
        _layer(f"{name}.qkv", "conv", c_p, qkv, height, norm=True, repeat=attention, alive=beside),
        _layer(
            *(f"{name}.attention", "attention", c_p, c_p, height),
            repeat=attention,
            alive=x + rest * area,
        ),
        *_gate_layers(f"{name}.gate", rest, height, gate, x + c_p * area),
    ]


def _gate_layers(name: str, c: Numbers, height: Numbers, n: Numbers, alive: Numbers) -> list[Layer]:
    """x * hard_sigmoid(Conv1x1(relu(Conv1x1(pool(x)))))."""
    squeezed, beside = squeezed_width(c), alive + c * height**2
    vector: dict[str, Numbers] = {"bias": True, "repeat": n, "alive": beside}
    return [
        _layer(f"{name}.pool", "pool", c, c, height, repeat=n, alive=alive),
        _layer(f"{name}.squeeze", "conv", c, squeezed, 1, **vector),
        _layer(f"{name}.relu", "relu", squeezed, squeezed, 1, **vector),
        _layer(f"{name}.excite", "conv", squeezed, c, 1, **vector),
        _layer(f"{name}.hard_sigmoid", "hard_sigmoid", c, c, 1, **vector),
        _layer(f"{name}.multiply", "gate", c, c, height, repeat=n, alive=alive),
    ]


def _head_layers(config: Fields, c: Numbers, height: Numbers) -> list[Layer]:
    """The layers of the head: Linear(act(Conv1x1(pool(x)))), or Linear(pool(x))."""
    head = config["head_width"]
    there = (head > 0) * 1
    features = head + c * (1 - there)
    return [
        _layer("head.pool", "pool", c, c, height),
        _layer("head.conv", "conv", c, head, 1, repeat=there),
        *_activations("head", config["activation"], head, 1, there, bias=False),
        _layer("head.classifier", "linear", features, config["classes"], 1),
    ]


def _activations(
    name: str, activation: Numbers, c: Numbers, height: Numbers, repeat: Numbers, **others: Numbers
) -> list[Layer]:
    """One record for each activation, of which all but the one that is there repeat 0 times."""
    return [
        _layer(f"{name}.{op}", op, c, c, height, repeat=repeat * (activation == op), **others)
        for op in get_args(Activation)
    ]


def _layer(
    name: str, op: Op, c_in: Numbers, c_out: Numbers, side: Numbers, **others: Numbers
) -> Layer:
    """The record of a layer on a square map."""
    return Layer(name=name, op=op, c_in=c_in, c_out=c_out, height=side, width=side, **others)


def squeezed_width(c: Numbers) -> Numbers:
    """Channels in the middle of a gate on c channels: an eighth to a quarter, in eights."""
    return 8 * (c // 32 + (c < 32))


def stem_side(resolution: Numbers, stride: Numbers, stem: Numbers) -> Numbers:
    """Rows of the map after the stem: padded convolutions keep what a patch would cut off."""
    return (resolution + (stem == "convs") * (stride - 1)) // stride


def stem_width(c: Numbers) -> Numbers:
    """Channels between the two convolutions of a `convs` stem with c output channels."""
    return (c + 1) // 2


def dividing(c: Numbers, groups: Numbers) -> Numbers:
    """Return the groups where they divide the channels, else 1."""
    divides = (c % groups == 0) * 1
    return groups * divides + 1 - divides


def channels(x: Numbers) -> Numbers:
    """Return floor(x) for numbers and arrays, forgiving the rounding of ratios such as 1/3."""
    floor = (x + 1e-6) // 1
    return int(floor) if isinstance(floor, float) else floor

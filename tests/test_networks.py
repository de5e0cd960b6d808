"""What people type for a network: names as papers and pages write them, files of every kind."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from networks import TINY
from onnx import TensorProto, helper, numpy_helper

from nas.cli.main import main
from nas.finetune.select import find_networks
from nas.networks import Typed, find_network, model_subjects
from search_spaces.checkpoint import save
from search_spaces.fasternet import FASTERNET
from search_spaces.formats import save_config
from search_spaces.network import build

Streams = pytest.CaptureFixture[str]
T0 = FASTERNET["t0"]
Shape = Sequence[str | int]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_onnx(
    name: str, shape: Shape = (1, 3, 8, 8), kind: int = TensorProto.FLOAT, op: str = "Conv"
) -> Path:
    """A file with one convolution, its input cast to float if it is none."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 3, 3, 3], [0.1] * 108)
    nodes = [
        helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT),
        helper.make_node(op, ["float", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "t0@64",
        " T0@64 ",
        "T0@64x64",
        "fasternet_t0@64",
        "FasterNet-T0@64",
        "fasternet_t0.in1k@64",
        "timm/fasternet_t0.in1k@64",
        "hf-hub:timm/fasternet_t0.in1k@064",
    ],
)
def test_a_named_size_is_found_as_it_is_written(text: str) -> None:
    found = find_network(text)
    assert (found.name, found.shape) == (text.strip(), (3, 64, 64))
    assert found.identity == find_network("t0@64").identity
    (picked,) = find_networks(text, "best")
    assert picked.config == replace(T0, resolution=64)
    assert "/" not in picked.name


@pytest.mark.parametrize(
    "text",
    [
        "test_resnet",
        "test_resnet.r160_in1k",
        "timm/test_resnet.r160_in1k",
        "Test-ResNet",
        "hf_hub:timm/test_resnet.r160_in1k",
        "https://huggingface.co/timm/test_resnet.r160_in1k",
    ],
)
def test_a_model_of_timm_is_found_as_its_pages_write_it(text: str) -> None:
    found = find_network(f"{text}@64x32")
    assert (found.name, found.shape) == (f"{text}@64x32", (3, 32, 64))
    assert found.params == find_network("test_resnet@32").params


def test_a_name_that_is_almost_one_is_told_which() -> None:
    with pytest.raises(ValueError, match=r"but got 'resnet-5o', which is none\. Is it resnet50"):
        find_network("resnet-5o")
    with pytest.raises(ValueError, match=r"but got 'no_such', which is none\."):
        find_network("timm/no_such")
    with pytest.raises(
        ValueError, match=r"a tag of timm's \(.*\) or none, but resnet50\.x has 'x'"
    ):
        find_network("resnet50.x")


def test_configs_and_checkpoints_are_networks_of_every_command(folder: Path) -> None:
    save_config(TINY, folder / "mine@home.YML")
    save(build(TINY), folder / "w.safetensors")
    (folder / "w.safetensors").rename(folder / "W.SafeTensors")
    (folder / "plain").write_bytes((folder / "W.SafeTensors").read_bytes())
    for name in ("mine@home.YML", "W.SafeTensors", "plain"):
        assert find_network(name).identity == find_network("mine@home.YML").identity
        found = find_network(f"{name}@64")
        assert (found.name, found.shape) == (f"{name}@64", (3, 64, 64))
        (picked,) = find_networks(f"{name}@64", "best")
        assert picked.config == replace(TINY, resolution=64)
        assert picked.init == ("" if "YML" in name else str(folder / name))
        assert main(["export", f"{name}@64"]) == 0
    with pytest.raises(
        ValueError, match=r"square images where it is a config, but got 'plain@64x3"
    ):
        find_network("plain@64x32")


NONE_OF_THE_KINDS = {
    "model.tflite": (b"TFL3", "model.tflite is a LiteRT file. Give that of which it was made."),
    "model.engine": (b"\0ftrt", "is an engine of TensorRT. Give that of which"),
    "old.pth": (b"\x80\2", "old.pth is a file of torch, which says no config. Name the config"),
    "cut.zip": (b"PK\3\4", "cut.zip is a file of none of these kinds. Check the path."),
    "notes.txt": (b"Dear diary,\n", "notes.txt is a file of none of these kinds. Check the path."),
    "picture.png": (b"\x89PNG\r\n", "picture.png is a file of none of these kinds."),
    "empty": (b"", "empty is a file of none of these kinds."),
}


@pytest.mark.parametrize("command", ["measure", "train", "export"])
@pytest.mark.parametrize("name", NONE_OF_THE_KINDS)
def test_a_file_of_no_kind_is_told_the_kinds(
    name: str, command: str, folder: Path, capsys: Streams
) -> None:
    content, words = NONE_OF_THE_KINDS[name]
    (folder / name).write_bytes(content)
    assert main([command, name]) == 2
    said = capsys.readouterr().err
    assert said.startswith("fasternas: error: `network` must be ")
    assert "config" in said.split(", but ")[0]
    assert words in said
    assert said.count("\n") == 1


def test_folders_and_files_for_others_are_said_to_be_such(folder: Path) -> None:
    (folder / "out").mkdir()
    with pytest.raises(ValueError, match=r"but out is a folder\. Of a run name configs/NAME\.yaml"):
        find_network("out")
    write_onnx("x.onnx")
    with pytest.raises(ValueError, match=r"a config or checkpoint file, or .*x\.onnx is an ONNX f"):
        find_networks("x.onnx", "best")


@pytest.mark.parametrize("name", ["MODEL.ONNX", "model", "net.v2.onnx"])
def test_onnx_files_are_known_by_any_name(name: str) -> None:
    found = find_network(str(write_onnx(name)))
    assert (found.name, found.shape, found.macs) == (name, (3, 8, 8), 36 * 108)


@pytest.mark.parametrize(
    ("shape", "text", "expected"),
    [
        (["n", 3, "h", "w"], "x.onnx@416", (3, 416, 416)),
        (["n", 3, "h", "w"], "x.onnx@640x480", (3, 480, 640)),
        ([1, 3, None, None], "x.onnx@640X480", (3, 480, 640)),
        (["n", "h", "w", 3], "x.onnx@64x32", (32, 64, 3)),
        (["n", 3, "h", 32], "x.onnx@16", (3, 16, 32)),
        (["n", 3, 8, 16], "x.onnx@16x8", (3, 8, 16)),
    ],
)
def test_free_sides_take_the_size_that_is_said(
    shape: Shape, text: str, expected: tuple[int, ...]
) -> None:
    write_onnx("x.onnx", shape)
    found = find_network(text)
    assert (found.name, found.shape) == (text, expected)


@pytest.mark.parametrize(
    ("shape", "text", "message"),
    [
        (["n", 3, "h", "w"], "x.onnx", r"takes \[3, 'h', 'w'\]\. Say a size, as in x\.onnx@224 or"),
        (
            [1, None, None, None],
            "x.onnx@8",
            r"but takes \['\?', '\?', '\?'\]\. Export it with its other sides fixed",
        ),
        (["n", 3, "h", 32], "x.onnx@16x8", r"but takes \[3, 'h', 32\]"),
        (["n", 3, 8, 8], "x.onnx@16", r"without a size, since it takes \[3, 8, 8\] and no other"),
        ([8, 3, 8, 8], "x.onnx", r"x\.onnx must take a batch of one or any, but takes 8\. Export"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(shape: Shape, text: str, message: str) -> None:
    write_onnx("x.onnx", shape)
    with pytest.raises(ValueError, match=message):
        find_network(text)


@pytest.mark.parametrize("kind", ["FLOAT", "FLOAT16", "DOUBLE", "UINT8", "INT8"])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_inputs_of_other_types_are_timed(runtime: str, kind: str, capsys: Streams) -> None:
    write_onnx("x.onnx", ["n", 3, "h", "w"], TensorProto.DataType.Value(kind))
    command = ["measure", "x.onnx@16x8", "--repeats", "1", "--runtime", runtime, "--json"]
    assert main(command) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["macs"]) == ("x.onnx@16x8", 6 * 14 * 108)


@pytest.mark.parametrize("options", [["--runtime", "openvino"], ["--precision", "int8"]])
@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.UINT8])
def test_networks_of_half_precision_are_timed(
    kind: int, options: list[str], capsys: Streams
) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Conv", ["half", "w"], ["y"]),
    ]
    numbers = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float16)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, None)],
        [numpy_helper.from_array(numbers, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    Path("x.onnx").write_bytes(model.SerializeToString())
    assert main(["measure", "x.onnx", "--repeats", "1", "--json", *options]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["macs"] == 36 * 108


@pytest.mark.parametrize("kind", ["INT64", "BOOL", "STRING", "BFLOAT16", "COMPLEX64"])
def test_inputs_of_types_without_images_are_refused_by_name(kind: str) -> None:
    write_onnx("x.onnx", kind=TensorProto.DataType.Value(kind))
    message = rf"x\.onnx must take one input, of float32, .*, but takes x \({kind.lower()}\)\. Exp"
    with pytest.raises(ValueError, match=message):
        find_network("x.onnx")


def test_two_sizes_of_a_file_are_two_networks() -> None:
    from predictors.backends.onnx_file import deployed_bytes

    write_onnx("x.onnx", ["n", 3, "h", "w"])
    small, large = (find_network(f"x.onnx@{side}") for side in (8, 16))
    assert small.identity != large.identity
    assert deployed_bytes(small) != deployed_bytes(large)
    (taken,) = onnx.load_model_from_string(deployed_bytes(large)).graph.input
    assert [dim.dim_value for dim in taken.type.tensor_type.shape.dim] == [0, 3, 16, 16]


def test_of_several_the_others_are_timed_and_the_bad_ones_named(capsys: Streams) -> None:
    write_onnx("a/net.onnx")
    write_onnx("b/net.onnx", (1, 3, 9, 9))
    write_onnx("c/net.onnx", op="ConvTransposed")
    Path("d.onnx").write_bytes(b"nothing")
    networks = ["a/net.onnx", "gone.onnx", "c/net.onnx", "b/net.onnx", "d.onnx"]
    assert main(["measure", *networks, "--repeats", "1"]) == 2
    out, err = capsys.readouterr()
    table, sentence = out.strip().splitlines()[:-1], out.strip().splitlines()[-1]
    assert [line.split()[0] for line in table[2:]] == ["a/net.onnx", "b/net.onnx"]
    assert sentence.startswith(("a/net.onnx is ", "b/net.onnx is ", "a/net.onnx and b/net.onnx"))
    errors = [line for line in err.splitlines() if line.startswith("fasternas: error: ")]
    assert len(errors) == 3
    assert "must be a file that exists, but got 'gone.onnx'." in errors[0]
    assert "d.onnx must be an ONNX file, but cannot be read as one" in errors[1]
    assert errors[2].startswith("fasternas: error: c/net.onnx: ")
    assert "ConvTransposed" in errors[2]
    assert "/tmp" not in err


def test_the_only_one_that_is_bad_is_an_error(capsys: Streams) -> None:
    for networks in (["gone.onnx"], ["gone.onnx", "gone.yaml"]):
        assert main(["measure", *networks]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert "'gone.onnx'" in err


def test_a_bench_goes_on_without_what_is_no_network(capsys: Streams) -> None:
    write_onnx("a/net.onnx")
    write_onnx("b/net.onnx", (1, 3, 9, 9))
    subjects, wrong = model_subjects(["a/net.onnx", "b/net.onnx", "no_such_net", "t0", "t0"])
    assert [subject.label for subject in subjects] == ["a/net.onnx", "b/net.onnx", "T0"]
    assert [*wrong] == ["no_such_net"]
    assert "but got 'no_such_net', which is none." in wrong["no_such_net"]


def test_names_and_sizes_are_taken_apart(folder: Path) -> None:
    (folder / "x@64").touch()
    assert Typed.parse("x@64") == Typed(text="x@64", name="x@64")
    assert Typed.parse("x@64@32") == Typed(text="x@64@32", name="x@64", size=(32, 32))
    for text in ("t0@", "t0@0", "t0@big", "t0@64x", "@64", "t0@99999999"):
        assert Typed.parse(text) == Typed(text=text, name=text)


def test_torch_files_are_no_networks_whatever_they_are_called(folder: Path) -> None:
    torch.save({"a": torch.ones(3)}, folder / "weights")
    with pytest.raises(ValueError, match="but weights is a file of torch, which says no config"):
        find_network("weights")

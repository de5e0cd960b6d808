"""`fasternas export` from end to end, and what it says to what it cannot do."""

import errno
import json
import shutil
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from safetensors.torch import save_file

import fasternas as fn
from nas.cli.main import main
from nas.finetune.export import find_weights, real_images
from predictors.backends import table
from predictors.data.datasets import load_data
from predictors.training.evaluate import CalibrationImages
from predictors.training.recipe import SHORT
from predictors.training.trainer import Trainer
from search_spaces.checkpoint import read_checkpoint
from search_spaces.timm_models import import_timm

Streams = pytest.CaptureFixture[str]
CONFIG = fn.FasterNetConfig(
    widths=(16, 32),
    depths=(1, 1),
    partial_ratios=(0.25, 0.5),
    expansions=(2.0, 2.0),
    resolution=8,
    stem_stride=2,
    head_width=32,
    classes=10,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that has learned something of scikit-learn's digits."""
    file = tmp_path_factory.mktemp("trained") / "digits.safetensors"
    data = load_data("digits", resolution=8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trainer = Trainer(fn.build(CONFIG), data, replace(SHORT, epochs=4, flip=False))
    for _ in trainer.run():
        pass
    network: Any = trainer.network
    fn.save(network, file, classes=data.classes, mean=data.mean, std=data.std)
    return file


def _refused(arguments: list[Any], message: str, capsys: Streams) -> None:
    assert main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_a_trained_network_says_what_each_file_costs(
    trained: Path, tmp_path: Path, capsys: Streams
) -> None:
    arguments = [
        "export",
        str(trained),
        "--data",
        "digits",
        "--to",
        "onnx,onnx-int8,timm",
        "--out",
        str(tmp_path / "out"),
        "--images",
        "100",
    ]
    assert main([*arguments, "--json"]) == 0
    exact, int8, timm = json.loads(capsys.readouterr().out)
    assert [exact["file"], int8["file"], timm["file"]] == [
        str(tmp_path / "out" / name) for name in ("digits.onnx", "digits.int8.onnx", "digits-timm")
    ]
    assert exact["agreement"]["images"] == 100
    assert exact["agreement"]["accuracy"] > 60
    assert exact["accuracy_lost"] == timm["accuracy_lost"] == 0
    assert abs(int8["accuracy_lost"]) < 15
    assert int8["agreement"]["same"] > 80
    assert Path(int8["file"]).stat().st_size == int8["bytes"] < exact["bytes"]

    assert main([*arguments[:3], str(tmp_path / "absent")]) == 2
    assert (
        "`data` must be digits, a folder of IDX files, a folder of images"
        in capsys.readouterr().err
    )
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert "digits.int8.onnx  onnx-int8" in said.out
    assert 'load digits.onnx: onnxruntime.InferenceSession("' in said.out
    assert said.err.startswith("There is no validation split: 143 of the 1,438")


def test_the_weights_of_a_training_are_called_as_its_folder(trained: Path, tmp_path: Path) -> None:
    for name in ("small", "large"):
        (tmp_path / name).mkdir()
        weights = shutil.copy(trained, tmp_path / name / "weights.safetensors")
        assert main(["export", str(weights), "--to", "onnx", "--out", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "large.onnx",
        "small.onnx",
    ]


def test_several_are_exported_and_one_that_is_none_is_named(
    trained: Path, tmp_path: Path, capsys: Streams
) -> None:
    for name in ("small", "large"):
        (tmp_path / name).mkdir()
        shutil.copy(trained, tmp_path / name / "weights.safetensors")
    small, large = (str(tmp_path / n / "weights.safetensors") for n in ("small", "large"))
    absent = str(tmp_path / "absent.yaml")
    out = ["--to", "onnx,yaml", "--out", str(tmp_path / "out")]
    assert main(["export", small, absent, large, *out]) == 2
    said = capsys.readouterr()
    assert [line.split()[0] for line in said.out.splitlines()[2:4]] == ["small.onnx", "large.onnx"]
    assert said.out.count("load ") == 2
    done = [line for line in said.err.splitlines() if " of 2: " in line]
    assert done == [
        f"{number} of 2: {name}: {tmp_path / 'out' / name}.onnx"
        for number, name in ((1, "small"), (2, "large"))
    ]
    *refused, wrong = said.err.splitlines()[-3:]
    for name, line in zip(("small", "large"), refused, strict=True):
        assert line.startswith(f"fasternas: refused: {name}: yaml: ")
    assert wrong.startswith("fasternas: error: ")
    assert absent in wrong

    (tmp_path / "other" / "small").mkdir(parents=True)
    other = shutil.copy(small, tmp_path / "other" / "small" / "weights.safetensors")
    _refused(["export", small, other, *out], "two are called small", capsys)
    assert main(["export", small, large, "--json", "--out", str(tmp_path / "json")]) == 0
    files = [Path(one["file"]).name for one in json.loads(capsys.readouterr().out)]
    assert files == ["small.onnx", "large.onnx"]


def test_features_of_three_stages_are_listed(tmp_path: Path, capsys: Streams) -> None:
    three = fn.FasterNetConfig(
        widths=(8, 16, 32, 64),
        depths=(1, 1, 1, 0),
        partial_ratios=(0.5,) * 4,
        expansions=(2.0,) * 4,
        resolution=32,
        classes=4,
    )
    fn.save_config(three, tmp_path / "x.yaml")
    out = ["--out", str(tmp_path / "out")]
    assert main(["export", str(tmp_path / "x.yaml"), "--features", "--json", *out]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    listed = [(one["channels"], one["stride"]) for one in found["features"]]
    assert listed == [(8, 4), (16, 8), (32, 16)]


def test_features_are_listed(tmp_path: Path, capsys: Streams, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    fn.save_config(CONFIG, tmp_path / "x.yaml")
    assert main(["export", "x.yaml", "--features", "--batch", "dynamic", "--to", "torch"]) == 0
    said = capsys.readouterr()
    assert "stride2: 16 channels, stride 2\nstride4: 32 channels, stride 4\n" in said.out
    assert [path.name for path in Path("exports").iterdir()] == ["x.features.pt2"]
    assert said.err == (
        "The weights are random, for want of a checkpoint or --weights.\n"
        "The images to check with are noise, for want of --data.\n"
    )


def test_weights_are_given_beside_a_config(trained: Path, tmp_path: Path, capsys: Streams) -> None:
    fn.save_config(CONFIG, tmp_path / "x.yaml")
    save_file(fn.load(trained).state_dict(), tmp_path / "plain.safetensors")
    found, said = [], []
    for weights in (trained, tmp_path / "plain.safetensors"):
        assert (
            main(
                [
                    "export",
                    str(tmp_path / "x.yaml"),
                    "--weights",
                    str(weights),
                    "--json",
                    "--data",
                    "digits",
                    "--out",
                    str(tmp_path / "out"),
                ]
            )
            == 0
        )
        streams = capsys.readouterr()
        found.append(json.loads(streams.out)[0]["agreement"]["accuracy"])
        said.append(streams.err)
    assert found[0] > 60
    assert found[1] > 20  # the same weights, but other mean and deviation
    assert "does not say how images are normalised" not in said[0]
    assert (
        "plain.safetensors does not say how images are normalised: as for timm's FasterNets, "
        "by mean 0.485, 0.456, 0.406 and deviation 0.229, 0.224, 0.225. If"
    ) in said[1]
    _refused(["export", "t0", "--weights", trained], "holds another config", capsys)
    _refused(
        ["export", "t0", "--weights", tmp_path / "plain.safetensors"],
        "plain.safetensors: The weights must be the ",
        capsys,
    )
    _refused(["export", trained, "--weights", trained], "`weights` must be left out for", capsys)


def test_foreign_weights_are_normalised_alike_in_every_file(tmp_path: Path) -> None:
    config = replace(fn.FASTERNET["t0"], resolution=32, classes=10)
    fn.save_config(config, tmp_path / "x.yaml")
    torch.save(fn.build(config).state_dict(), tmp_path / "timm.pth")
    assert (
        main(
            [
                "export",
                str(tmp_path / "x.yaml"),
                "--weights",
                str(tmp_path / "timm.pth"),
                "--data",
                "digits",
                "--images",
                "4",
                "--to",
                "onnx,timm",
                "--out",
                str(tmp_path),
            ]
        )
        == 0
    )
    props = {
        prop.key: json.loads(prop.value) for prop in onnx.load(tmp_path / "x.onnx").metadata_props
    }
    theirs = json.loads((tmp_path / "x-timm" / "config.json").read_text())["pretrained_cfg"]
    said = import_timm().get_pretrained_cfg("fasternet_t0")
    for name, key in (("mean", "mean"), ("std", "std"), ("crop_pct", "crop")):
        wanted = getattr(said, name)
        wanted = list(wanted) if isinstance(wanted, tuple) else wanted
        assert props[key] == theirs[name] == wanted
    images = real_images(
        "digits",
        find_weights(str(tmp_path / "x.yaml"), weights=str(tmp_path / "timm.pth"))[0],
        trained=True,
        count=1,
    )
    assert (images.data.mean, images.data.std, images.crop) == (said.mean, said.std, 1.0)


def test_a_folder_that_cannot_be_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Streams
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("nas.networks.find_each", lambda *_: pytest.fail("networks were read"))
    out = tmp_path / "file"
    _refused(["export", "t0", "--out", out], f"`out` must be a folder, but {out} is a", capsys)


@pytest.mark.parametrize("named", [True, False])
def test_a_full_disk_names_the_file(
    named: bool,  # noqa: FBT001
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Streams,
) -> None:
    def write(_: object, stem: Path, __: object) -> Path:
        file = stem.with_suffix(".onnx")
        file.touch()
        raise OSError(errno.ENOSPC, "No space left on device", str(file) if named else None)

    monkeypatch.setattr("predictors.backends.onnxruntime.write", write)
    fn.save_config(CONFIG, tmp_path / "x.yaml")
    out = tmp_path / "out"
    words = f"error: No space left on device: {out / 'x.onnx'}. Free some space.\n"
    assert main(["export", str(tmp_path / "x.yaml"), "--out", str(out)]) == 2
    assert capsys.readouterr().err.endswith(words)
    assert not out.exists()


def test_a_refusal_does_not_keep_the_others_from_being_written(
    trained: Path, tmp_path: Path, capsys: Streams
) -> None:
    out = tmp_path / "out"
    assert main(["export", str(trained), "--to", "yaml,onnx", "--out", str(out), "--json"]) == 2
    said = capsys.readouterr()
    first, second = json.loads(said.out)
    assert first == {"network": "digits", "format": "yaml", "refused": first["refused"]}
    assert f"fasternas: refused: yaml: {first['refused']}\n" in said.err
    assert [str(path) for path in out.iterdir()] == [second["file"]]


@pytest.mark.parametrize("end", [0, 100, -5])
def test_a_checkpoint_that_was_cut_off_is_one_line(
    end: int, trained: Path, tmp_path: Path, capsys: Streams
) -> None:
    broken = tmp_path / "x.safetensors"
    broken.write_bytes(trained.read_bytes()[:end])
    _refused(["export", broken], "x.safetensors: The file must be a whole checkpoint", capsys)
    _refused(["export", "t0", "--weights", broken], "must be a whole checkpoint", capsys)


def test_a_config_of_a_newer_version_is_one_line(tmp_path: Path, capsys: Streams) -> None:
    (tmp_path / "x.yaml").write_text("fasternas: 2\nwidths: [8]\n", encoding="utf-8")
    _refused(["export", tmp_path / "x.yaml"], "`fasternas` must be at most 1", capsys)
    _refused(["export", tmp_path / "none.yaml"], "file that exists, but got", capsys)
    _refused(
        ["export", "t0", "--to", "onnx,tflite"], "`to` must be one of onnx, onnx-int8,", capsys
    )
    with pytest.raises(SystemExit, match="2"):
        main(["export", "t0", "--batch", "0"])
    assert "--batch: must be a positive whole number, but got '0'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("nothing", ""),
        ("", " Of a run name configs/NAME.yaml or trained/NAME/weights.safetensors."),
    ],
)
def test_what_is_no_network_is_one_line(
    name: str, advice: str, tmp_path: Path, capsys: Streams
) -> None:
    assert main(["export", str(tmp_path / name)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("fasternas: error: `network` must be one of t0, ")
    assert said.endswith(f"{advice}\n")
    assert ("a folder." in said) == bool(advice)
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("target", "extra"), [("openvino", "openvino"), ("ncnn", "ncnn"), ("openvino-int8", "openvino")]
)
def test_what_is_not_installed_says_how_to_install_it(
    target: str, extra: str, tmp_path: Path, capsys: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version_of(package: str) -> str:
        if package in ("openvino", "ncnn", "pnnx"):
            raise PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(table, "version", version_of)
    _refused(
        ["export", "t0", "--to", f"onnx,{target}", "--out", tmp_path / "out"],
        f"`to` {target} must be installed here, but {extra} is not. Install it with "
        f"`pip install 'fasternas[{extra}]'`.",
        capsys,
    )
    assert not (tmp_path / "out").exists()


def test_data_of_other_classes_are_refused(trained: Path, tmp_path: Path, capsys: Streams) -> None:
    checkpoint = read_checkpoint(trained)
    for names, message in [
        ("abcdefghij", "has ['0', '1', '2', '3', '4', '5', ...], which it does not know. Give"),
        ("9876543210", "has them in another order"),
    ]:
        other = shutil.copy(trained, tmp_path / "other.safetensors")
        fn.save(fn.load(other), other, classes=tuple(names))
        _refused(["export", other, "--data", "digits"], message, capsys)
    few = fn.FasterNetConfig(
        widths=(8,),
        depths=(1,),
        partial_ratios=(0.5,),
        expansions=(2.0,),
        resolution=8,
        stem_stride=2,
        head_width=8,
        classes=3,
    )
    fn.save(fn.build(few), tmp_path / "few.safetensors")
    message = "`data` must have the 3 classes that the network tells apart, but got 10"
    _refused(["export", tmp_path / "few.safetensors", "--data", "digits"], message, capsys)
    assert checkpoint.classes == tuple("0123456789")


def test_images_are_normalised_as_the_network_was_trained(trained: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(trained)
    fn.save(checkpoint.network(), tmp_path / "x.safetensors", mean=(0.0,), std=(1 / 255,))
    other = read_checkpoint(tmp_path / "x.safetensors")
    images = real_images("digits", other, trained=True, count=20)
    batches = list(images(8))
    assert [len(batch) for batch, _ in batches] == [8, 8, 4]
    whole = torch.cat([batch for batch, _ in batches])
    assert whole.max() > 200
    assert whole.shape == (20, 3, 8, 8)
    assert torch.allclose(whole, whole.round(), atol=1e-3)  # 0 to 255 again
    calibration = images.calibration_images(100)
    assert isinstance(calibration, CalibrationImages)
    assert [len(batch) for batch in calibration] == [len(b) for b in calibration] == [100, 100]
    assert [labels for _, labels in real_images("digits", other, trained=False, count=1)(8)] == [
        None
    ]

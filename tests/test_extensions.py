"""A package outside of the repository adds one of everything, which the command line then has."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from labs import ON_ARM, ON_CPU, Streams, error_of, register
from networks import TINY

import fasternas as fn
from nas.cli.main import main
from nas.study.options import SearchOptions, SearchSettings
from nas.study.store import write_run
from predictors.backends.table import find_runtime
from predictors.devices.device import DeviceSpec
from predictors.devices.registry import open_device
from search_spaces.formats import save_config
from search_spaces.spaces import find_space

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the package of the examples is built and installed."""
    source = tmp_path_factory.mktemp("source") / "my-lab"
    shutil.copytree(EXAMPLES, source, ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path_factory.mktemp("site")
    options = ["--no-deps", "--no-build-isolation", "--no-compile", "--no-index", "-q"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *options]
    subprocess.run([*pip, "--target", folder, source], check=True)
    return folder


@pytest.fixture
def my_lab(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package is installed and none of it is imported."""
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.chdir(tmp_path)
    save_config(TINY, tmp_path / "tiny.yaml")
    yield
    for name in _imported():
        del sys.modules[name]


def _imported() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == "my_lab"]


@pytest.mark.usefixtures("my_lab")
def test_what_is_listed_names_them_and_imports_nothing(capsys: Streams) -> None:
    for name in [name for name in sys.modules if name.startswith("my_lab")]:  # of other tests
        del sys.modules[name]
    for command in ("search", "measure", "export"):
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
    helps = " ".join(capsys.readouterr().out.split())
    assert helps.count("or onnxruntime-plain") == 2
    assert "yaml, onnxruntime-plain (onnx)" in helps
    assert "end-width or auto" in helps
    assert "or climbing" in helps
    assert main(["spaces"]) == main(["devices"]) == 0
    listed = capsys.readouterr().out
    assert "small: of the package my-lab 0.1.0; `fasternas spaces small` loads it" in listed
    assert "of the package my-lab 0.1.0, which is loaded when it is named" in listed
    assert main(["spaces", "--json"]) == main(["devices", "--json"]) == 0
    assert '"name": "small",\n    "package": "my-lab 0.1.0"' in capsys.readouterr().out
    for bad in (find_space, open_device, find_runtime):
        with pytest.raises(ValueError, match=r"small|stopwatch|onnxruntime-plain"):
            bad("none")
    assert _imported() == []


@pytest.mark.usefixtures("my_lab", "without_ray")
def test_a_search_takes_its_device_space_estimator_and_searcher(
    monkeypatch: pytest.MonkeyPatch, capsys: Streams
) -> None:
    settings = SearchSettings(calibration=10, front_repeats=1, timed_ratio=0.0)
    monkeypatch.setattr("nas.pipeline.SETTINGS", settings)
    device = ["--device", "stopwatch", "--runtime", "onnxruntime-plain", "--budget", "1s"]
    own = ["--space", "small", "--accuracy", "end-width", "--searcher", "climbing"]
    run = ["--trials", "4", "--out", "run"]
    assert main(["search", *device, *own, *run]) == 0
    said = capsys.readouterr()
    assert "(by end-width): it ranks, it is no accuracy" in said.err
    assert "PyTorch in this process, by a stopwatch: measured" in said.err
    measured = Path("run/measurements.jsonl").read_text()
    assert '"runtime":"onnxruntime-plain"' in measured
    assert main(["search", "--out", "run", "--resume", "--trials", "5"]) == 0
    assert "runtime" in measured
    assert main(["show", "run", "--json"]) == 0
    front = json.loads(capsys.readouterr().out.rpartition("\n[")[2].join(["[", ""]))
    assert all(row["accuracy_kind"] == "score" for row in front)


@pytest.mark.usefixtures("my_lab")
def test_its_backend_is_timed_and_exported(capsys: Streams) -> None:
    options = ["--runtime", "onnxruntime-plain", "--repeats", "1", "--json"]
    assert main(["measure", "tiny.yaml", *options]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["runtime"] == "onnxruntime-plain"
    assert row["median_ms"] > 0
    assert main(["export", "tiny.yaml", "--to", "onnxruntime-plain", "--out", "out"]) == 0
    assert [path.name for path in Path("out").iterdir()] == ["tiny.plain.onnx"]
    assert "load tiny.plain.onnx: onnxruntime.InferenceSession(" in capsys.readouterr().out


@pytest.mark.usefixtures("my_lab", "without_ray")
def test_a_space_may_be_named_by_its_module_or_file(site: Path, capsys: Streams) -> None:
    file = site / "my_lab" / "space.py"
    for name in ("small", "my_lab.space:SMALL", f"{file}:SMALL"):
        assert main(["spaces", name, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)[0]["size"] == 256
    search = ["search", "--device", "arm", "--budget", "1s", "--trials", "2", "--out", "run"]
    assert main([*search, "--space", f"{file}:SMALL"]) == 0
    text = file.read_text()
    file.write_text(text.replace("fn.oneof(8, 16)", "fn.oneof(8, 24)"))
    sys.modules.pop(f"space of {file}")
    capsys.readouterr()
    assert main(["show", "run"]) == 2
    file.write_text(text)
    words = "`space` must be as it was when the study in run began, but"
    assert words in capsys.readouterr().err


@pytest.mark.usefixtures("my_lab")
@pytest.mark.parametrize(
    ("space", "words"),
    [
        ("none", r"`space` must be one of fasternet, .*, small, or package\.module:SPACE or FILE"),
        ("my_lab.none:S", r"my_lab\.none:S cannot be loaded: ModuleNotFoundError: No module named"),
        ("none.py:S", r"/none\.py:S cannot be loaded: FileNotFoundError"),
        ("my_lab.space:main", r"must name a Space, but main of my_lab\.space is <function main"),
        (
            "my_lab.space:PERCEPTRONS",
            r"configs of FasterNetConfig .* are Perceptron, without activation, .* and \d+ more\. "
            r"fasternas\.search\(\) takes any\.",
        ),
    ],
)
def test_what_is_no_space_for_the_command_is_refused_in_one_line(
    space: str, words: str, capsys: Streams
) -> None:
    assert main(["search", "--device", "arm", "--budget", "1s", "--space", space]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    with pytest.raises(ValueError, match=words):
        raise ValueError(said)


_ENTRIES = {
    "devices": "open_nothing",
    "backends": "LINES",
    "estimators": "open_nothing",
    "spaces": "SPACE",
    "searchers": "open_nothing",
}
_MODULE = {
    "broken_lab": "import nothing_of_that_name\n",
    "wrong_lab": "SPACE = LINES = open_nothing = 7\n",
    "empty_lab": "def open_nothing(*_):\n    return None\n\n\nSPACE = LINES = ()\n",
    "raising_lab": "def open_nothing(*_):\n    return 1 / 0\n\n\nSPACE = LINES = ()\n",
}


@pytest.fixture
def lab_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder from which packages are imported, and in which one works."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(params=list(_MODULE))
def lab(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package with entry points that are wrong in some way."""
    name: str = request.param
    (tmp_path / f"{name}.py").write_text(_MODULE[name], encoding="utf-8")
    register(tmp_path, name, {group: f"bad = {name}:{v}" for group, v in _ENTRIES.items()})
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize("options", ["device", "runtime", "accuracy", "space", "searcher"])
def test_a_broken_package_gives_one_line_that_names_it(
    lab: str, options: str, capsys: Streams
) -> None:
    if lab == "raising_lab" and options in ("runtime", "space"):
        pytest.skip("These are not called.")
    search = {"device": "arm", "budget": "2ms", "space": "fasternet", options: "bad"}
    search["device"] = "cpu" if options == "runtime" else search["device"]
    words = [word for name, value in search.items() for word in (f"--{name}", value)]
    assert main(["search", *words, "--out", "run", "--trials", "2"]) == 2
    said = capsys.readouterr().err
    assert f"{lab} 2.0" in said
    assert said.count("\n") == 1
    assert not Path("run/study.journal").exists()


_STOPWATCH = DeviceSpec(name="stopwatch", budget_ms=9.0)
_PLAIN = DeviceSpec(name="cpu", budget_ms=9.0, backends=(fn.Backend("onnxruntime-plain"),))


@pytest.mark.usefixtures("my_lab")
@pytest.mark.parametrize(
    ("changes", "named", "commands"),
    [
        ({"space": "small"}, "`space` small", ["search --resume", "show"]),
        ({"searcher": "climbing"}, "`searcher` climbing", ["search --resume", "show"]),
        ({"accuracy": "end-width"}, "`accuracy` end-width", ["search --resume", "show"]),
        ({"devices": (_STOPWATCH,)}, "`device` stopwatch", ["search --resume"]),
        ({"devices": (_PLAIN,)}, "`runtime` onnxruntime-plain", ["search --resume"]),
    ],
)
def test_a_run_names_the_package_that_is_gone(
    changes: dict[str, Any], named: str, commands: list[str], site: Path, capsys: Streams
) -> None:
    options = replace(ON_CPU, **changes)
    assert SearchOptions.from_json(options.as_json()) == options
    Path("run").mkdir()
    write_run(Path("run"), {"options": options.as_json()})
    sys.path.remove(str(site))
    words = (
        f"{named} must be of an installed package, but none provides it; my-lab 0.1.0 provided it "
        "when the search was begun. Install my-lab 0.1.0, and try again."
    )
    for command in commands:
        place = ["--out", "run"] if command.startswith("search") else ["run"]
        assert main([*command.split(), *place]) == 2
        assert words in error_of(capsys)


def test_a_run_of_before_whose_package_is_gone_is_not_called_damaged() -> None:
    stored = {**ON_CPU.as_json(), "searcher": "climbing"}
    words = "`searcher` climbing must be of an installed package, .*Install the one that does"
    with pytest.raises(ValueError, match=words):
        SearchOptions.from_json(stored)


def test_a_name_of_two_packages_is_of_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        register(tmp_path, name, {"spaces": f"small = {name}:SPACE"})
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RuntimeError, match=r"must have one small, but (one|two) 2\.0 and"):
        find_space("small")


@pytest.mark.parametrize(
    ("group", "name", "command"),
    [
        ("spaces", "fasternet", ON_ARM),
        ("spaces", "fasternet", ("spaces", "fasternet")),
        ("searchers", "guided", ON_ARM),
        ("estimators", "estimate", ON_ARM),
        ("devices", "arm", ON_ARM),
        ("devices", "cpu", ("measure", "t0")),
        ("backends", "onnxruntime", ("measure", "t0")),
        ("backends", "onnx", ("export", "t0", "--to", "onnx")),
    ],
)
def test_a_name_of_ours_and_of_a_package_is_refused(
    group: str, name: str, command: tuple[str, ...], lab_folder: Path, capsys: Streams
) -> None:
    register(lab_folder, "other_lab", {group: f"{name} = other_lab:THING"})
    assert main([*command, "--json"]) == 2
    words = f"fasternas.{group} must have one {name}, but fasternas and other_lab 2.0 have one each"
    assert words in error_of(capsys)
    assert not Path("run").exists()


def test_what_a_package_prints_while_it_is_imported_is_no_result(
    lab_folder: Path, capsys: Streams
) -> None:
    text = "import fasternas\nprint('hello')\nSPACE = fasternas.SPACES['fasternet-32']\n"
    (lab_folder / "noisy_lab.py").write_text(text, encoding="utf-8")
    register(lab_folder, "noisy_lab", {"spaces": "small = noisy_lab:SPACE"})
    assert main(["spaces", "small", "--json"]) == 0
    streams = capsys.readouterr()
    assert json.loads(streams.out)[0]["name"] == "small"
    assert streams.err == "hello\n"


@pytest.mark.parametrize(
    ("value", "shown"),
    [("'x' * 10**6", "is 'xxx"), ("type('Odd', (), dict(__repr__=len))()", "is <Odd instance at ")],
)
def test_what_is_no_space_is_shown_in_short(
    value: str, shown: str, lab_folder: Path, capsys: Streams
) -> None:
    package = f"odd_lab_{len(value)}"
    (lab_folder / f"{package}.py").write_text(f"SPACE = {value}\n", encoding="utf-8")
    register(lab_folder, package, {"spaces": f"odd = {package}:SPACE"})
    assert main(["spaces", "odd"]) == 2
    said = error_of(capsys)
    assert shown in said
    assert len(said) < 500


@pytest.mark.parametrize(
    ("line", "imported"), [("import numpy", "numpy"), ("from . import other", r"\.")]
)
def test_a_backend_whose_file_does_not_run_alone_is_refused(
    line: str, imported: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = f"alone_{len(imported)}"
    folder = tmp_path / package
    folder.mkdir()
    lines = 'LINES = (fasternas.Runtime("alone", "fp32", "x", file),)\n'
    texts = {"file": f"{line}\n", "other": ""}
    texts["__init__"] = f"import fasternas\nfrom {package} import file\n\n{lines}"
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
    register(tmp_path, package, {"backends": f"alone = {package}:LINES"})
    monkeypatch.syspath_prepend(str(tmp_path))
    words = rf"are sent the text of {package}\.file alone, but it imports {imported}"
    with pytest.raises(RuntimeError, match=words):
        find_runtime("alone")


def test_the_protocols_are_public() -> None:
    protocols = (fn.Searcher, fn.AccuracyEstimator, fn.Measures, fn.Predicts, fn.BackendModule)
    assert all(getattr(protocol, "_is_protocol", False) for protocol in protocols)

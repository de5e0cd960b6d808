"""The examples run, as they are."""

import ast
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
WORDS = {
    "searcher": "M parameters, ",
    "space": "the best within 4 ms: Perceptron(",
    "estimator": "t0: 57.7\n",
    "device": "96 px: ",
    "backend": ".onnx: ",
}


@pytest.mark.parametrize("name", WORDS)
def test_an_example_runs(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(EXAMPLES)
    sys.modules.pop(f"my_lab.{name}", None)
    runpy.run_module(f"my_lab.{name}", run_name="__main__")
    assert WORDS[name] in capsys.readouterr().out


def test_there_is_one_for_each_thing_that_can_be_added() -> None:
    named = {path.stem for path in (EXAMPLES / "my_lab").glob("*.py")}
    assert named - {"__init__", "plain_onnxruntime"} == WORDS.keys()


def test_they_import_nothing_of_ours_but_the_public_names() -> None:
    ours = {"nas", "predictors", "search_spaces"}
    found = [
        f"{path.name}: {name}"
        for path in EXAMPLES.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in imported(node)
        if name.partition(".")[0] in ours
    ]
    assert not found


def imported(node: ast.AST) -> list[str]:
    """Return the modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [one.name for one in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []

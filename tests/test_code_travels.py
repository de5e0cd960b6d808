"""A node whose Python has no fasternas, and which shares no folder, gets the code sent."""

import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_nodes import begun_by

from nas.ray_pool import RayPool
from nas.search.trial import Scores
from search_spaces.fasternet import SPACES

ROOT = Path(__file__).parents[1]
PACKAGES = ("search_spaces", "predictors", "nas", "fasternas")


def _bare_python(folder: Path) -> Path:
    """A Python with our dependencies and without us: it reads no .pth file of theirs."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "bin" / "python"


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Ray of one node that has neither fasternas nor the folder that it lies in."""
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        pytest.skip("hiding a folder from other processes is not permitted here.")
    python = _bare_python(tmp_path / "bare")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with begun_by(python, elsewhere, without=[ROOT / name for name in PACKAGES]) as address:
        yield address


def test_a_node_without_fasternas_evaluates(address: str) -> None:
    """What is sent is all that it has: `_our_code` left out, every trial fails."""

    def evaluate(config: Any) -> Scores:
        import nas.search.loop

        sent = "py_modules" in nas.search.loop.__file__
        return Scores(accuracy=sum(config.widths), latency_ms=1.0 if sent else 2.0)

    config = SPACES["fasternet-32"].decode((0,) * len(SPACES["fasternet-32"].genes))
    for timeout_s in (None, 300.0):
        with RayPool(evaluate, address=address, timeout_s=timeout_s) as pool:
            pool.submit(0, config)
            outcome = pool.next_finished()
        expected = Scores(accuracy=sum(config.widths), latency_ms=1.0)
        assert (outcome.error, outcome.scores) == (None, expected)

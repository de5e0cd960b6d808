"""What `fasternas measure` says on a terminal."""

import pytest

from nas.cli.main import main
from predictors.devices.cache import RecordedDevice
from predictors.measurement import Backend, Latency


def test_an_error_on_a_terminal_has_a_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: str) -> Latency:
        if not done:
            done.append(1)
            return Latency(
                median_ms=2.0,
                low_ms=1.9,
                high_ms=2.1,
                source="measured",
                device="lab",
                backend=Backend("onnxruntime"),
            )
        raise RuntimeError("it broke")

    done: list[int] = []
    device = RecordedDevice(name="lab", description="a lab", backends=(Backend(),), find=broken)
    monkeypatch.setattr("nas.cli.measure.open_asked", lambda *_: device)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert main(["measure", "t0", "t1"]) == 2
    said = capsys.readouterr().err
    assert said.endswith("2 of 2\na lab\nfasternas: error: t1: it broke.\n")

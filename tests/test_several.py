"""Of several runtimes and precisions each network counts in the fastest."""

import json
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from networks import LARGER, TINY
from specs import on

from nas.cli.specs import spec_of
from nas.finetune.select import devices_for
from nas.report.model import ReportModel
from nas.run_folder import read_only_run, start_run
from nas.study.options import SearchOptions
from predictors.devices.connection import DeviceLostError, OverwhelmedError
from predictors.devices.device import DeviceSpec, Network
from predictors.devices.registry import open_device, open_spec
from predictors.devices.several import MultiBackendDevice, backend_pairs
from predictors.measurement import Backend, Context, Latency, Reference


@dataclass(eq=False, kw_only=True)
class Form:
    """A device on which networks take what is told, by depth; what is not told it cannot do."""

    runtime: str
    precision: str
    takes_ms: dict[int, float]
    error: type[RuntimeError] = RuntimeError
    name: str = "cpu"
    source: Literal["measured"] = "measured"
    remarks: Sequence[str] = ()
    asked: int = 0
    references: dict[str, Reference] = field(default_factory=dict)

    @property
    def backends(self) -> tuple[Backend, ...]:
        return (Backend(self.runtime, self.precision),)

    @property
    def description(self) -> str:
        return f"a machine, {self.runtime}, {self.precision}: measured"

    def measure(self, network: Network) -> Latency:
        return next(self.measure_each([network]))

    def measure_each(
        self, networks: Sequence[Any], *, repeats: int | None = None
    ) -> Iterator[Latency]:
        self.asked += 1
        for config in networks:
            if config.depths[0] not in self.takes_ms:
                raise self.error(f"{self.precision} cannot do depth {config.depths[0]}")
            ms = self.takes_ms[config.depths[0]]
            yield Latency(
                median_ms=ms,
                low_ms=0.9 * ms,
                high_ms=1.1 * ms,
                source="measured",
                device="cpu",
                backend=Backend(self.runtime, self.precision, repeats or 1),
                context=Context(references=self.references, nearness=0.5),
            )


BOTH = [TINY, LARGER]  # of depths 1 and 4


def _of(latency: Latency) -> Backend:
    assert latency.backend is not None
    return latency.backend


def _told(device: MultiBackendDevice) -> list[tuple[str, str, float]]:
    return [
        (_of(m).runtime, _of(m).precision, m.median_ms)
        for m in device.measure_each(BOTH, repeats=3)
    ]


def test_each_network_counts_in_its_fastest_form() -> None:
    device = MultiBackendDevice(
        "cpu",
        [
            Form(runtime="onnxruntime", precision="fp32", takes_ms={1: 1.0, 4: 9.0}),
            Form(runtime="openvino", precision="int8", takes_ms={1: 2.0, 4: 5.0}),
        ],
    )
    assert _told(device) == [("onnxruntime", "fp32", 1.0), ("openvino", "int8", 5.0)]
    assert _of(device.measure(LARGER)).precision == "int8"
    assert device.backends == (Backend("onnxruntime"), Backend("openvino", "int8"))
    assert device.description.count("; ") == 1
    assert device.remarks == []


def test_what_was_timed_just_now_is_compared_by_the_clock() -> None:
    slow = {name: Reference(kept_ms=2.0, now_ms=1.0) for name in ("small", "large")}
    first = Form(runtime="onnxruntime", precision="fp32", takes_ms={1: 3.0}, references=slow)
    second = Form(runtime="openvino", precision="fp32", takes_ms={1: 2.0})
    found = MultiBackendDevice("cpu", [first, second]).measure(TINY)
    assert (_of(found).runtime, found.median_ms) == ("onnxruntime", 3.0)  # 1.5 ms by the clock
    assert [_of(m).runtime for m in found.slower] == ["openvino"]


def test_what_a_form_cannot_do_counts_in_another() -> None:
    device = MultiBackendDevice(
        "cpu",
        [
            Form(runtime="onnxruntime", precision="fp32", takes_ms={1: 1.0, 4: 9.0}),
            Form(runtime="onnxruntime", precision="int8", takes_ms={1: 0.5}),
        ],
    )
    assert _told(device) == [("onnxruntime", "int8", 0.5), ("onnxruntime", "fp32", 9.0)]
    assert device.remarks == []


def test_a_form_that_can_do_nothing_is_left_out_for_good() -> None:
    bf16 = Form(runtime="openvino", precision="bf16", takes_ms={})
    fp32 = Form(runtime="openvino", precision="fp32", takes_ms={1: 1.0, 4: 9.0})
    device = MultiBackendDevice("cpu", [bf16, fp32])
    assert [precision for _, precision, _ in _told(device)] == ["fp32", "fp32"]
    asked = bf16.asked
    assert [precision for _, precision, _ in _told(device)] == ["fp32", "fp32"]
    assert bf16.asked == asked
    assert device.remarks == ["Without openvino in bf16: bf16 cannot do depth 1"]


def test_a_form_that_did_a_part_of_a_group_is_not_left_out_later() -> None:
    int8 = Form(runtime="openvino", precision="int8", takes_ms={1: 0.5})
    fp32 = Form(runtime="openvino", precision="fp32", takes_ms={1: 1.0, 4: 9.0})
    device = MultiBackendDevice("cpu", [int8, fp32])
    assert [precision for _, precision, _ in _told(device)] == ["int8", "fp32"]
    assert _of(device.measure(LARGER)).precision == "fp32"  # which int8 cannot do
    assert _of(device.measure(TINY)).precision == "int8"
    assert device.remarks == []


def test_the_error_is_that_of_the_network_which_no_form_can_do() -> None:
    """And not that of another of its group, which one of them can do."""
    third = replace(LARGER, depths=(2, 1))
    devices = [
        Form(runtime="openvino", precision="int8", takes_ms={2: 0.5}),
        Form(runtime="openvino", precision="fp32", takes_ms={1: 1.0, 2: 1.0}),
    ]
    with pytest.raises(RuntimeError, match="int8 cannot do depth 4"):
        list(MultiBackendDevice("cpu", devices).measure_each([TINY, third, LARGER]))


def test_what_no_form_can_do_and_a_lost_machine_are_errors() -> None:
    neither = [Form(runtime="openvino", precision=p, takes_ms={1: 1.0}) for p in ("fp32", "int8")]
    with pytest.raises(RuntimeError, match="fp32 cannot do depth 4"):
        _told(MultiBackendDevice("cpu", neither))
    killed = Form(runtime="torch", precision="fp32", takes_ms={}, error=OverwhelmedError)
    whole = Form(runtime="onnxruntime", precision="fp32", takes_ms={1: 1.0, 4: 9.0})
    assert [
        _of(m).runtime for m in MultiBackendDevice("cpu", [killed, whole]).measure_each(BOTH)
    ] == [
        "onnxruntime",
        "onnxruntime",
    ]
    neither[1].error = DeviceLostError
    with pytest.raises(DeviceLostError):
        _told(MultiBackendDevice("cpu", neither))


def test_the_pairs_are_those_that_there_are() -> None:
    assert backend_pairs(["onnxruntime", "openvino"], ["fp32", "bf16"], 2) == (
        Backend("onnxruntime", "fp32", 2),
        Backend("openvino", "fp32", 2),
        Backend("openvino", "bf16", 2),
    )
    assert backend_pairs(["onnxruntime", "onnxruntime"], ["fp32"], 1) == (Backend("onnxruntime"),)
    with pytest.raises(ValueError, match="`runtime` must be one of onnxruntime, openvino"):
        backend_pairs(["onnxruntime", "tvm"], ["fp32"], 1)
    with pytest.raises(ValueError, match=r"`precision` must be one that a runtime has, .*'bf16'"):
        backend_pairs(["onnxruntime", "torch"], ["fp32", "bf16"], 1)
    with pytest.raises(ValueError, match="`precision` must be one of fp32 in torch, but got"):
        backend_pairs(["onnxruntime", "torch"], ["int8"], 1)


def test_what_is_not_given_is_as_on_the_device() -> None:
    asked = Namespace(device="cpu", runtime=None, precision=("fp32", "int8"), threads=2)
    two = (Backend(threads=2), Backend(precision="int8", threads=2))
    assert spec_of(asked, []) == DeviceSpec(name="cpu", backends=two)
    asked = Namespace(device="cpu", runtime=("openvino", "ncnn"), precision=None, threads=None)
    two = (Backend("openvino"), Backend("ncnn"))
    assert spec_of(asked, []) == DeviceSpec(name="cpu", backends=two)


def test_this_machine_is_timed_in_each_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    spec = DeviceSpec(name="cpu", backends=(Backend(), Backend(precision="int8")))
    device = open_spec(spec)
    found = next(device.measure_each([TINY], repeats=1))
    alone = {
        p: next(open_device("cpu", precision=p, reuse=True).measure_each([TINY], repeats=1))
        for p in ("fp32", "int8")
    }
    assert all(m.context.cached for m in alone.values())
    assert found.median_ms in {m.median_ms for m in alone.values()}
    assert {m.median_ms for m in (found, *found.slower)} == {m.median_ms for m in alone.values()}
    assert found.now_ms() <= found.slower[0].now_ms()
    with pytest.raises(ValueError, match="`precision` must be fp32 for the profile"):
        open_spec(replace(spec, name="arm"))


def test_a_run_keeps_its_forms_and_a_network_of_its_front_has_one(tmp_path: Path) -> None:
    devices = on("cpu", 5.0, Backend(), Backend(precision="int8"))
    options = SearchOptions(devices=devices, space="fasternet-32")
    folder = tmp_path / "run"
    start_run(folder, options).close()
    told = json.loads((folder / "run.json").read_text())
    assert "; " in told["machine"]["devices"]["cpu"]["description"]
    run = read_only_run(folder)
    assert (run.devices["cpu"].backends, run.options) == (devices[0].backends, options)
    rows = [
        "config,accuracy,ratio,runtime,precision",
        "configs/trial-0001.yaml,80,0.2,onnxruntime,int8",
    ]
    (folder / "pareto.csv").write_text("\n".join(rows) + "\n")
    int8 = on("cpu", 5.0, Backend(precision="int8"))
    assert devices_for(folder, None, network="trial-0001") == int8
    assert devices_for(folder, None, network="trial-0002") == on("cpu", 5.0)
    notes = ReportModel(run).notes
    assert "Each network is in the fastest of onnxruntime at fp32, int8." in notes

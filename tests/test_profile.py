"""The bundled profile says what its tables say and predicts their networks within its bounds."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fit_profile import fit_rates, read_table, refit

from predictors.devices.profiled import (
    PROFILES,
    Profile,
    ProfiledDevice,
    load_profile,
    profile_names,
    read_profile,
)
from predictors.measurement import Backend
from search_spaces.fasternet import FASTERNET, FasterNetConfig

FOLDER = PROFILES / "raspberry_pi_5"
NETWORKS = read_table(FOLDER / "networks.csv")
FASTERNETS = [i for i, widths in enumerate(NETWORKS["widths"]) if widths]


@pytest.fixture
def profile() -> Profile:
    return load_profile("raspberry_pi_5")


def test_the_shipped_rates_are_what_a_refit_writes(profile: Profile, tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "again")
    refit(tmp_path / "again")
    again = read_profile(tmp_path / "again")
    assert again.rates[1] == profile.rates[1]
    assert again.rates[4].mean_error == pytest.approx(profile.rates[4].mean_error, abs=2e-4)
    assert again.rates[4].ms_per_fma == pytest.approx(profile.rates[4].ms_per_fma, rel=1e-3)
    assert again.forms == profile.forms


def test_published_latencies_give_the_rates_of_four_threads(profile: Profile) -> None:
    rates = fit_rates(NETWORKS)
    assert rates["ms_per_fma"] == pytest.approx(0.0918e-6, rel=0.002)
    assert rates["ms_per_other"] == pytest.approx(0.147e-6, rel=0.003)
    assert rates["mean_error"] == pytest.approx(0.073, abs=0.001)
    assert rates["max_error"] == pytest.approx(0.167, abs=0.001)
    assert rates["mean_error"] < rates["interval"] < rates["max_error"]
    assert rates.items() <= vars(profile.rates[4]).items()


def test_operators_add_up_to_the_networks(profile: Profile) -> None:
    counted = [profile.instructions(_config(row).layers()) for row in FASTERNETS]
    for column, name, mean, largest in (
        (0, "instructions", 0.0016, 0.007),
        (1, "fma_instructions", 0.0002, 0.0005),
    ):
        exact = NETWORKS[name][FASTERNETS]
        errors = np.abs(np.array([float(counts[column]) for counts in counted]) / exact - 1)
        assert errors.mean() < mean
        assert errors.max() < largest


def test_the_fasternets_are_all_there() -> None:
    assert len(FASTERNETS) == 44
    assert [_config(i) for i in FASTERNETS[:6]] == list(FASTERNET.values())


@pytest.mark.parametrize(("size", "expected_ms"), [("t0", 29.9), ("t1", 69.9), ("t2", 140.7)])
def test_one_thread_latency_of_the_small_fasternets(
    profile: Profile, size: str, expected_ms: float
) -> None:
    mean, low, high = profile.latency_ms(FASTERNET[size].layers())
    assert mean == pytest.approx(expected_ms, rel=0.003)
    assert (low, high) == pytest.approx((0.97 * mean, 1.03 * mean))


@pytest.mark.parametrize(("size", "published_ms"), [("t1", 44), ("t2", 62), ("s", 154), ("m", 318)])
def test_published_latency_is_met_as_nearly_as_the_profile_admits(
    profile: Profile, size: str, published_ms: float
) -> None:
    mean, low, high = profile.latency_ms(FASTERNET[size].layers(), threads=4)
    assert mean == pytest.approx(published_ms, rel=profile.rates[4].max_error + 0.005)
    assert (low, high) == pytest.approx((0.84 * mean, 1.16 * mean))


def test_an_unknown_number_of_threads_is_refused(profile: Profile) -> None:
    with pytest.raises(
        ValueError,
        match=r"`threads` must be 1 or 4, but got 2\. .* Take one .*measure on the board",
    ):
        profile.latency_ms(FASTERNET["t0"].layers(), threads=2)


@pytest.mark.parametrize(
    "backend", [Backend("torch"), Backend("onnxruntime", "int8"), Backend(threads=2)]
)
def test_what_the_profile_has_not_is_refused_with_a_remedy(backend: Backend) -> None:
    with pytest.raises(ValueError, match=r"must be .* but got .*`fasternas devices add`"):
        ProfiledDevice("arm", backend)


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be a bundled profile, but got 'abacus'\. Choose "):
        load_profile("abacus")


def test_each_bundled_profile_bears_the_name_of_its_folder() -> None:
    assert "raspberry_pi_5" in profile_names()
    assert all(load_profile(name).name == name for name in profile_names())


def test_loading_a_profile_loads_nothing_heavy() -> None:
    code = (
        "import sys; from predictors.devices.profiled import load_profile;"
        "load_profile('raspberry_pi_5');"
        "print([m for m in ('torch', 'scipy', 'pandas', 'onnxruntime') if m in sys.modules])"
    )
    root = PROFILES.parent.parent
    shell = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert shell.stdout.strip() == "[]", shell.stderr


def _config(row: int) -> FasterNetConfig:
    cells: dict[str, Any] = {name: column[row] for name, column in NETWORKS.items()}
    widths = np.array(cells["widths"].split(), int)
    hidden = np.array(cells["hidden_widths"].split(), int)
    return FasterNetConfig(
        widths=tuple(widths.tolist()),
        depths=tuple(int(depth) for depth in cells["depths"].split()),
        partial_ratios=tuple(float(ratio) for ratio in cells["partial_ratios"].split()),
        expansions=tuple((hidden / widths).tolist()),
        activation=str(cells["activation"]),  # type: ignore[arg-type]
        resolution=int(cells["resolution"]),
        stem_stride=int(cells["stem_stride"]),
        head_width=int(cells["head_width"]),
        classes=int(cells["classes"]),
    )

"""One machine in several runtimes and precisions: each network counts in the fastest of them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import final

from predictors.backends.model import Model
from predictors.backends.table import find_runtime
from predictors.devices.cache import now_ms
from predictors.devices.connection import DeviceLostError, OverwhelmedError
from predictors.devices.device import PROCESSES, Device
from predictors.devices.timed import GROUP
from predictors.latency import Prediction
from predictors.measurement import Latency, Source
from search_spaces.fasternet import FasterNetConfig
from search_spaces.io import one_line

Network = FasterNetConfig | Model


@final
class MultiBackendDevice:
    """Times each network in every form, that is, runtime at a precision; the fastest counts.

    Each runtime's milliseconds are those of its own references, which were first timed when the
    machine may have been slower: what was timed just now is compared by what it took just now.

    A measurement says which that was, and has the others as `slower`. A form that cannot do a
    network is left out for that one; one that can do none of those that it was given first is left
    out for good, and a remark says so.
    """

    source: Source = "measured"

    def __init__(self, name: str, forms: Sequence[Device]) -> None:
        self.name = name
        self.threads = forms[0].threads
        self.runtime = ",".join(dict.fromkeys(form.runtime for form in forms))
        self.precision = ",".join(dict.fromkeys(form.precision for form in forms))
        self.description = "; ".join(form.description for form in forms)
        self._forms = tuple(forms)
        self._begun: set[Device] = set()  # that could do a network
        self._refused: dict[Device, str] = {}

    @property
    def forms(self) -> tuple[Device, ...]:
        """The machine in each of them."""
        return self._forms

    @property
    def remarks(self) -> Sequence[str]:
        """Those of the forms, and which of them were left out."""
        left_out = [f"Without {form.runtime} in {form.precision}: {why}"
                    for form, why in self._refused.items()]  # fmt: skip
        return [*left_out, *(remark for form in self._forms for remark in form.remarks)]

    def measure(self, network: Network) -> Latency:
        """Return the latency of one network in its fastest form."""
        return next(self.measure_each([network]))

    def measure_each(
        self, networks: Sequence[Network], *, processes: int = PROCESSES
    ) -> Iterator[Latency]:
        """Yield the latency of each network in its fastest form, in order.

        Raises:
            ValueError, RuntimeError: if no form can do a network, or the machine is lost.
        """
        for start in range(0, len(networks), GROUP):
            group = networks[start : start + GROUP]
            errors: list[ValueError | RuntimeError] = []
            columns = [self._timed(form, group, processes, errors) for form in self._forms
                       if form not in self._refused]  # fmt: skip
            for found in zip(*columns, strict=True):
                taken = [measurement for measurement in found if measurement is not None]
                if not taken:
                    raise errors[0]
                fastest, *slower = sorted(taken, key=now_ms if _all_new(taken) else _scaled_ms)
                yield replace(fastest, slower=tuple(slower))

    def predict(self, configs: Sequence[FasterNetConfig]) -> Prediction:
        """This device is timed; fit a `LatencyPredictor` to its measurements."""
        raise RuntimeError(f"`device` must be a profile to predict, but {self.name} is measured.")

    def _timed(
        self, form: Device, group: Sequence[Network], processes: int,
        errors: list[ValueError | RuntimeError],
    ) -> list[Latency | None]:  # fmt: skip
        """Time a group, or, if it cannot be timed as a whole, one by one; None for what cannot."""
        try:
            whole = list(form.measure_each(group, processes=processes))
        except (ValueError, RuntimeError) as error:
            _refuse_lost(error)
            errors.append(error)
            alone = [] if len(group) == 1 else [_alone(form, n, processes) for n in group]
            if any(alone) or form in self._begun or len(self._refused) + 1 == len(self._forms):
                return alone or [None]
            self._refused[form] = one_line(error)
            return [None] * len(group)
        self._begun.add(form)
        return list(whole)


def forms_of(runtimes: str, precisions: str) -> list[tuple[str, str]]:
    """Return the pairs that there are of runtimes and precisions, given with commas between them.

    Raises:
        ValueError: if there is no such runtime or precision, or one has no partner.
    """
    names, numbers = (tuple(dict.fromkeys(part.strip() for part in given.split(",")))
                      for given in (runtimes, precisions))  # fmt: skip
    found = [pair for name in names for pair in _pairs(name, numbers)]
    alone = set(numbers) - {precision for _, precision in found}
    if alone:
        raise ValueError(f"`precision` must be one that a runtime has, but none of "
                         f"{', '.join(names)} has {min(alone)!r}. Add one or leave it "
                         "out.")  # fmt: skip
    return found


def _pairs(name: str, precisions: Sequence[str]) -> list[tuple[str, str]]:
    """Those of a runtime."""
    found, errors = [], []
    for precision in precisions:
        try:
            find_runtime(name, precision)
            found.append((name, precision))
        except ValueError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    return found


def _alone(form: Device, network: Network, processes: int) -> Latency | None:
    try:
        return next(form.measure_each([network], processes=processes))
    except (ValueError, RuntimeError) as error:
        _refuse_lost(error)
        return None


def _refuse_lost(error: Exception) -> None:
    """Raise it again if the machine is gone; a form that is too much for it may be left out."""
    if isinstance(error, DeviceLostError) and not isinstance(error, OverwhelmedError):
        raise error


def _all_new(found: Sequence[Latency]) -> bool:
    return not any("recalled" in m.context for m in found)


def _scaled_ms(measurement: Latency) -> float:
    return measurement.median_ms

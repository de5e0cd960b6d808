"""A device: what networks are timed on.

    fasternas measure t0 --device stopwatch        and in every search

This one has a clock. One that computes latencies has `source = "predicted"` and `predict(configs)`
besides, as `fn.Predicts` says.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import torch

import fasternas as fn


class Stopwatch:
    """PyTorch in this process, by its CPU time; each network by itself, so use it to try things."""

    source: Literal["measured"] = "measured"
    description = "PyTorch in this process, by a stopwatch: measured"
    remarks: Sequence[str] = ()

    def __init__(self, name: str, backend: fn.Backend, inferences: int = 40) -> None:
        self.name = name
        self.backends = (backend,)
        self._inferences = inferences

    def measure(self, network: fn.Network) -> fn.Latency:
        """Return the latency of one network."""
        return next(self.measure_each([network]))

    def measure_each(
        self, networks: Sequence[fn.Network], *, repeats: int | None = None
    ) -> Iterator[fn.Latency]:
        """Yield the latency of each network: the median and the ranks around it that hold 95 %."""
        for network in networks:
            times = sorted(self._times_ms(fn.as_model(network)))
            n = len(times)
            reach = round(0.98 * n**0.5)  # of the binomial distribution of ranks
            yield fn.Latency(
                median_ms=times[n // 2],
                low_ms=times[max(n // 2 - reach, 0)],
                high_ms=times[min(n // 2 + reach, n - 1)],
                source="measured",
                device=self.name,
                backend=self.backends[0],
                samples_ms=(tuple(times),),
            )

    def _times_ms(self, model: fn.Model) -> list[float]:
        network, image = model.network(), model.image()
        torch.set_num_threads(1)
        found = []
        with torch.inference_mode():
            for i in range(self._inferences + 5):
                start = time.thread_time_ns()
                network(image)
                if i >= 5:  # the first ones warm up
                    found.append((time.thread_time_ns() - start) / 1e6)
        return found


def open_stopwatch(name: str, backend: fn.Backend, protocol: fn.TimingProtocol) -> Stopwatch:
    """Open it; what the entry point names.

    `backend` and `protocol` are as asked for; what this device cannot do is a ValueError.
    """
    if backend.threads != 1:
        raise ValueError(f"`threads` must be 1 on {name}, but got {backend.threads}.")
    return Stopwatch(name, backend)


def main() -> None:
    """Time FasterNet-T0 at two resolutions."""
    device: fn.Measures = open_stopwatch("stopwatch", fn.Backend("torch"), fn.TimingProtocol())
    for resolution in (64, 96):
        config = replace(fn.FASTERNET["t0"], resolution=resolution)
        found = device.measure(config)
        interval = f"[{found.low_ms:.2f}, {found.high_ms:.2f}]"
        print(f"{resolution} px: {found.median_ms:.2f} ms {interval}")


if __name__ == "__main__":
    main()

"""The measurements of a benchmark on disk, one a line, kept as they come."""

from pathlib import Path

from nas.study import journal
from predictors.backends.model import Model
from predictors.measurement import Latency

JOURNAL = "bench.jsonl"


def keep_measurement(folder: Path, device: str, model: Model, latency: Latency) -> None:
    """Append a measurement with all its samples; `device` is the device's description.

    Raises:
        OSError: if it cannot be written.
    """
    entry = {"identity": model.identity, "device": device, "measurement": latency.as_json()}
    journal.append(folder / JOURNAL, [entry])


def kept_measurements(folder: Path, device: str) -> dict[str, Latency]:
    """Return what the folder holds of the device of that description, by the models' identities.

    A last line that was cut off is dropped: its network is timed again.

    Raises:
        ValueError: if another line is no such measurement; the message says which.
    """
    path = folder / JOURNAL
    journal.repair(path)
    found = {}
    for number, entry in enumerate(journal.read(path), start=1):
        try:
            if entry["device"] == device:
                found[entry["identity"]] = Latency.from_json(entry["measurement"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"Line {number} of {path} must be a measurement, but is none: {error}. Delete that "
                "line to lose that measurement only."
            ) from None
    return found

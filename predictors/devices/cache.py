"""Measurements kept in a database, so that no network is timed twice in the same setting."""

import hashlib
import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, astuple, dataclass, field, fields, replace
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

from predictors.backends.model import Model
from predictors.devices.cache_entry import Entry, Key, Setting, measurement_of
from predictors.measurement import Latency, blend
from search_spaces.io import atomic_write, cache_folder

VERSION = 1  # of the table
WAIT_S = 10.0  # for other processes that write

_SETTING = tuple(f.name for f in fields(Setting))
_KEY = ("artifact", *_SETTING, "alias")
_COLUMNS = (*_KEY, "device", "network", "processes", "description", "taken_at", "measurement")
_TABLE = f"""
CREATE TABLE measurements ({", ".join(f"{name} NOT NULL" for name in _COLUMNS)},
                           PRIMARY KEY ({", ".join(_KEY)}))
"""
_INDEX = "CREATE INDEX networks ON measurements (device, network)"
_PUT = (
    f"REPLACE INTO measurements ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' for _ in _COLUMNS)})"
)


def _is(columns: Iterable[str]) -> str:
    return " AND ".join(f"{name} = ?" for name in columns)


def _default_path() -> Path:
    return cache_folder() / "measurements.db"


@dataclass(frozen=True, kw_only=True)
class Holding:
    """How many measurements there are of a device in one setting, and from when to when."""

    device: str
    setting: Setting
    count: int
    first: str  # ISO times in UTC
    last: str


@dataclass(frozen=True, kw_only=True)
class Merged:
    """How many of the measurements that were put in were new, replaced an older one, or did not."""

    new: int = 0
    replaced: int = 0
    kept: int = 0


@dataclass(frozen=True, kw_only=True)
class Store:
    """The measurements of this user, in `$XDG_CACHE_HOME/fasternas/measurements.db`.

    Several processes may use it at once. `find` and `keep` serve runs, which a store that is
    broken, full, locked or of a newer version must not stop: they then do without. Everything else
    raises RuntimeError.
    """

    path: Path = field(default_factory=_default_path)

    def find(self, key: Key, *, processes: int = 1) -> Latency | None:
        """Return what was timed on this very machine by at least so many processes, if anything."""
        with suppress(RuntimeError, ValueError):
            rows = self._rows(f"SELECT measurement FROM measurements WHERE {_is(_KEY)} "
                              "AND processes >= ?", (*_key(key, ""), processes))  # fmt: skip
            return measurement_of(json.loads(rows[0][0])) if rows else None
        return None

    def keep(self, entry: Entry) -> None:
        """Keep a measurement in place of one with the same key that is no better known."""
        known = self.find(entry.key, processes=entry.processes + 1)
        if known is not None and not known.unstable:
            return
        with suppress(RuntimeError, ValueError, TypeError), self._writing() as connection:
            connection.execute(_PUT, _row(entry))

    def merge(self, entries: Iterable[Entry], *, alias: str = "") -> Merged:
        """Keep all that are newer than what is there, or none if that fails.

        With an `alias` they become the measurements of a device of that name, beside those with
        the same keys.
        """
        counts = dict.fromkeys(("new", "replaced", "kept"), 0)
        with self._writing() as connection:
            for entry in entries:
                named = replace(entry, device=alias or entry.device, alias=alias)
                counts[_put_if_newer(connection, named)] += 1
        return Merged(**counts)

    def entries(self, device: str | None = None) -> list[Entry]:
        """Return the measurements, of one device or all, the oldest first."""
        rows = self._rows(f"SELECT {', '.join(_COLUMNS)} FROM measurements "
                          "WHERE ?1 IS NULL OR device = ?1 "
                          f"ORDER BY taken_at, network, {', '.join(_KEY)}", (device,))  # fmt: skip
        with self._readable():
            return [_entry(row) for row in rows]

    def holdings(self, device: str | None = None) -> list[Holding]:
        """Say what there is by device and setting: for each device the largest first."""
        setting = ", ".join(_SETTING)
        rows = self._rows(
            f"SELECT device, {setting}, COUNT(*) AS count, MIN(taken_at) AS first, "
            "MAX(taken_at) AS last FROM measurements WHERE ?1 IS NULL OR device = ?1 "
            f"GROUP BY device, {setting} ORDER BY device, count DESC, last DESC, {setting}",
            (device,),
        )
        return [Holding(device=row["device"], setting=_setting(row), count=row["count"],
                        first=row["first"], last=row["last"]) for row in rows]  # fmt: skip

    def find_network(self, device: str, network: str, *, setting: Setting) -> Latency | None:
        """Return the newest measurement of a network, by its JSON, on a device of that name.

        The setting's address does not count: of a pool, each board has its own.
        """
        kind = {name: value for name, value in asdict(setting).items() if name != "address"}
        rows = self._rows(f"SELECT measurement FROM measurements WHERE {_is(kind)} "
                          "AND device = ? AND network = ? ORDER BY taken_at DESC, artifact, alias",
                          (*kind.values(), device, network))  # fmt: skip
        with self._readable():
            return measurement_of(json.loads(rows[0][0])) if rows else None

    def _rows(self, query: str, values: Sequence[Any]) -> list[sqlite3.Row]:
        with self._readable():
            if not self.path.exists():
                return []
            with closing(self._connect("rw")) as connection:  # a killed writer's rest is undone
                connection.row_factory = sqlite3.Row
                return connection.execute(query, values).fetchall() if _is_ready(connection) else []

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Connect for writes, of which all or none are kept."""
        with self._readable():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect("rwc")) as connection:
                connection.execute("BEGIN IMMEDIATE")
                _make_ready(connection)
                yield connection
                connection.execute("COMMIT")

    def _connect(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{quote(str(self.path))}?mode={mode}", uri=True,
                               timeout=WAIT_S, isolation_level=None)  # fmt: skip

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Word what SQLite, the disk or a row that is no measurement says."""
        try:
            yield
        except _NewerError as error:
            raise RuntimeError(
                f"{self.path} must be of version {VERSION} at most, but is of {error}, which a "
                "newer fasternas wrote. Update fasternas."
            ) from None
        except (sqlite3.Error, OSError, ValueError) as error:
            raise RuntimeError(
                f"{self.path} must be a database of measurements that can be read and written, "
                f"but: {error}. Mend it or move it away."
            ) from error


class _NewerError(Exception):
    """The database is of a version that is not known here."""


def _is_ready(connection: sqlite3.Connection) -> bool:
    """Whether the table is there."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise _NewerError(version)
    return bool(version)


def _make_ready(connection: sqlite3.Connection) -> None:
    """Create the table unless it is there."""
    if not _is_ready(connection):
        for statement in (_TABLE, _INDEX, f"PRAGMA user_version = {VERSION}"):
            connection.execute(statement)


def _put_if_newer(connection: sqlite3.Connection, entry: Entry) -> str:
    """Keep an entry unless there is one as new; say whether it was new, or replaced one."""
    found = connection.execute(f"SELECT taken_at FROM measurements WHERE {_is(_KEY)}",
                               _key(entry.key, entry.alias)).fetchone()  # fmt: skip
    if found and found[0] >= entry.taken_at:
        return "kept"
    connection.execute(_PUT, _row(entry))
    return "replaced" if found else "new"


def _key(key: Key, alias: str) -> tuple[Any, ...]:
    return (key.artifact, *astuple(key.setting), alias)


def _row(entry: Entry) -> tuple[Any, ...]:
    measurement = json.dumps(entry.measurement.as_json(), allow_nan=False)
    return (*_key(entry.key, entry.alias), entry.device, entry.network, entry.processes,
            entry.description, entry.taken_at, measurement)  # fmt: skip


def _setting(row: sqlite3.Row) -> Setting:
    values = {name: row[name] for name in _SETTING}
    return Setting(**{**values, "emulated": bool(values["emulated"])})


def _entry(row: sqlite3.Row) -> Entry:
    return Entry(
        key=Key(artifact=row["artifact"], setting=_setting(row)), device=row["device"],
        network=row["network"], description=row["description"], taken_at=row["taken_at"],
        alias=row["alias"], measurement=measurement_of(json.loads(row["measurement"])),
    )  # fmt: skip


def reference_latency(key: Mapping[str, str | int], processes: Sequence[Sequence[float]]) -> float:
    """Return the reference's latency in ms: the one kept for `key`, or that of these blocks.

    The fastest process's median stands for the machine: others were held up by something.
    Where the cache cannot be written, the latency holds for this run alone.
    """
    file = cache_folder() / f"reference-{_digest(key)}.json"
    kept = _read(file)
    if kept is not None:
        return kept
    latency_ms = min(median(blocks) for blocks in processes)
    _keep(file, {**key, "latency_ms": latency_ms})
    return latency_ms


def _digest(key: Mapping[str, str | int]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def _read(file: Path) -> float | None:
    try:
        latency_ms = float(json.loads(file.read_text())["latency_ms"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return latency_ms if 0 < latency_ms < math.inf else None


def _keep(file: Path, entry: Mapping[str, object]) -> None:
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, json.dumps(entry, indent=2) + "\n")


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Measurements of one device in one setting, and the latencies that its references keep.

    References are kept from the first time on, so that every run speaks of the same milliseconds;
    what was imported, or timed by a board of the same pool, is brought to that scale.
    """

    device: str
    description: str
    setting: Setting
    references: Sequence[str]  # the smaller first
    others: Sequence[str] = ()  # addresses of boards of the same kind

    def find(self, artifact: str, *, processes: int) -> Latency | None:
        """Return the latency of a file that was timed before, by at least so many processes."""
        addresses = dict.fromkeys((self.setting.address, *self.others))
        settings = (replace(self.setting, address=address) for address in addresses)
        keys = (Key(artifact=artifact, setting=setting) for setting in settings)
        found = next((m for key in keys if (m := Store().find(key, processes=processes))), None)
        if found is None:
            return None
        references: dict[str, Any] = found.context.get("references") or {}
        told = "nearness" in found.context and set(self.references) <= references.keys()
        if not told:
            return None
        kept = {name: self.kept_ms(name, [[references[name]["kept_ms"]]])
                for name in self.references}  # fmt: skip
        found = on_scale(found, kept)
        return replace(found, device=self.device, context={**found.context, "recalled": True})

    def keep(self, model: Model, measurement: Latency) -> None:
        """Give it to the store."""
        key = Key(artifact=measurement.context["artifact"], setting=self.setting)
        Store().keep(Entry(key=key, device=self.device, network=model.identity,
                           description=self.description, measurement=measurement))  # fmt: skip

    def kept_ms(self, reference: str, processes: Sequence[Sequence[float]]) -> float:
        """Return a reference's latency as kept, or, the first time, that of these blocks."""
        setting = self.setting
        where = {"address": setting.address} if setting.address else {}
        precision = {} if setting.precision == "fp32" else {"precision": setting.precision}
        where |= {"cores": setting.cores} if setting.cores else {}
        return reference_latency(
            {"machine": setting.machine, "runtime": setting.runtime, "version": setting.version,
             "threads": setting.threads, "reference": reference, **precision, **where}, processes,
        )  # fmt: skip


def on_scale(found: Latency, kept_ms: Mapping[str, float]) -> Latency:
    """Return a latency in the milliseconds in which the references take those; smaller first."""
    references = found.context["references"]
    small, large = (ms / references[name]["kept_ms"] for name, ms in kept_ms.items())
    factor = blend(small, large, found.context["nearness"])
    now = {name: {**references[name], "kept_ms": ms} for name, ms in kept_ms.items()}
    return replace(
        found, median_ms=found.median_ms * factor, low_ms=found.low_ms * factor,
        high_ms=found.high_ms * factor, context={**found.context, "references": now},
    )  # fmt: skip


def now_ms(found: Latency) -> float:
    """Return what a latency was by the clock, at the machine's speed when it was timed."""
    references = found.context.get("references")
    if not references:
        return found.median_ms
    small, large = (told["now_ms"] / told["kept_ms"] for told in references.values())
    return found.median_ms * blend(small, large, found.context["nearness"])

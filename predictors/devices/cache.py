"""Latencies cached in a database, so that no network is timed twice in the same setting."""

import hashlib
import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Literal
from urllib.parse import quote

from predictors.backends.model import Model, as_model
from predictors.devices.cache_entry import CacheEntry, Setting, measured_latency
from predictors.devices.device import Network, threads_of
from predictors.measurement import Backend, Latency, changed_alike, lasting_change
from search_spaces.io import atomic_write, cache_folder

VERSION = 2  # of the table
WAIT_S = 10.0  # for other processes that write

_BACKEND = ("runtime", "precision", "threads")
_SETTING = (*_BACKEND, "version", "machine", "address", "emulated", "cores")
_KEY = ("artifact", *_SETTING, "alias")
_COLUMNS = (*_KEY, "device", "network", "repeats", "description", "taken_at", "latency")
_TABLE = f"""
CREATE TABLE latencies ({", ".join(f"{name} NOT NULL" for name in _COLUMNS)},
                        PRIMARY KEY ({", ".join(_KEY)}))
"""
_INDEX = "CREATE INDEX networks ON latencies (device, network)"
_PUT = f"REPLACE INTO latencies ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' for _ in _COLUMNS)})"
_ENTRY = "latency, network, description, taken_at, alias"


def _is(columns: Iterable[str]) -> str:
    return " AND ".join(f"{name} = ?" for name in columns)


@dataclass(frozen=True, kw_only=True)
class CacheSummary:
    """How many latencies there are of a device in one setting, and from when to when."""

    device: str
    setting: Setting
    count: int
    first: str  # ISO times in UTC
    last: str


@dataclass(frozen=True, kw_only=True)
class Merged:
    """How many of the latencies that were put in were new, replaced an older one, or did not."""

    new: int = 0
    replaced: int = 0
    kept: int = 0


@dataclass(frozen=True, kw_only=True)
class Cache:
    """The latencies of this user, in `$XDG_CACHE_HOME/fasternas/measurements.db`.

    Several processes may use it at once. `get` and `put` serve runs, which a cache that is broken,
    full, locked or of a newer version must not stop: they then do without. Everything else raises
    RuntimeError.
    """

    path: Path = field(default_factory=lambda: cache_folder() / "measurements.db")

    def get(self, artifact: str, setting: Setting, *, repeats: int = 1) -> Latency | None:
        """Return what was timed on this very machine by at least so many processes, if anything."""
        query = f"SELECT latency FROM latencies WHERE {_is(_KEY)} AND repeats >= ?"
        with suppress(RuntimeError, ValueError):
            rows = self._rows(query, (artifact, *_values(setting), "", repeats))
            return measured_latency(rows[0]["latency"]) if rows else None
        return None

    def put(self, entry: CacheEntry) -> None:
        """Keep a latency in place of one with the same key that is no better known."""
        known = self.get(entry.artifact, entry.setting, repeats=entry.repeats + 1)
        if known is not None and not known.unstable:
            return
        with suppress(RuntimeError, ValueError, TypeError), self._writing() as connection:
            connection.execute(_PUT, _row(entry))

    def merge(self, entries: Iterable[CacheEntry], *, alias: str = "") -> Merged:
        """Keep all that are newer than what is there, or none if that fails.

        With an `alias` they become the latencies of a device of that name, beside those with the
        same keys.
        """
        counts = dict.fromkeys(("new", "replaced", "kept"), 0)
        with self._writing() as connection:
            for entry in entries:
                counts[_put_if_newer(connection, replace(entry, alias=alias))] += 1
        return Merged(**counts)

    def entries(self, device: str | None = None) -> list[CacheEntry]:
        """Return the latencies, of one device or all, the oldest first."""
        rows = self._rows(
            f"SELECT {_ENTRY} FROM latencies WHERE ?1 IS NULL OR device = ?1 "
            f"ORDER BY taken_at, network, {', '.join(_KEY)}",
            (device,),
        )
        with self._readable():
            return [
                CacheEntry(**{**row, "latency": measured_latency(row["latency"])}) for row in rows
            ]

    def summaries(self, device: str | None = None) -> list[CacheSummary]:
        """Say what there is by device and setting: for each device the largest first."""
        setting = ", ".join(_SETTING)
        rows = self._rows(
            f"SELECT device, {setting}, COUNT(*) AS count, MIN(taken_at) AS first, "
            "MAX(taken_at) AS last FROM latencies WHERE ?1 IS NULL OR device = ?1 "
            f"GROUP BY device, {setting} ORDER BY device, count DESC, last DESC, {setting}",
            (device,),
        )
        names = ("device", "count", "first", "last")
        return [CacheSummary(**{n: row[n] for n in names}, setting=_setting(row)) for row in rows]

    def find_network(self, device: str, network: str, *, setting: Setting) -> Latency | None:
        """Return the newest latency of a network, by its JSON, on a device of that name.

        The setting's address does not count: of a pool, each board has its own.
        """
        kind = dict(zip(_SETTING, _values(setting), strict=True))
        del kind["address"]
        rows = self._rows(
            f"SELECT latency FROM latencies WHERE {_is(kind)} AND device = ? AND network = ? "
            "ORDER BY taken_at DESC, artifact, alias",
            (*kind.values(), device, network),
        )
        with self._readable():
            return measured_latency(rows[0]["latency"]) if rows else None

    def _rows(self, query: str, values: Sequence[object]) -> list[sqlite3.Row]:
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
        url = f"file:{quote(str(self.path))}?mode={mode}"
        return sqlite3.connect(url, uri=True, timeout=WAIT_S, isolation_level=None)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Word what SQLite, the disk or a row that is no latency says."""
        try:
            yield
        except _OtherVersionError as error:
            advice = "Update fasternas, or move" if int(str(error)) > VERSION else "Move"
            raise RuntimeError(
                f"{self.path} must be of version {VERSION}, but is of {error}, which another "
                f"fasternas wrote. {advice} it away."
            ) from None
        except (sqlite3.Error, OSError, ValueError) as error:
            raise RuntimeError(
                f"{self.path} must be a database of measurements that can be read and written, "
                f"but: {error}. Mend it or move it away."
            ) from error


class _OtherVersionError(Exception):
    """The database is of a version that is not known here."""


def _is_ready(connection: sqlite3.Connection) -> bool:
    """Whether the table is there."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version not in (0, VERSION):
        raise _OtherVersionError(version)
    return bool(version)


def _make_ready(connection: sqlite3.Connection) -> None:
    """Create the table unless it is there."""
    if not _is_ready(connection):
        for statement in (_TABLE, _INDEX, f"PRAGMA user_version = {VERSION}"):
            connection.execute(statement)


def _put_if_newer(connection: sqlite3.Connection, entry: CacheEntry) -> str:
    """Keep an entry unless there is one as new; say whether it was new, or replaced one."""
    row = _row(entry)
    query = f"SELECT taken_at FROM latencies WHERE {_is(_KEY)}"
    found = connection.execute(query, row[: len(_KEY)]).fetchone()
    if found and found[0] >= entry.taken_at:
        return "kept"
    connection.execute(_PUT, row)
    return "replaced" if found else "new"


def _values(setting: Setting) -> tuple[object, ...]:
    """The setting's columns."""
    values = {**asdict(setting), **asdict(setting.backend)}
    return tuple(values[name] for name in _SETTING)


def _setting(row: sqlite3.Row) -> Setting:
    values = {name: row[name] for name in _SETTING}
    backend = Backend(*(values.pop(name) for name in _BACKEND))
    return Setting(**{**values, "backend": backend, "emulated": bool(values["emulated"])})


def _row(entry: CacheEntry) -> tuple[object, ...]:
    latency = json.dumps(entry.latency.as_json(), allow_nan=False)
    key = (entry.artifact, *_values(entry.setting), entry.alias)
    about = (entry.device, entry.network, entry.repeats, entry.description, entry.taken_at)
    return (*key, *about, latency)


_UNWRITTEN: dict[Path, float] = {}  # latencies of references, by the file that could not be


def reference_latency(key: Mapping[str, str | int], processes: Sequence[Sequence[float]]) -> float:
    """Return the reference's latency in ms: the one kept for `key`, or that of these blocks.

    The fastest process's median stands for the machine: others were held up by something.
    Where the cache cannot be written, the latency holds for this process alone.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    file = cache_folder() / f"reference-{digest}.json"
    kept_ms = _read(file) or _UNWRITTEN.get(file)
    if kept_ms is not None:
        return kept_ms
    latency_ms = min(median(blocks) for blocks in processes)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, json.dumps({**key, "latency_ms": latency_ms}, indent=2) + "\n")
    except OSError:  # all milliseconds of this process have one scale all the same
        _UNWRITTEN[file] = latency_ms
    return latency_ms


def forget_references(about: Mapping[str, object]) -> None:
    """Forget the references that were kept of what is described so; the next timed are kept."""
    _UNWRITTEN.clear()
    for file in cache_folder().glob("reference-*.json"):
        with suppress(OSError, ValueError):
            kept = json.loads(file.read_text())
            if isinstance(kept, dict) and all(kept.get(k) == v for k, v in about.items()):
                file.unlink(missing_ok=True)


@dataclass(kw_only=True)
class ReferenceWatch:
    """What the references take in this run, beside what was kept of them."""

    kept_ms: dict[str, float] = field(default_factory=dict)
    now_ms: dict[str, list[float]] = field(default_factory=dict)  # of each process

    def add(self, reference: str, *, kept_ms: float, now_ms: Sequence[float]) -> None:
        """Add what some processes found; the smaller reference first."""
        if self.kept_ms.get(reference) != kept_ms:  # they were timed anew meanwhile
            self.now_ms[reference] = []
        self.kept_ms[reference] = kept_ms
        self.now_ms[reference].extend(now_ms)

    def changes(self) -> list[float]:
        """What each takes now, over what was kept; 1.0 unless that lasts."""
        return [lasting_change(self.now_ms[name], ms) for name, ms in self.kept_ms.items()]

    def remarks(
        self, name: str, backend: Backend, *, device: str, cores: Sequence[int] = ()
    ) -> list[str]:
        """Say that the machine is not as fast as it was, and how its references are timed anew.

        It bears the name, and was opened as the device, or as a part of it.
        """
        changes = self.changes()
        if not changed_alike(changes):
            return []
        options = {name: str(value) for name, value in asdict(backend).items()}
        options["cores"] = ",".join(map(str, cores))
        usual = {**{name: str(value) for name, value in asdict(Backend()).items()}, "cores": ""}
        if device not in ("cpu", "cuda"):  # of others the usual is what was registered
            usual = {"cores": ""}
        words = [f"--{name} {value}" for name, value in options.items() if usual.get(name) != value]
        command = " ".join(["fasternas measure t0 --device", device, *words, "--fresh"])
        return [
            f"{name} takes {math.prod(changes) ** 0.5:.2f} times as long for its reference "
            "networks as when its milliseconds were fixed, and intervals reach to what networks "
            f"take now. If that is to stay, `{command}` fixes them anew."
        ]


def _read(file: Path) -> float | None:
    try:
        latency_ms = float(json.loads(file.read_text())["latency_ms"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return latency_ms if 0 < latency_ms < math.inf else None


@dataclass(frozen=True, kw_only=True)
class DeviceCache:
    """Latencies of one device in one setting, and the latencies that its references keep.

    References are kept from the first time on, so that every run speaks of the same milliseconds;
    what was imported, or timed by a board of the same pool, is brought to that scale.
    """

    device: str
    description: str
    setting: Setting
    references: Sequence[str]  # the smaller first
    others: Sequence[str] = ()  # addresses of boards of the same kind

    def get(self, artifact: str, *, repeats: int) -> Latency | None:
        """Return the latency of a file that was timed before, by at least so many processes."""
        addresses = dict.fromkeys((self.setting.address, *self.others))
        settings = [replace(self.setting, address=address) for address in addresses]
        cached = (Cache().get(artifact, setting, repeats=repeats) for setting in settings)
        found = next(filter(None, cached), None)
        if found is None or found.context.nearness is None:
            return None
        references = found.context.references
        if not set(self.references) <= references.keys():
            return None
        kept = {n: self.reference_ms(n, [[references[n].kept_ms]]) for n in self.references}
        found = found.on_scale(kept)
        return replace(found, device=self.device, context=replace(found.context, cached=True))

    def put(self, model: Model, latency: Latency) -> None:
        """Cache a latency."""
        entry = CacheEntry(latency=latency, network=model.identity, description=self.description)
        Cache().put(entry)

    def reference_ms(self, reference: str, processes: Sequence[Sequence[float]]) -> float:
        """Return a reference's latency as kept, or, the first time, that of these blocks."""
        return reference_latency({**self._key, "reference": reference}, processes)

    def forget_references(self) -> None:
        """Let the references that are timed next be kept."""
        forget_references(self._key)

    @property
    def _key(self) -> dict[str, str | int]:
        key = {**asdict(self.setting), **asdict(self.setting.backend)}
        del key["backend"], key["emulated"]
        return key


Find = Callable[[str], Latency | None]


@dataclass(frozen=True, kw_only=True)
class RecordedDevice:
    """Stands for a device whose latencies are at hand; it can take no more.

    `find` gives the latency of a network by its JSON; without it only the name is known.
    """

    name: str
    description: str
    backends: tuple[Backend, ...]
    source: Literal["measured"] = "measured"
    remarks: Sequence[str] = ()
    find: Find | None = None

    def measure(self, network: Network) -> Latency:
        """Return what was measured of one network."""
        return next(self.measure_each([network]))

    def measure_each(
        self, networks: Sequence[Network], *, repeats: int | None = None
    ) -> Iterator[Latency]:
        """Yield what was measured of each network, by however many processes."""
        if self.find is None:
            raise RuntimeError(
                f"The device must be at hand to measure, but only the record of {self.name} is. "
                "Open it by name."
            )
        for model in map(as_model, networks):
            found = self.find(model.identity)
            if found is None:
                raise RuntimeError(
                    f"The network must be among those measured on {self.name}, but "
                    f"{model.identity} is not. Search with the options and seed of the run that "
                    "was exported, or measure it on the device and import that."
                )
            yield replace(found, device=self.name)


def open_recorded(
    name: str,
    *,
    runtime: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    cache: Cache | None = None,
) -> RecordedDevice | None:
    """Open a device whose latencies are cached; what is not given is as in most of them.

    None where there are none of that name.
    """
    cache = cache or Cache()
    settings = [summary.setting for summary in cache.summaries(name)]
    if not settings:
        return None
    asked = (runtime, precision, threads)
    fitting = [s for s in settings if _fits(s.backend, asked)]
    if not fitting:
        backends = dict.fromkeys(s.backend for s in settings)
        kinds = ", ".join(
            f"{b.runtime} in {b.precision} on {threads_of(b.threads)}" for b in backends
        )
        wanted = (
            f"{runtime or 'any'} in {precision or 'any'} on "
            f"{threads_of(threads) if threads else 'any'}"
        )
        raise ValueError(
            f"`runtime`, `precision` and `threads` must be those that {name} was measured with "
            f"({kinds}), but got {wanted}. Measure it so and import that."
        )
    setting = fitting[0]
    return RecordedDevice(
        name=name,
        description=f"{setting.description}: measured earlier",
        backends=(setting.backend,),
        find=partial(cache.find_network, name, setting=setting),
    )


def _fits(backend: Backend, asked: tuple[str | None, str | None, int | None]) -> bool:
    own = (backend.runtime, backend.precision, backend.threads)
    return all(one in (None, other) for one, other in zip(asked, own, strict=True))

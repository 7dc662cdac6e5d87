"""Pinned upstream files: from a mirror folder, from the cache, or fetched from their authors; always verified.

Knows where files are and what they must be; knows no benchmark and no format beyond archives. Nothing is returned
unless its digest equals the pin's (sha256, or git's id), the one a mirror's EXTRACT.toml gives, or the one recorded at
the first download.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from loom_core.contract.errors import DataError
from loom_core.contract.types import BadRecord, DataSource
from loom_core.data.archives import unpack
from loom_core.data.digests import Digests, digests, refuse_stand_in
from loom_core.data.download import MOST_BYTES, Http, Unreachable
from loom_core.data.hub import Hub
from loom_core.data.literals import constants as read_constants
from loom_core.data.mirror import Place, find, hub_cache, snapshots
from loom_core.data.pins import BASES, Pin, Unavailable, read_pins

__all__ = ["DataDir", "Pin", "Unavailable", "Used", "read_pins"]

LOCK = "lock.json"
Origin = Literal["mirror", "cache", "download"]
Recorded = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """A file that was read, for the manifest."""

    pin: str
    folder: str
    sha256: str
    n_bytes: int
    extract: bool
    origin: Origin
    licence: str


@dataclass(frozen=True, slots=True)
class _Held:
    path: Path
    used: Used


@dataclass(frozen=True, kw_only=True)
class DataDir:
    """The pinned files, as a benchmark sees them (`contracts.Data`).

    mirror: a folder laid out FOLDER/PATH-IN-UPSTREAM, or holding checkouts and snapshots (`mirror.find`). cache: where
    downloads from GitHub go, and members of archives. hub_cache: the cache of huggingface_hub, shared with whatever
    else uses it. offline: never ask the network. bases: addresses of the hosts. benchmark: the name that messages print
    in their next step.
    """

    mirror: Path | None
    cache: Path
    offline: bool = False
    bases: Mapping[str, str] = field(default_factory=lambda: BASES)
    http: Http = field(default_factory=Http)
    hub_cache: Path = field(default_factory=hub_cache)
    benchmark: str = ""
    bad: dict[BadRecord, None] = field(default_factory=dict, repr=False)
    notes: dict[str, None] = field(default_factory=dict, repr=False)
    _held: dict[tuple[str, str], _Held] = field(default_factory=dict, repr=False)
    _dead: dict[str, str] = field(default_factory=dict, repr=False)
    _sound: set[Path] = field(default_factory=set, repr=False)

    @classmethod
    def from_environment(cls, data_dir: str | os.PathLike[str] | None = None, offline: bool | None = None) -> DataDir:
        """As LOOM_DATA, LOOM_CACHE, LOOM_OFFLINE say, the arguments winning over them.

        HF_ENDPOINT and LOOM_GITHUB name other hosts for the hub and for raw.githubusercontent.com.
        """
        chosen = data_dir if data_dir is not None else os.environ.get("LOOM_DATA") or None
        mirror = Path(chosen).expanduser() if chosen is not None else None
        if mirror is not None and not os.path.isdir(mirror):
            raise DataError(
                "the mirror folder does not exist", where=str(mirror), hint="give another with --data-dir or LOOM_DATA"
            )
        cache = Path(os.environ.get("LOOM_CACHE") or Path.home() / ".cache" / "loom").expanduser()
        if offline is None:
            offline = os.environ.get("LOOM_OFFLINE", "").strip().lower() not in ("", "0", "false", "no", "off")
        hosts = {"hf": os.environ.get("HF_ENDPOINT"), "github": os.environ.get("LOOM_GITHUB")}
        bases = {name: hosts[name] or base for name, base in BASES.items()}
        return cls(mirror=mirror, cache=cache, offline=offline, bases=bases)

    def for_benchmark(self, name: str) -> DataDir:
        """The same files, with `loom data fetch NAME` as the next step in messages."""
        return replace(self, benchmark=name)

    def path(self, source: DataSource) -> Path:
        """A local file with the pinned content.

        Raises DataError when it is truncated, altered or cannot be fetched, Unavailable when it cannot be had here.
        """
        if (held := self._held.get((source.pin, source.folder))) is None:
            held = self._local(source) or self._fetched(source)
            self._held[source.pin, source.folder] = held
        return held.path

    def fetch(self, source: DataSource) -> Path:
        """Like `path`, but a damaged file in the cache is thrown away and fetched again."""
        try:
            return self.path(source)
        except Unavailable:
            raise
        except DataError:
            pin = Pin.parse(source.pin)
            whole = replace(pin, member=None)
            damaged = {path for one in (pin, whole) if (path := self._cached(one)) is not None}
            if self.offline or self._in_mirror(source) or not damaged:
                raise
            for path in damaged:
                if path.is_relative_to(self.cache / "data"):  # the hub's own cache is written by its library only
                    path.unlink()
            self._held.pop((source.pin, source.folder), None)
            held = self._held[source.pin, source.folder] = self._fetched(source, anew=True)
            return held.path

    def text(self, source: DataSource) -> str:
        """The file's text, UTF-8, line ends as they are."""
        try:
            return self.path(source).read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError("a data file is not UTF-8 text", where=source.pin, why=str(error)) from error

    def constants(self, source: DataSource, names: Iterable[str]) -> dict[str, Any]:
        """Constants of an upstream Python file, read through `ast` and never executed (`literals.constants`)."""
        return read_constants(self.text(source), names, where=source.pin)

    def used(self) -> tuple[Used, ...]:
        """What was read so far, by pin."""
        return tuple(self._held[key].used for key in sorted(self._held))

    def missing(self, sources: Iterable[DataSource]) -> tuple[DataSource, ...]:
        """The sources that lie neither in the mirror nor in the cache; nothing is read or verified."""
        return tuple(
            source
            for source in sources
            if not self._in_mirror(source)
            and not any(map(self._cached, {pin := Pin.parse(source.pin), replace(pin, member=None)}))
        )

    @property
    def lock_file(self) -> Path:
        """Where the digests of first downloads are recorded."""
        return self.cache / LOCK

    def locked(self) -> Recorded:
        """The digests recorded at the first download, by pin: sha256 and bytes."""
        path = self.lock_file
        if not path.exists():
            return {}
        try:
            entries: Recorded = json.loads(path.read_text("utf-8"))
            return {pin: {"sha256": str(row["sha256"]), "bytes": int(row["bytes"])} for pin, row in entries.items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(
                "the lock file cannot be read", where=str(path), why=str(error), hint="restore it, or delete it"
            ) from error

    # -- where a file may lie ------------------------------------------------------------------------------------

    def _in_mirror(self, source: DataSource) -> Place | None:
        if self.mirror is None:
            return None
        return find(self.mirror, source.folder, Pin.parse(source.pin), source.places)

    def _cached(self, pin: Pin) -> Path | None:
        """The pinned file in loom's cache or in the hub's."""
        hub = (folder / pin.path for folder in snapshots(self.hub_cache, pin) if pin.member is None)
        return next((path for path in (pin.cached_at(self.cache), *hub) if path.is_file()), None)

    def _local(self, source: DataSource) -> _Held | None:
        pin = Pin.parse(source.pin)
        if place := self._in_mirror(source):
            if pin.member is not None and place.inside == pin.path:
                return self._from_archive(source, pin, place.path, "mirror", place.extract())
            return self._verified(source, place.path, "mirror", place.extract())
        if cached := self._cached(pin):
            return self._verified(source, cached, "cache")
        if pin.member is not None and (archive := self._cached(replace(pin, member=None))):
            return self._from_archive(source, pin, archive, "cache")
        return None

    def _from_archive(
        self, source: DataSource, pin: Pin, archive: Path, origin: Origin, extract: str | None = None
    ) -> _Held:
        """Take a member out of an archive into the cache, verify it, and only then leave it there.

        extract: the digest that EXTRACT.toml gives for the archive itself, where the mirror holds a cut one.
        """
        assert pin.member is not None
        target = pin.cached_at(self.cache)
        if extract is None and source.sha256 and target.is_file() and digests(target).sha256 == source.sha256:
            return self._verified(source, target, origin)
        whole = replace(source.archive or source, pin=replace(pin, member=None).text)
        if source.archive is None:
            whole = replace(whole, sha256="", git_blob="", n_bytes=None)
        if archive not in self._sound:
            self._check(whole, archive, extract)
            self._sound.add(archive)
        if extract is not None:
            # A cut member must never be found in the cache by a later run without this mirror.
            target = self.cache / "extracts" / extract / pin.member
        with _written(target) as partial:
            most = MOST_BYTES if source.n_bytes is None or extract is not None else source.n_bytes
            unpack(archive, pin.member, partial, most_bytes=most, hint=self._command(source))
            held = self._verified(source, partial, origin, digests(partial).sha256 if extract is not None else None)
        return _Held(target, held.used)

    # -- verification --------------------------------------------------------------------------------------------

    def _verified(self, source: DataSource, path: Path, origin: Origin, extract: str | None = None) -> _Held:
        """The file, if its digest is the pinned one, the extract's, or the one recorded before."""
        recorded = self.locked().get(source.pin) if not (source.sha256 or source.git_blob) else None
        found, is_extract = self._check(source, path, extract, recorded)
        if not (is_extract or recorded or source.sha256 or source.git_blob):
            self._record(source.pin, found)
        used = Used(
            pin=source.pin,
            folder=source.folder,
            sha256=found.sha256,
            n_bytes=found.n_bytes,
            extract=is_extract,
            origin=origin,
            licence=source.licence,
        )
        return _Held(path, used)

    def _check(
        self, source: DataSource, path: Path, extract: str | None, recorded: Mapping[str, Any] | None = None
    ) -> tuple[Digests, bool]:
        """The digests of a file that is what was pinned, or else the extract (True). Raises DataError otherwise."""
        pinned = source.sha256 or source.git_blob
        name = Pin.parse(source.pin).upstream_path
        refuse_stand_in(path, name, pinned=bool(pinned or recorded or extract), hint=self._instead(path))
        found = digests(path)
        expected = source.sha256 or (str(recorded["sha256"]) if recorded else "")
        if extract == found.sha256 != expected:
            return found, True
        if expected and found.sha256 != expected:
            raise self._altered(source, path, found, expected, by_lock=recorded is not None)
        if source.git_blob and found.git_blob != source.git_blob:
            raise self._altered(source, path, found, f"git {source.git_blob}")
        if extract is not None and not pinned:
            raise self._altered(source, path, found, extract)
        if source.n_bytes is not None and found.n_bytes != source.n_bytes:
            raise self._altered(source, path, found, f"{source.n_bytes} bytes")
        return found, False

    def forget(self, pins: Iterable[str]) -> None:
        """Drop recorded digests, so that the next download counts as the first (the upstream changed on purpose)."""
        dropped = set(pins)
        self._lock(lambda entries: {pin: row for pin, row in entries.items() if pin not in dropped})

    def _record(self, pin: str, found: Digests) -> None:
        self._lock(lambda entries: {pin: {"sha256": found.sha256, "bytes": found.n_bytes}, **entries})

    def _lock(self, change: Callable[[Recorded], Recorded]) -> None:
        # The guard keeps two processes from losing each other's entries.
        with _writing(self.cache), (self.cache / ".lock").open("a") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            with _written(self.lock_file) as partial:
                entries = change(self.locked())
                partial.write_text(json.dumps(dict(sorted(entries.items())), indent=1) + "\n", "utf-8")

    # -- the network ---------------------------------------------------------------------------------------------

    def _fetched(self, source: DataSource, *, anew: bool = False) -> _Held:
        pin = Pin.parse(source.pin)
        if self.offline:
            raise self._unavailable(source, "offline: nothing is fetched")
        if pin.member is None and pin.host == "github":
            target = pin.cached_at(self.cache)
            with _written(target) as partial:
                self._download(source, pin, partial)
                held = self._verified(source, partial, "download")
            return _Held(target, held.used)
        if pin.member is None:
            return self._verified(source, self._from_hub(source, pin, anew), "download")
        whole, n_bytes = replace(pin, member=None), source.archive.n_bytes if source.archive else None
        archive_source = replace(source, n_bytes=n_bytes)
        archive = whole.cached_at(self.cache)
        if pin.host == "hf":
            archive = self._from_hub(archive_source, whole, anew)
        else:
            with _written(archive) as partial:
                self._download(archive_source, whole, partial)
        self._sound.discard(archive)
        return self._from_archive(source, pin, archive, "download")

    def _download(self, source: DataSource, pin: Pin, target: Path) -> None:
        with self._asking(source, pin):
            self.http.fetch(pin.url(self.bases), target, n_bytes=source.n_bytes)

    def _from_hub(self, source: DataSource, pin: Pin, anew: bool) -> Path:
        with self._asking(source, pin):
            hub = Hub(endpoint=self.bases["hf"], cache=self.hub_cache, http=self.http)
            return hub.fetch(pin, n_bytes=source.n_bytes, anew=anew)

    @contextmanager
    def _asking(self, source: DataSource, pin: Pin) -> Iterator[None]:
        """A host that does not answer is not asked again for each of fifty files."""
        if pin.host in self._dead:
            raise self._unavailable(source, self._dead[pin.host])
        try:
            yield
        except Unreachable as error:
            self._dead[pin.host] = f"the host cannot be reached: {error}"
            raise self._unavailable(source, self._dead[pin.host]) from error

    # -- messages ------------------------------------------------------------------------------------------------

    def _command(self, source: DataSource) -> str:
        return f"loom data fetch {shlex.quote(self.benchmark or source.folder)}"

    def _unavailable(self, source: DataSource, why: str) -> Unavailable:
        size = f"{source.n_bytes:,} bytes" if source.n_bytes is not None else "size not pinned"
        looked = f"{self.mirror / source.folder} (mirror) and " if self.mirror else ""
        return Unavailable(
            f"missing data file {Pin.parse(source.pin).upstream_path} ({size})",
            where=source.pin,
            why=f"not in {looked}{self.cache} (cache); {why}",
            hint=f"{self._command(source)} where there is a network, or name a mirror folder with --data-dir",
        )

    def _instead(self, path: Path) -> str:
        """The next step where a file of a mirror is not what it must be; "" elsewhere."""
        in_mirror = self.mirror is not None and path.is_relative_to(self.mirror)
        return "put the upstream file in its place, or leave the mirror out" if in_mirror else ""

    def _altered(
        self, source: DataSource, path: Path, found: Digests, expected: str, by_lock: bool = False
    ) -> DataError:
        size = f", {source.n_bytes:,} bytes" if source.n_bytes is not None else ""
        cut = source.n_bytes is not None and found.n_bytes < source.n_bytes
        lock = f" (recorded at the first download, in {self.lock_file})" if by_lock else ""
        digest = f"git {found.git_blob}" if expected.startswith("git ") else f"sha256 {found.sha256}"
        again = f"{instead}: " if (instead := self._instead(path)) else ""
        return DataError(
            f"{'truncated' if cut else 'altered'} data file {Pin.parse(source.pin).upstream_path}",
            where=f"{path}, from {source.pin}",
            why=f"found {digest[:23]}…, {found.n_bytes:,} bytes; expected {expected[:20]}…{size}{lock}",
            hint=f"{again}{self._command(source)}",
        )


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Make the folder; what the operating system refuses in the block becomes a DataError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise DataError(
            "the cache cannot be written", where=str(folder), why=str(error), hint="name another folder with LOOM_CACHE"
        ) from error


@contextmanager
def _written(target: Path) -> Iterator[Path]:
    """A temporary file beside `target` that takes its place when the block ends well, and is deleted when not."""
    with _writing(target.parent):
        handle, name = tempfile.mkstemp(prefix=".", suffix=".partial", dir=target.parent)
        os.close(handle)
        partial = Path(name)
        try:
            yield partial
            partial.chmod(0o644)
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)

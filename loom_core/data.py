"""Pinned upstream files: from a mirror folder, from the cache, or fetched from their authors; always verified.

Knows where files are and what they must be; knows no benchmark and no format beyond archives. Nothing is returned
unless its sha256 equals the pin's, the one a mirror's EXTRACT.toml gives, or the one recorded at the first download.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import shutil
import tarfile
import tempfile
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

from loom_core.download import Http, Unreachable
from loom_core.errors import DataError
from loom_core.literals import constants as read_constants
from loom_core.pins import BASES, Pin, read_pins
from loom_core.types import BadRecord, DataSource

__all__ = ["DataDir", "Pin", "Unavailable", "Used", "read_pins"]

LOCK = "lock.json"
Origin = Literal["mirror", "cache", "download"]
Recorded = dict[str, dict[str, Any]]


class Unavailable(DataError):
    """A file that cannot be had here: absent from the mirror and the cache, and no network or none allowed.

    The plan counts a task that needs it as *unavailable here*; that is no error of the run.
    """

    def to_json(self) -> dict[str, str]:
        """As a DataError: the difference matters only where the file was asked for."""
        return {**super().to_json(), "type": DataError.__name__}


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

    mirror: a folder laid out FOLDER/PATH-IN-UPSTREAM. cache: where downloads go. offline: never ask the network.
    bases: addresses of the hosts. benchmark: the name that messages print in their next step.
    """

    mirror: Path | None
    cache: Path
    offline: bool = False
    bases: Mapping[str, str] = field(default_factory=lambda: BASES)
    http: Http = field(default_factory=Http)
    benchmark: str = ""
    bad: dict[BadRecord, None] = field(default_factory=dict, repr=False)
    notes: dict[str, None] = field(default_factory=dict, repr=False)
    _held: dict[tuple[str, str], _Held] = field(default_factory=dict, repr=False)
    _dead: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def from_environment(cls, data_dir: str | os.PathLike[str] | None = None, offline: bool | None = None) -> DataDir:
        """As LOOM_DATA, LOOM_CACHE, LOOM_OFFLINE (and HF_ENDPOINT) say, the arguments winning over them."""
        chosen = data_dir if data_dir is not None else os.environ.get("LOOM_DATA") or None
        mirror = Path(chosen).expanduser() if chosen is not None else None
        if mirror is not None and not mirror.is_dir():
            raise DataError(
                "the mirror folder does not exist", where=str(mirror), hint="give another with --data-dir or LOOM_DATA"
            )
        cache = Path(os.environ.get("LOOM_CACHE") or Path.home() / ".cache" / "loom").expanduser()
        if offline is None:
            offline = os.environ.get("LOOM_OFFLINE", "").strip().lower() not in ("", "0", "false", "no", "off")
        bases = {**BASES, "hf": os.environ.get("HF_ENDPOINT") or BASES["hf"]}
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
        """Like `path`, but a damaged file in the cache is thrown away and fetched anew."""
        try:
            return self.path(source)
        except Unavailable:
            raise
        except DataError:
            pin = Pin.parse(source.pin)
            damaged = {pin.cached_at(self.cache), replace(pin, member=None).cached_at(self.cache)}
            damaged = {path for path in damaged if path.is_file()}
            if self.offline or self._in_mirror(source) or not damaged:
                raise
            for path in damaged:
                path.unlink()
            return self.path(source)

    def text(self, source: DataSource) -> str:
        """The file's text, UTF-8, line ends as they are."""
        try:
            return self.path(source).read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError("a data file is no UTF-8 text", where=source.pin, why=str(error)) from error

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
            if not self._in_mirror(source) and not Pin.parse(source.pin).cached_at(self.cache).exists()
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

    def _in_mirror(self, source: DataSource) -> tuple[Path, str] | None:
        """The file in the mirror and its path there: the member unpacked, the file itself, or the archive."""
        if self.mirror is None:
            return None
        pin, folder = Pin.parse(source.pin), self.mirror / source.folder
        beside = str(PurePosixPath(pin.path).parent / pin.member) if pin.member is not None else pin.path
        for path in dict.fromkeys((pin.member or pin.path, beside, pin.path)):
            if (folder / path).is_file():
                return folder / path, path
        return None

    def _local(self, source: DataSource) -> _Held | None:
        pin = Pin.parse(source.pin)
        if found := self._in_mirror(source):
            path, inside = found
            assert self.mirror is not None
            extract = _extracts(self.mirror / source.folder).get(inside)
            if pin.member is not None and inside == pin.path:
                return self._from_archive(source, pin, path, "mirror", extract)
            return self._verified(source, path, "mirror", extract)
        cached = pin.cached_at(self.cache)
        return self._verified(source, cached, "cache") if cached.is_file() else None

    def _from_archive(
        self, source: DataSource, pin: Pin, archive: Path, origin: Origin, extract: str | None = None
    ) -> _Held:
        """Take a member out of an archive into the cache, verify it, and only then leave it there.

        extract: the digest that EXTRACT.toml gives for the archive itself, where the mirror holds a cut one.
        """
        assert pin.member is not None
        if extract is not None and _digest(archive)[0] != extract:
            raise self._altered(source, archive, _digest(archive), extract)
        target = pin.cached_at(self.cache)
        if extract is not None:
            # A cut member must never be found in the cache by a later run without this mirror.
            target = self.cache / "extracts" / extract / pin.member
        elif source.sha256 and target.is_file() and _digest(target)[0] == source.sha256:
            return self._verified(source, target, origin)
        with _written(target) as partial:
            _unpack(archive, pin.member, partial, self._command(source))
            held = self._verified(source, partial, origin, _digest(partial)[0] if extract is not None else None)
        return _Held(target, held.used)

    # -- verification --------------------------------------------------------------------------------------------

    def _verified(self, source: DataSource, path: Path, origin: Origin, extract: str | None = None) -> _Held:
        """The file, if its digest is the pinned one, the extract's, or the one recorded before."""
        found = sha256, n_bytes = _digest(path)
        recorded = self.locked().get(source.pin) if not source.sha256 else None
        expected = source.sha256 or (recorded["sha256"] if recorded else "")
        is_extract = sha256 != expected and extract is not None
        if is_extract and sha256 != extract:
            raise self._altered(source, path, found, extract or "")
        if not is_extract:
            if expected and sha256 != expected:
                raise self._altered(source, path, found, expected, by_lock=recorded is not None)
            if source.n_bytes is not None and n_bytes != source.n_bytes:
                raise self._altered(source, path, found, f"{source.n_bytes} bytes")
            if not expected:
                self._record(source.pin, sha256, n_bytes)
        return _Held(
            path,
            Used(
                pin=source.pin,
                folder=source.folder,
                sha256=sha256,
                n_bytes=n_bytes,
                extract=is_extract,
                origin=origin,
                licence=source.licence,
            ),
        )

    def forget(self, pins: Iterable[str]) -> None:
        """Drop recorded digests, so that the next download counts as the first (the upstream changed on purpose)."""
        dropped = set(pins)
        self._lock(lambda entries: {pin: row for pin, row in entries.items() if pin not in dropped})

    def _record(self, pin: str, sha256: str, n_bytes: int) -> None:
        self._lock(lambda entries: {pin: {"sha256": sha256, "bytes": n_bytes}, **entries})

    def _lock(self, change: Callable[[Recorded], Recorded]) -> None:
        # The guard keeps two processes from losing each other's entries.
        with _writing(self.cache), (self.cache / ".lock").open("a") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            with _written(self.lock_file) as partial:
                entries = change(self.locked())
                partial.write_text(json.dumps(dict(sorted(entries.items())), indent=1) + "\n", "utf-8")

    # -- the network ---------------------------------------------------------------------------------------------

    def _fetched(self, source: DataSource) -> _Held:
        pin = Pin.parse(source.pin)
        if self.offline:
            raise self._unavailable(source, "offline: nothing is fetched")
        if pin.member is not None:
            whole = replace(pin, member=None)
            archive = whole.cached_at(self.cache)
            if not archive.is_file():
                self._download(source, whole, archive)
            return self._from_archive(source, pin, archive, "download")
        target = pin.cached_at(self.cache)
        with _written(target) as partial:
            self._download(source, pin, partial, n_bytes=source.n_bytes)
            held = self._verified(source, partial, "download")
        return _Held(target, held.used)

    def _download(self, source: DataSource, pin: Pin, target: Path, n_bytes: int | None = None) -> None:
        if pin.host in self._dead:
            raise self._unavailable(source, self._dead[pin.host])
        token = os.environ.get("HF_TOKEN") if pin.host == "hf" else None
        try:
            with _written(target) as partial:
                self.http.fetch(pin.url(self.bases), partial, n_bytes=n_bytes, token=token)
        except Unreachable as error:
            # One host that does not answer is not asked again for each of fifty files.
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

    def _altered(
        self, source: DataSource, path: Path, found: tuple[str, int], expected: str, by_lock: bool = False
    ) -> DataError:
        sha256, n_bytes = found
        size = f", {source.n_bytes:,} bytes" if source.n_bytes is not None else ""
        cut = source.n_bytes is not None and n_bytes < source.n_bytes
        lock = f" (recorded at the first download, in {self.lock_file})" if by_lock else ""
        in_mirror = self.mirror is not None and path.is_relative_to(self.mirror)
        again = "put the upstream file in its place, or leave the mirror out: " if in_mirror else ""
        return DataError(
            f"{'truncated' if cut else 'altered'} data file {Pin.parse(source.pin).upstream_path}",
            where=f"{path}, from {source.pin}",
            why=f"found sha256 {sha256[:16]}…, {n_bytes:,} bytes; expected {expected[:16]}…{size}{lock}",
            hint=f"{again}{self._command(source)}",
        )


def _digest(path: Path) -> tuple[str, int]:
    """sha256 (hex) and size of a file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
    except OSError as error:
        raise DataError("a data file cannot be read", where=str(path), why=str(error)) from error


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


def _extracts(folder: Path) -> dict[str, str]:
    """The sha256 of each cut file of a mirror folder, by path, as its EXTRACT.toml says."""
    file = folder / "EXTRACT.toml"
    if not file.is_file():
        return {}
    try:
        rows = tomllib.loads(file.read_text("utf-8")).get("file", [])
        return {str(row["path"]): str(row["sha256"]) for row in rows}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError("a mirror's list of extracts cannot be read", where=str(file), why=str(error)) from error


def _unpack(archive: Path, member: str, target: Path, command: str) -> None:
    """Write one member of a zip or tar archive into `target`."""
    try:
        with _opened(archive, member) as inner, target.open("wb") as file:
            shutil.copyfileobj(inner, file)
    except KeyError:
        raise DataError(f"no member {member!r} in an archive", where=str(archive), hint=command) from None
    except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error, RuntimeError) as error:
        raise DataError("an archive cannot be unpacked", where=str(archive), why=str(error), hint=command) from error


@contextmanager
def _opened(archive: Path, member: str) -> Iterator[IO[bytes]]:
    """A member of an archive, to be read. Raises KeyError where it has none of that name."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file, file.open(member) as inner:
            yield inner
        return
    with tarfile.open(archive) as tar:
        found = tar.extractfile(member)
        if found is None:
            raise KeyError(member)
        with found:
            yield found

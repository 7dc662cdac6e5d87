"""Pins: which upstream file at which revision. Parses them and says where they lie; reads only a plugin's pins.toml."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import quote

from loom_core.contract.errors import DataError
from loom_core.contract.tomlfile import read_toml
from loom_core.contract.types import DataSource

BASES: Mapping[str, str] = {"github": "https://raw.githubusercontent.com", "hf": "https://huggingface.co"}


class Unavailable(DataError):
    """A file that cannot be had here: absent from the mirror and the cache, and no network, no access or none allowed.

    The plan counts a task that needs it as *unavailable here*; that is not an error of the run.
    """

    def to_json(self) -> dict[str, str]:
        """As a DataError: the difference matters only where the file was asked for."""
        return {**super().to_json(), "type": DataError.__name__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """A parsed pin. path: the file upstream. member: what to take from it, where it is an archive."""

    host: Literal["github", "hf"]
    repo: str
    revision: str
    path: str
    member: str | None = None

    @classmethod
    def parse(cls, text: str) -> Pin:
        """`github:owner/repo@commit:path` or `hf:dataset@revision:path`, the path perhaps `archive.zip#member`."""
        match = re.fullmatch(r"(github|hf):([^@\s]+)@([^:\s]+):(.+)", text)
        path, hash_sign, member = match[4].partition("#") if match else ("", "", "")
        if not match or not all(_is_plain(part) for part in (match[2], match[3], path, member if hash_sign else "x")):
            raise DataError(
                "a pin is malformed",
                where=repr(text),
                hint="write github:owner/repo@commit:path or hf:name@revision:path",
            )
        host = cast(Literal["github", "hf"], match[1])
        return cls(host=host, repo=match[2], revision=match[3], path=path, member=member if hash_sign else None)

    @property
    def text(self) -> str:
        """The pin as it is written; the inverse of `parse`."""
        return f"{self.host}:{self.repo}@{self.revision}:{self.upstream_path}"

    @property
    def upstream_path(self) -> str:
        """The path as the pin writes it, member included."""
        return self.path if self.member is None else f"{self.path}#{self.member}"

    def url(self, bases: Mapping[str, str]) -> str:
        """Where the whole file is downloaded from."""
        base = bases[self.host].rstrip("/")
        repo, revision, path = quote(self.repo), quote(self.revision, safe=""), quote(self.path)
        if self.host == "github":
            return f"{base}/{repo}/{revision}/{path}"
        return f"{base}/datasets/{repo}/resolve/{revision}/{path}"

    def cached_at(self, cache: Path) -> Path:
        """Where the cache keeps the file; a member lies beside its archive."""
        folder = cache / "data" / self.host / self.repo.replace("/", "--") / self.revision
        return folder / self.path if self.member is None else folder / f"{self.path}.members" / self.member


def read_pins(package_file: Path) -> dict[str, DataSource]:
    """The pins a plugin ships in `pins.toml`, by "FOLDER/PATH".

    package_file: the plugin's `__file__`, whose folder holds pins.toml, or a TOML file itself. One table a mirror
    folder: `repo` and `commit` (GitHub) or `dataset` and `revision` (hub), `licence`, and `files`, a list of `path`,
    `sha256` ("" = not known yet), `bytes` (-1 = not known) and, where it is known, `git_blob` (git's id of the
    content), and `places` (other paths at which a mirror may hold it). `archives` lists, in the same form, the archives
    that members are taken from. `folder` names the mirror folder where it is not the table's own name.
    """
    file = package_file if package_file.suffix == ".toml" else package_file.parent / "pins.toml"
    try:
        pins: dict[str, DataSource] = {}
        for name, table in read_toml(file).items():
            folder = str(table.get("folder", name))
            archives = {row["path"]: _source(table, folder, row) for row in table.get("archives", ())}
            for row in table["files"]:
                archive, _, member = row["path"].partition("#")
                source = _source(table, folder, row)
                pins[f"{folder}/{row['path']}"] = replace(source, archive=archives.get(archive) if member else None)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError("the pins of a plugin cannot be read", where=str(file), why=why) from error
    return pins


def _source(table: Mapping[str, Any], folder: str, row: Mapping[str, Any]) -> DataSource:
    """One row of a table of pins. Raises KeyError where something is missing, DataError for a malformed pin."""
    hub = "dataset" in table
    origin = f"hf:{table['dataset']}@{table['revision']}" if hub else f"github:{table['repo']}@{table['commit']}"
    source = DataSource(
        pin=f"{origin}:{row['path']}",
        folder=folder,
        sha256=str(row["sha256"]),
        n_bytes=row["bytes"] if row["bytes"] >= 0 else None,
        licence=str(table.get("licence", "")),
        git_blob=str(row.get("git_blob", "")),
        places=tuple(map(str, row.get("places", ()))),
    )
    for name, digest, length in (("sha256", source.sha256, 64), ("git_blob", source.git_blob, 40)):
        if digest and not re.fullmatch(f"[0-9a-f]{{{length}}}", digest):
            raise ValueError(f"{row['path']}: {name} is not {length} hexadecimal digits")
    Pin.parse(source.pin)
    return source


class Pinned:
    """A mixin for benchmarks: the pins in the pins.toml beside the module of the class, all of them as its sources."""

    @cached_property
    def pins(self) -> Mapping[str, DataSource]:
        """The pins, by "FOLDER/PATH"."""
        return read_pins(Path(inspect.getfile(type(self))))

    def sources(self) -> tuple[DataSource, ...]:
        """Every file that any options need."""
        return tuple(self.pins.values())


def _is_plain(path: str) -> bool:
    """True for a relative path that stays below where it starts."""
    parts = path.split("/")
    return all(part not in ("", ".", "..") for part in parts) and not any(c in path for c in "\\\0\n\r")

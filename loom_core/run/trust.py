"""Settings that a run folder or a bundle brings along, and which of them its user must say himself.

A folder may come from anybody. What it *asks* (benchmarks, methods, lengths, limits) is data and is taken as it is.
What *reaches* beyond it (an endpoint, the name of a variable with a key, a file, a program, code that comes with a
model) is taken only from this command line, from a folder that this user's own loom wrote, or when it is accepted by
`--trust-settings`. Options say so themselves (`option(reach=True)`).
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from loom_core.contract.errors import UsageError
from loom_core.contract.keys import canonical
from loom_core.contract.options import show
from loom_core.contract.records import Manifest
from loom_core.contract.types import Json
from loom_core.registry.names import parse_arms, parse_benchmark
from loom_core.registry.plugins import Catalog
from loom_core.run.config import RunConfig

REACHING = ("python", "data_dir")
"""Settings of a run, beside the options of plugins, that reach beyond it."""
OWN_EXECUTORS = ("local", "inline")
"""Executors that stay on this machine; any other, of a plugin, may not."""


def seal(config: Json) -> str | None:
    """What proves to this user's own loom that it wrote this config; None where nothing can be kept for that."""
    try:
        key = _key()
    except OSError:
        return None
    return hmac.new(key, canonical(config).encode("ascii"), "sha256").hexdigest()


def is_own(manifest: Manifest) -> bool:
    """True if this user's loom wrote the config of this manifest, and nobody changed it since."""
    given, made = manifest.get("seal"), seal(manifest.get("config"))
    own = isinstance(given, str) and given.isascii() and made is not None
    return own and hmac.compare_digest(str(given), str(made))


def _key() -> bytes:
    """This user's own secret, made when it is first needed and readable by nobody else. Raises OSError."""
    folder = Path(os.environ.get("LOOM_CACHE") or Path.home() / ".cache" / "loom").expanduser()
    path = folder / "seal.key"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f"seal.key.{os.getpid()}"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
        try:
            os.link(draft, path)  # whoever comes second takes the first one's key
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_bytes()


def require(
    config: RunConfig,
    said: Collection[str],
    manifest: Manifest,
    catalog: Catalog,
    *,
    where: str,
    asks: bool = True,
) -> None:
    """Raise UsageError where a config from elsewhere holds settings that reach beyond it.

    said: the settings that this command line replaced (`server_options`, …). asks: the evaluated model will be asked;
    else recorded answers are scored, and what says how to ask is not used.
    """
    if is_own(manifest):
        return
    asking = reaching_when_asking(config, said, catalog) if asks else ()
    if found := [*asking, *reaching_when_scoring(config, said, catalog)]:
        raise UsageError(
            "these settings of the run come from elsewhere and reach beyond it",
            where=where,
            why="; ".join(found),
            hint="say them yourself (--server-option NAME=VALUE, …), or take them as they are with --trust-settings",
        )


def reaching_when_asking(config: RunConfig, said: Collection[str], catalog: Catalog) -> Iterator[str]:
    """Settings that reach beyond a run when its model is asked, each as `what name=value`, but for those said here."""
    for name in REACHING:
        if name not in said and (value := getattr(config, name)) is not None:
            yield f"{name}={value}"
    if "executor" not in said and config.executor not in OWN_EXECUTORS:
        yield f"executor={config.executor}"
    server = catalog.servers.get(_server(config, catalog)).spec
    if "server_options" not in said:
        yield from _given(config.server_options, (server.options,), "server option")
    if "model_options" not in said:
        yield from _given(config.model_options, (server.model_options,), "model option")
    for arm in parse_arms(config.accel, catalog):
        for part in arm.parts:
            yield from _set(part.options, f"method {part.name}")
    for text in config.benchmarks:
        yield from _set(parse_benchmark(text, catalog).options, f"benchmark {text.partition('@')[0]}")


def reaching_when_scoring(config: RunConfig, said: Collection[str], catalog: Catalog) -> Iterator[str]:
    """The same for judges and metrics, which are used whenever answers are scored."""
    if config.judge and "judge" not in said:
        judge = catalog.servers.get(config.judge.partition(":")[0]).spec
        yield from _given(config.judge_options, (judge.options, judge.model_options), "judge option")
    if "metric_options" not in said:
        kinds = tuple(found.spec.options for found in catalog.metrics)
        for name, value in config.metric_options.items():
            yield from _given({name.rpartition(".")[2]: value}, kinds, f"metric option {name.rpartition('.')[0]}")


def _server(config: RunConfig, catalog: Catalog) -> str:
    from loom_core.run.selection import DEFAULT_SERVER

    if config.server:
        return config.server
    known = config.model in catalog.models if config.model else False
    return catalog.models.get(str(config.model)).spec.server if known else DEFAULT_SERVER


def _given(values: Mapping[str, str], kinds: tuple[type, ...], what: str) -> Iterator[str]:
    """Of options given by name: those of these classes that reach."""
    names = {f.name for kind in kinds for f in fields(kind) if f.metadata.get("reach")}
    yield from (f"{what} {name}={value}" for name, value in values.items() if name in names)


def _set(options: Any, what: str) -> Iterator[str]:
    """Of built options: those that reach and are not at their default."""
    for f in fields(options):
        value = getattr(options, f.name)
        if f.metadata.get("reach") and value != f.default:
            yield f"{what} {f.name}={show(value)}"

"""What a run was made with: versions, hardware, origins of settings, digests; and the redaction of secrets.

Everything that is written to a run folder as free text passes through `redact`. Knows no benchmark and no model.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import loom_core
from loom_core.contract.types import Json
from loom_core.registry.plugins import Catalog
from loom_core.run.config import RunConfig
from loom_core.run.selection import Selection
from loom_core.run.trust import seal

SECRET_NAME = re.compile(r"(?i)(key|token|secret|password|passwd|credential)")
KEY_OPTION = "key_env"
KEY_NAMED = re.compile(KEY_OPTION + r"=([A-Za-z_][A-Za-z0-9_]*)")
SHORTEST_SECRET = 8
LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "safetensors", "vllm", "sglang", "openai", "triton")


def secrets(environment: Mapping[str, str] | None = None, *, named: Iterable[str] = ()) -> list[str]:
    """The values of environment variables whose names say that they are secret, the longest first.

    Of a value with several lines (a private key) each line counts too: logs are written line by line. named: further
    variables that hold a key, whatever they are called (`secrets_of`).
    """
    environment = os.environ if environment is None else environment
    named = set(named)
    values = {value for name, value in environment.items() if SECRET_NAME.search(name) or name in named}
    pieces = values | {line.strip() for value in values for line in value.splitlines()}
    return sorted((piece for piece in pieces if len(piece) >= SHORTEST_SECRET), key=lambda piece: (-len(piece), piece))


def secrets_of(config: RunConfig) -> list[str]:
    """The secrets of a run: those of `secrets`, and the values of the variables that its config says hold a key (every
    option whose name ends in `key_env`, of servers, judges, methods and metrics)."""
    return secrets(named=_named(config.to_json()))


def _named(value: Json) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            if str(name).endswith(KEY_OPTION) and isinstance(item, str):
                yield item
            yield from _named(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _named(item)
    elif isinstance(value, str):
        yield from KEY_NAMED.findall(value)


def redact(text: str, hidden: Iterable[str]) -> str:
    """The text with every secret value replaced."""
    for value in hidden:
        text = text.replace(value, "[redacted]")
    return text


def redacted(value: Json, hidden: list[str]) -> Json:
    """A JSON value with every secret replaced in all its texts."""
    if not hidden:
        return value
    if isinstance(value, str):
        return redact(value, hidden)
    if isinstance(value, Mapping):
        return {redact(str(k), hidden): redacted(v, hidden) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted(v, hidden) for v in value]
    return value


def build(selection: Selection, command: list[str]) -> dict[str, Json]:
    """The manifest of a run that begins now."""
    config = selection.config
    manifest = {
        "loom": loom_core.__version__,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": command,
        "config": config.to_json(),
        "config_digest": selection.digest,
        "seed": config.seed,
        "versions": versions(selection.catalog),
        "git": git_state(Path(loom_core.__file__).parent),
        "hardware": hardware(),
        "data": [],
        "workers": [],
        "events": [],
        "trust_remote_code": bool(getattr(selection.model_options, "trust_remote_code", False)),
    }
    result: dict[str, Json] = redacted(manifest, secrets_of(config))
    return result | {"seal": seal(result["config"])}


def versions(catalog: Catalog) -> dict[str, str]:
    """The versions of Python, loom's distributions and the libraries that decide numbers."""
    found = {"python": sys.version.split()[0]}
    names = {f.distribution for kind in catalog.kinds for f in kind}
    for name in (*sorted(names), *LIBRARIES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Json]:
    """The machine, as far as it tells without a GPU library; workers add their devices."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (match := re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text(errors="replace"))):
        model = match[1]
    memory = None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"system": platform.platform(), "cpu": model, "cores": os.cpu_count(), "memory_bytes": memory}


def git_state(folder: Path) -> dict[str, Json] | None:
    """Commit and cleanliness of the checkout that loom runs from; None where it is installed from a wheel."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()

"""Content keys: canonical JSON and sha256. No rank, worker, batch or time ever enters a key."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from loom_core.contract.types import Json, Prompt

_ATOMS = frozenset((str, int, float, bool, type(None)))


def plain(value: Any) -> Json:
    """A value as JSON types: dataclasses and mappings become objects, tuples and (sorted) sets become lists."""
    kind: Any = type(value)
    if kind in _ATOMS:
        return value
    if kind is list or kind is tuple:
        # Token ids come in tens of thousands: one pass in C tells that there is nothing to convert.
        return list(value) if _ATOMS.issuperset(map(type, value)) else [plain(v) for v in value]
    names = _field_names(kind)
    if names is not None:
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(plain(v) for v in value)
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (str, int, float)):
        return value
    raise TypeError(f"{kind.__name__} is not a JSON value: {value!r}")


@functools.cache
def _field_names(kind: type) -> tuple[str, ...] | None:
    """The fields of a dataclass; None for other types."""
    return tuple(f.name for f in fields(kind)) if is_dataclass(kind) else None


def canonical(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, no NaN; equal values give equal texts on every machine."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: Any) -> str:
    """sha256 (hex) of the canonical text."""
    return hashlib.sha256(canonical(value).encode("ascii")).hexdigest()


def prompt_digest(prompt: Prompt) -> str:
    """sha256 of a prompt's segments: kinds, roles and texts, and which of them stand apart."""
    return digest([[s.kind, s.role, s.text, *(["apart"] if s.apart else [])] for s in prompt.segments])


def job_key(
    *,
    sample: str,
    source_digest: str,
    task: Mapping[str, Json],
    repeat: int,
    model: Mapping[str, Json],
    arm: Json,
    protocol: str,
) -> str:
    """The key of a planned answer.

    task: name, version, generation, truncation and template use. model: digests of weights, tokenizer and template,
    model and server options. arm: names, versions and options of the stack.
    """
    return digest(
        {
            "sample": sample,
            "source": source_digest,
            "task": task,
            "repeat": repeat,
            "model": model,
            "arm": arm,
            "protocol": protocol,
        }
    )


def call_key(job: str, step: int, rendered: Json, generation: Any) -> str:
    """The key of one call of a job: `rendered` is the token ids, or the messages where the server renders."""
    return digest({"job": job, "step": step, "rendered": rendered, "generation": generation})


def seed_of(key: str) -> int:
    """A 63-bit seed drawn from a key: the same job draws the same numbers wherever it runs."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:16], 16) >> 1

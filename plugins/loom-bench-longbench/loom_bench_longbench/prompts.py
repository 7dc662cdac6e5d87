"""The authors' templates, read from their config, filled with a record. Knows `str.format`, no task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from string import Formatter

from loom_core.api import DataError, DataSource, Json, Prompt, SegmentKind, from_parts


def read_entry(text: str, source: DataSource, task: str, kind: type[str] | type[int]) -> Json:
    """What a config file of the authors says of a task. Raises DataError naming what is missing or mistyped."""
    try:
        entry = json.loads(text)[task]
        if type(entry) is not kind:
            raise ValueError(f"{task} is {entry!r}")
    except (ValueError, TypeError, KeyError) as error:
        why = f"no entry {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(
            "a config file of LongBench cannot be used", where=source.pin, why=why, hint="loom data verify longbench"
        ) from error
    return entry


def fill(template: str, values: Mapping[str, Json]) -> Prompt:
    """`template.format(**values)` in segments: what comes before the context, the context, and the rest.

    Raises DataError for a template that names anything but fields of the record.
    """
    parts: list[tuple[SegmentKind, str]] = []
    kind: SegmentKind = "instruction"
    for literal, field, spec, conversion in Formatter().parse(template):
        parts.append((kind, literal))
        if field is None:
            continue
        if field not in values or spec or conversion:
            raise DataError(
                "a template of LongBench asks for what a record has not",
                where=f"field {field!r}",
                why=f"a record has {', '.join(sorted(values))}",
            )
        if field == "context":
            kind = "question"
            parts.append(("context", str(values[field])))
        else:
            parts.append((kind, str(values[field])))
    return from_parts(parts)

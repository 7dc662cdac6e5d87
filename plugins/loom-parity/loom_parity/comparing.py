"""Case after case: their value, loom's, and what becomes of it; the counts that make a certificate.

Knows cases and values. Nothing here is kept but numbers, digests and the names an adapter gives.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from loom_core.contract.errors import LoomError, PluginError
from loom_core.contract.keys import plain
from loom_core.contract.types import Json
from loom_parity.certificate import Count
from loom_parity.contract import Case, Parity, ParityContext

FIRST = 10
"""Unexplained differences that a certificate lists, and loom's values that a crash lists."""

Ask = Callable[[str, Json], Mapping[str, Json]]


def equal(theirs: Json, ours: Json, tolerance: float) -> bool:
    """True where both have one shape and texts, and their numbers differ by at most `tolerance` (see `Case`)."""
    if isinstance(theirs, Mapping):
        return (
            isinstance(ours, Mapping)
            and theirs.keys() == ours.keys()
            and all(equal(value, ours[name], tolerance) for name, value in theirs.items())
        )
    if isinstance(theirs, list):
        return (
            isinstance(ours, list)
            and len(theirs) == len(ours)
            and all(equal(a, b, tolerance) for a, b in zip(theirs, ours, strict=True))
        )
    if isinstance(theirs, (int, float)) and isinstance(ours, (int, float)):
        if theirs == ours or (math.isnan(theirs) and math.isnan(ours)):
            return True
        return abs(theirs - ours) <= tolerance * max(1.0, min(abs(theirs), abs(ours)))
    return type(theirs) is type(ours) and bool(theirs == ours)


def shown(value: Json) -> Json:
    """A value as a certificate may hold it: numbers, nothing, and what was raised as they are; all else its digest."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping) and set(value) == {"raises"}:
        return dict(value)
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return {"sha256": hashlib.sha256(text.encode("ascii")).hexdigest(), "n": len(text)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """A case whose two values are not equal. difference: its name, "" where unexplained; crash: where their code
    raised ("" otherwise)."""

    case: Case
    theirs: Json
    ours: Json
    difference: str = ""
    crash: str = ""


@dataclass
class Comparison:
    """What the cases came to so far."""

    counts: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    differences: Counter[str] = field(default_factory=Counter)
    crashes: dict[tuple[str, str, str, str, str], Counter[str]] = field(default_factory=dict)
    unexplained: list[Disagreement] = field(default_factory=list)
    n_unexplained: int = 0

    def add(self, case: Case, found: Disagreement | None) -> None:
        """Count one case; found: None where both values are equal."""
        row = self.counts.setdefault((case.kind, case.name), {})
        if found is not None and found.crash:
            row["crashed"] = row.get("crashed", 0) + 1
            key = (case.kind, case.name, str(found.theirs["raises"]), found.crash, found.difference)
            value = json.dumps(shown(found.ours), sort_keys=True)
            self.crashes.setdefault(key, Counter())[value] += 1
            self.differences.update([found.difference] if found.difference else [])
            return
        row["compared"] = row.get("compared", 0) + 1
        kind = "equal" if found is None else "different" if found.difference else "unexplained"
        row[kind] = row.get(kind, 0) + 1
        if found is not None and found.difference:
            self.differences[found.difference] += 1
        elif found is not None:
            self.n_unexplained += 1
            self.unexplained += [found] if len(self.unexplained) < FIRST else []

    def rows(self) -> tuple[Count, ...]:
        """The counts, by kind and name."""
        return tuple(Count(kind=kind, name=name, **row) for (kind, name), row in sorted(self.counts.items()))

    def crash_rows(self) -> list[Mapping[str, Json]]:
        """What their code raises on, where, how often, and what loom says then."""
        return [
            {
                "kind": kind,
                "name": name,
                "raises": raises,
                "at": place,
                "difference": difference,
                "n": values.total(),
                "loom": [{"value": json.loads(value), "n": n} for value, n in values.most_common(FIRST)],
            }
            for (kind, name, raises, place, difference), values in sorted(self.crashes.items())
        ]

    def unexplained_rows(self) -> list[Mapping[str, Json]]:
        """The first unexplained differences, without any text."""
        return [
            {
                "kind": found.case.kind,
                "name": found.case.name,
                "id": found.case.id,
                "theirs": shown(found.theirs),
                "ours": shown(found.ours),
            }
            for found in self.unexplained
        ]


def limited(parity: Parity, context: ParityContext, functions: frozenset[str]) -> Iterator[Case]:
    """The adapter's cases, at most the limit of each kind and name. Raises PluginError for a case out of contract."""
    seen: dict[tuple[str, str], set[str]] = {}
    for case in parity.cases(context):
        ids = seen.setdefault((case.kind, case.name), set())
        if context.limit is not None and len(ids) >= context.limit:
            continue
        where = f"case {case.kind} {case.name} {case.id}"
        if case.id in ids:
            raise PluginError("the adapter made two cases of one name", where=where)
        if case.function not in functions:
            why = f"authors() returns {', '.join(sorted(functions)) or 'none'}"
            raise PluginError(f"the adapter has no function {case.function!r}", where=where, why=why)
        ids.add(case.id)
        yield case


def compare(parity: Parity, cases: Iterator[Case], ask: Ask, told: Callable[[Disagreement], None]) -> Comparison:
    """Ask both sides about each case. told: hears of each disagreement, with the full values."""
    made = Comparison()
    for case in cases:
        said = ask(case.function, case.payload)
        ours = _ours(case)
        if "raises" in said:
            theirs: Json = {"raises": said["raises"]}
            crash = str(said["at"]) or "the process ended"
        else:
            theirs, crash = said["value"], ""
        if not crash and equal(theirs, ours, case.tolerance):
            made.add(case, None)
            continue
        name = parity.explain(case, theirs, ours) or ""
        if name and name not in parity.differences:
            raise PluginError(
                f"the adapter names an unknown difference {name!r}",
                where=f"case {case.kind} {case.name} {case.id}",
                hint="describe it in `differences`",
            )
        found = Disagreement(case=case, theirs=theirs, ours=ours, difference=name, crash=crash)
        made.add(case, found)
        told(found)
    return made


def _ours(case: Case) -> Json:
    """loom's value in JSON types; what loom refuses (a `LoomError`) or raises is a value too."""
    try:
        return plain(case.ours())
    except LoomError as error:
        return {"raises": type(error).__name__}
    except Exception as error:  # noqa: BLE001 - a fault of loom's is a finding of this command
        return {"raises": type(error).__name__}


def described(differences: Mapping[str, str], counted: Counter[str]) -> Sequence[Mapping[str, Json]]:
    """The named differences that were met, the most frequent first."""
    return [{"name": name, "what": differences[name], "n": n} for name, n in counted.most_common()]

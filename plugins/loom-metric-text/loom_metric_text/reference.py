"""What metrics share about references: the best of several, what is missing, whole numbers. Knows no comparison."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from loom_core.api import Json, PluginError, Sample, Scored


def as_text(reference: Json) -> str:
    """A reference as text: numbers as Python prints them, text as it is."""
    return reference if isinstance(reference, str) else str(reference)


def needed(sample: Sample, name: str) -> Json:
    """`sample.meta[name]`; raises PluginError where the benchmark does not give it."""
    if sample.meta.get(name) is None:
        raise PluginError(
            f"the metric reads meta[{name!r}], which the sample lacks",
            where=f"{sample.task}, sample {sample.id}",
            hint="the benchmark's loader must fill it (see the metric's docstring)",
        )
    return sample.meta[name]


_DIGITS = re.compile(r"\d+")
LONGEST = 4000
"""Digits from which Python refuses to read a whole number; such a run is not a number here."""


def whole_numbers(text: str) -> list[int]:
    """The runs of digits (of any script) as whole numbers."""
    return [int(run) for run in _DIGITS.findall(text) if len(run) < LONGEST]


def unchanged(prediction: str, sample: Sample) -> str:
    """The prediction as it is."""
    return prediction


@dataclass(frozen=True, slots=True)
class Compared:
    """`compare(prediction, reference)` for each reference; the value is the greatest, or that of the first reference.

    prepare: what is cut from the prediction beforehand. best: False where the authors look at the first reference
    only. The detail names the reference that gave the value; without references the value is 0 and the detail says so.
    """

    compare: Callable[[str, str], float]
    prepare: Callable[[str, Sample], str] = unchanged
    best: bool = True

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 to 1; never raises."""
        if not sample.references:
            return no_reference()
        text = self.prepare(prediction, sample)
        extracted = None if text == prediction else text
        if len(sample.references) == 1:
            return Scored(value=self.compare(text, as_text(sample.references[0])), extracted=extracted)
        references = sample.references if self.best else sample.references[:1]
        values = [self.compare(text, as_text(reference)) for reference in references]
        value = max(values)
        return Scored(
            value=value,
            extracted=extracted,
            detail={"reference": values.index(value)} if len(values) > 1 else {},
        )


def no_reference() -> Scored:
    """The score of a sample without references: 0, with the reason."""
    return Scored(value=0.0, detail={"note": "the sample has no reference"})


def failed(why: str) -> Scored:
    """The score where the authors' scorer raises: 0, with what would have been raised."""
    return Scored(value=0.0, detail={"official": f"raises: {why}"})


def hit(found: bool, extracted: Json = None) -> Scored:
    """1 or 0, with what was read from the prediction."""
    return Scored(value=float(found), extracted=extracted)

"""Citation recall, precision and F1 of one answer, as ALCE defines them and L-CiteEval measures them.

Source: ZetangForward/L-CITEEVAL, script/eval_citation.py:compute_autoais (after ALCE, Gao et al. 2023), as facts: a
sentence counts as recalled where its cited passages together entail it without its citations; a citation is needed
where its passage alone entails the sentence, or the others do not. Knows sentences and pairs; knows no model's inside.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from loom_core.api import Sample, Scored
from loom_metric_nli.entailment import Entailment, NoModel, opened
from loom_metric_nli.plugin import CitationOptions

TITLES = "titles"
"""In `Sample.meta`, where passages have titles: one for each document, None for one without."""
LONGEST = 4000
"""Digits from which Python refuses to read a whole number; a citation so long is beyond every passage."""
_CITED = re.compile(r"\[(\d+)")
_AFTER_STOP = re.compile(r"(?<=[.!?])\s+")
Part = Literal["recall", "precision", "f1", "count"]


@dataclass(frozen=True, slots=True)
class Citations:
    """What was found in one answer. count: citations that count; entailed: sentences that theirs entail."""

    sentences: int
    entailed: int
    needed: int
    count: int

    @property
    def recall(self) -> float:
        """Entailed sentences over sentences."""
        return self.entailed / self.sentences if self.sentences else 0.0

    @property
    def precision(self) -> float:
        """Needed citations over citations; 0 without any."""
        return self.needed / self.count if self.count else 0.0

    @property
    def f1(self) -> float:
        """The harmonic mean."""
        total = self.recall + self.precision
        return 2 * self.recall * self.precision / total if total else 0.0


def without_citations(text: str) -> str:
    """`[12]` and ` [12]` deleted, and every other `]` and ` |` with them (ALCE)."""
    return re.sub(r" ?\[\d+", "", text).replace(" |", "").replace("]", "")


def sentences_by_rule(text: str) -> list[str]:
    """The text split at white space after a full stop, an exclamation or a question mark."""
    return [piece for piece in _AFTER_STOP.split(text.strip()) if piece]


def sentences_by_punkt(text: str) -> list[str]:
    """nltk's English sentences. Raises NoModel where its data is not installed."""
    from nltk.tokenize import sent_tokenize  # type: ignore[import-untyped]

    try:
        return list(sent_tokenize(text))
    except LookupError as error:
        hint = "python -m nltk.downloader punkt_tab, or --metric-option nli.sentences=rule"
        raise NoModel(f"nltk's punkt data is not installed: {hint}") from error


SPLITTERS: dict[str, Callable[[str], list[str]]] = {"punkt": sentences_by_punkt, "rule": sentences_by_rule}


@dataclass(frozen=True, slots=True)
class _Sentence:
    """A sentence without its citations, and the passages it cites (indices; -1 for [0], which names the last one)."""

    claim: str
    cited: tuple[int, ...]


def premises(sample: Sample) -> tuple[str, ...]:
    """The passages as the entailment model reads them: with their titles, where `Sample.meta` has them."""
    titles = sample.meta.get(TITLES) or [None] * len(sample.documents)
    return tuple(
        f"Passage: {text}" if title is None else f"Title: {title}\nPassage: {text}"
        for title, text in zip(titles, sample.documents, strict=True)
    )


def _parse(text: str, n_documents: int) -> tuple[str, list[int]]:
    cited = [int(number) - 1 if len(number) < LONGEST else n_documents for number in _CITED.findall(text)]
    # One number beyond the passages rejects all of a sentence's citations; they then do not count either.
    in_range = all(i < n_documents and n_documents for i in cited)
    return without_citations(text).strip(), cited if in_range else []


def measure(
    prediction: str, documents: Sequence[str], entails: Entailment, split: Callable[[str], list[str]], at_most: int
) -> Citations:
    """The citations of one answer. documents: the passages (as `premises` has them); the first is cited as [1]."""
    sentences = []
    for text in split(prediction):
        claim, cited = _parse(text, len(documents))
        sentences.append(_Sentence(claim, tuple(cited[:at_most])))
    joint = [one for one in sentences if one.cited]
    held = entails.holds([(_premise(documents, one.cited), one.claim) for one in joint])
    kept = [one for one, ok in zip(joint, held, strict=True) if ok]
    single = sum(len(one.cited) == 1 for one in kept)
    several = [one for one in kept if len(one.cited) > 1]
    return Citations(
        sentences=len(sentences),
        entailed=len(kept),
        needed=single + sum(_needed(documents, several, entails)),
        count=sum(len(one.cited) for one in sentences),
    )


def _needed(documents: Sequence[str], sentences: Sequence[_Sentence], entails: Entailment) -> Iterator[bool]:
    """For each citation of sentences with several, whether it is needed."""
    pairs = [(one, i) for one in sentences for i in one.cited]
    alone = entails.holds([(_premise(documents, (i,)), one.claim) for one, i in pairs])
    doubtful = [pair for pair, ok in zip(pairs, alone, strict=True) if not ok]
    others = entails.holds([(_premise(documents, _except(one.cited, i)), one.claim) for one, i in doubtful])
    yield from (True for ok in alone if ok)
    yield from (not ok for ok in others)


def _except(cited: tuple[int, ...], i: int) -> tuple[int, ...]:
    """The citations without the first that names passage i."""
    at = cited.index(i)
    return cited[:at] + cited[at + 1 :]


def _premise(documents: Sequence[str], cited: Sequence[int]) -> str:
    return "\n".join(documents[i] for i in cited)


@functools.lru_cache(maxsize=8)
def _measured(prediction: str, documents: tuple[str, ...], options: CitationOptions) -> Citations:
    """As `measure`; the four metrics of one answer share it."""
    entails = opened(options.model, options.batch, options.device)
    return measure(prediction, documents, entails, SPLITTERS[options.sentences], options.at_most)


@dataclass(frozen=True)
class CitationMetric:
    """One part of an answer's citations. Reads `Sample.documents`, the passages as they are numbered in the prompt,
    and `Sample.meta["titles"]`."""

    part: Part
    options: CitationOptions

    def score(self, prediction: str, sample: Sample) -> Scored:
        """The part; 0 for an answer without a sentence, which the authors leave out; None where no model is at hand."""
        try:
            found = _measured(prediction, premises(sample), self.options)
        except NoModel as error:
            return Scored(value=None, detail={"error": str(error)})
        facts = {name: getattr(found, name) for name in ("sentences", "entailed", "needed", "count")}
        detail = {**facts, "model": self.options.model, "split": self.options.sentences}
        if not found.sentences:
            detail["official"] = "left out: the answer has no sentence"
        return Scored(value=float(getattr(found, self.part)), detail=detail)


def recall(options: CitationOptions | None = None) -> CitationMetric:
    """Citation recall."""
    return CitationMetric("recall", options or CitationOptions())


def precision(options: CitationOptions | None = None) -> CitationMetric:
    """Citation precision."""
    return CitationMetric("precision", options or CitationOptions())


def f1(options: CitationOptions | None = None) -> CitationMetric:
    """Citation F1 of one answer."""
    return CitationMetric("f1", options or CitationOptions())


def count(options: CitationOptions | None = None) -> CitationMetric:
    """Citations that count."""
    return CitationMetric("count", options or CitationOptions())

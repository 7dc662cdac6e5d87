"""The official variant: templates and settings from the authors' files, their word lists, essays and questions.

Reads pinned files through `Data` and executes nothing of them. Source of the rules that are no constants: the
generators in NVIDIA/RULER, scripts/data/synthetic. The random numbers are loom's own, so no sample equals one of theirs
word for word.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from loom_bench_ruler.chains import ChainDraft, Form, a_name, a_value, chain, chain_ask
from loom_bench_ruler.counting import (
    CommonDraft,
    CommonMaker,
    Numbers,
    common_ask,
    common_words,
    frequent,
    numbered,
    shuffled,
)
from loom_bench_ruler.draft import Ask, Body, Maker, insert
from loom_bench_ruler.meter import Meter, Pool, Strand
from loom_bench_ruler.needles import DEPTHS, Drawn, draw_needles, maker_of
from loom_bench_ruler.questions import Asked, question_maker, read_hotpot, read_squad
from loom_bench_ruler.settings import (
    LOOM_SETTINGS,
    Chains,
    Common,
    Frequent,
    Needles,
    Questions,
    Settings,
    Wording,
    family,
    read_noise,
    read_settings,
    read_wording,
)
from loom_bench_ruler.words import WordBook, distinct, wonderwords_book
from loom_core.contracts import Data
from loom_core.data import Unavailable
from loom_core.errors import DataError
from loom_core.types import DataSource

CONSTANTS, SETTINGS = "ruler/scripts/data/synthetic/constants.py", "ruler/scripts/synthetic.yaml"
NOISE = "ruler/scripts/data/synthetic/niah.py"
QUESTIONS = "ruler/scripts/data/synthetic/json/{}.json"
ESSAYS = "niah/"
FORM = Form("VAR {name} = {value}", "VAR {name} = VAR {other} ")
SHORT = 4096
"""Below this length the authors take smaller steps, and lists repeat their words less often."""
ESSAY_STEP, LINE_STEP, SHORT_STEP, CHAIN_STEP = 500, 25, 5, 10
EXAMPLE_TOKENS, EXAMPLE_LETTERS = 500, 3
SENTENCE = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])")
"""Where a sentence ends: a plain rule where the authors use NLTK's trained one."""
ORDER_BITS = 32
COMMON_SHORT = {"often": 6, "seldom": 1}
EXAMPLE_WORDS = {True: (20, 3, 1), False: (40, 10, 3)}
"""The example list of cwe, short or not: words, how often the common and the others stand."""


@dataclass(frozen=True, slots=True)
class Official:
    """The pinned files, by their place in a mirror."""

    pins: Mapping[str, DataSource]

    def sources(self, name: str) -> tuple[DataSource, ...]:
        """What a task reads. Which text a task needs is known before its settings are read."""
        settings = LOOM_SETTINGS[name]
        found = [self.pins[CONSTANTS], self.pins[SETTINGS]]
        if isinstance(settings, Chains) or (isinstance(settings, Needles) and settings.haystack == "noise"):
            found.append(self.pins[NOISE])
        elif isinstance(settings, Needles) and settings.haystack == "essay":
            found += self._essays()
        elif isinstance(settings, Questions):
            found.append(self.pins[QUESTIONS.format(settings.dataset)])
        return tuple(found)

    def _essays(self) -> list[DataSource]:
        return [self.pins[name] for name in sorted(self.pins) if name.startswith(ESSAYS)]

    def read(self, name: str, data: Data) -> Read:
        """Everything a task needs. Raises Unavailable or DataError naming the file."""
        constants, yaml = self.pins[CONSTANTS], self.pins[SETTINGS]
        wordings = read_wording(data.constants(constants, ["TASKS"])["TASKS"], constants.pin)
        rows = read_settings(data.text(yaml), yaml.pin)
        if name not in rows:
            raise DataError("a task is missing from the settings of RULER", where=yaml.pin, why=f"no {name}")
        settings = rows[name]
        return Read(settings, wordings[family(settings)], *self._material(settings, data))

    def _material(self, settings: Settings, data: Data) -> tuple[Sequence[str], tuple[list[str], list[Asked]] | None]:
        if isinstance(settings, Chains) or (isinstance(settings, Needles) and settings.haystack == "noise"):
            source = self.pins[NOISE]
            return (read_noise(data.text(source), source.pin),), None
        if isinstance(settings, Needles) and settings.haystack == "essay":
            return tuple(" ".join(data.text(source) for source in self._essays()).split()), None
        if isinstance(settings, Questions):
            return (), _questions(data, self.pins[QUESTIONS.format(settings.dataset)], settings.dataset)
        return (), None


def _questions(data: Data, source: DataSource, dataset: str) -> tuple[list[str], list[Asked]]:
    try:
        text = data.text(source)
    except Unavailable:
        raise
    except DataError as error:
        if not error.why.startswith("HTTP "):
            raise
        raise Unavailable(
            f"the questions of {dataset} are not at hand",
            where=source.pin,
            why="the authors' script download_qa_dataset.sh fetches them; they are no part of the repository",
            hint=f"put the file into a mirror folder, as {QUESTIONS.format(dataset)}, and name it with --data-dir",
        ) from error
    try:
        values = json.loads(text)
        return read_squad(values) if dataset == "squad" else read_hotpot(values)
    except (ValueError, KeyError, TypeError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"the questions of {dataset} cannot be read", where=source.pin, why=why) from error


@dataclass(frozen=True, slots=True)
class Read:
    """A task's settings and wording as read, and its material: noise, essay words, or documents with questions."""

    settings: Settings
    wording: Wording
    texts: Sequence[str]
    questions: tuple[list[str], list[Asked]] | None

    def maker(self, meter: Meter, target: int, seed: str) -> Maker:
        """What makes the drafts at one length."""
        match self.settings:
            case Needles():
                return self._needles(self.settings, meter, target)
            case Chains():
                pool = meter.pool([f"{self.texts[0]}\n"], " ")
                return OfficialChains(self.settings, self.wording, pool, self._example_noises(meter, pool))
            case Common():
                return self._common(self.settings, meter, target, seed)
            case Frequent():
                return frequent(self.settings, meter, target)
            case _:
                assert self.questions is not None
                documents, questions = self.questions
                return question_maker(documents, questions, meter, target, in_order=True)

    def _needles(self, settings: Needles, meter: Meter, target: int) -> OfficialNeedles:
        words = "words" in (settings.keys, settings.values)
        book = wonderwords_book() if words else WordBook((), (), (), "")
        sentence = self.wording.needle.replace("{type_needle_v}", settings.values)
        pool, step = None, LINE_STEP if target >= SHORT else SHORT_STEP
        draw = random.Random("some needles")
        if settings.haystack == "essay":
            pool, step = meter.pool(self.texts, " "), ESSAY_STEP
        elif settings.haystack == "noise":
            pool = meter.pool(self.texts, "\n")
        else:
            key, value = maker_of(settings.keys, book), maker_of(settings.values, book)
            some = [sentence.format(key=key(draw), value=value(draw)) for _ in range(256)]
            mean = meter.pool(some, "\n").mean
            return OfficialNeedles(settings, sentence, book, None, mean, step)
        return OfficialNeedles(settings, sentence, book, pool, 0.0, step)

    def _example_noises(self, meter: Meter, pool: Pool) -> int:
        return max(1, int(EXAMPLE_TOKENS / pool.mean) - 1)

    def _common(self, settings: Common, meter: Meter, target: int, seed: str) -> OfficialCommon:
        short = target < SHORT
        rule = replace(settings, **COMMON_SHORT) if short else settings
        book = wonderwords_book()
        words, costs = common_words(book, meter, target, rule.seldom, seed)
        return OfficialCommon(CommonMaker(rule, words, costs, Numbers.of(meter), book.source), self.wording, short)


@lru_cache(maxsize=4)
def sentences(words: tuple[str, ...], n: int) -> tuple[str, ...]:
    """The first n words of the essays, which begin anew as often as needed, cut into sentences."""
    text = " ".join((words * (n // len(words) + 1))[:n])
    return tuple(SENTENCE.split(text))


@dataclass(frozen=True, slots=True)
class OfficialNeedleDraft:
    """Needles in n essay words, n lines of noise, or among n other needles drawn from `hay_seed`."""

    ask: Ask
    asked: Sequence[int]
    needles: Sequence[str]
    strand: Strand | None
    other: Callable[[random.Random], str]
    mean: float
    essay: bool
    seed: int
    frame: float = 1.0

    def fit(self, room: float) -> tuple[int, float]:
        """Essay words and noise by their sums, other needles by their mean."""
        if self.strand is not None:
            return self.strand.fit(room)
        n = int(room / self.mean)
        return n, n * self.mean

    def body(self, n: int, padding: str = "") -> Body:
        """Between sentences at drawn depths, or between drawn lines. padding is not used."""
        draw = random.Random(self.seed)
        if self.essay:
            assert self.strand is not None
            pieces: Sequence[str] = sentences(tuple(self.strand.pool.pieces), n) if n else ()
            places = sorted(int(len(pieces) * depth / 100) for depth in draw.sample(DEPTHS, len(self.needles)))
        else:
            places = sorted(draw.sample(range(max(n, len(self.needles))), len(self.needles)))
            places = [min(place, n) for place in places]
            pieces = self.strand.take(n) if self.strand is not None else [self.other(draw) for _ in range(n)]
        body = insert(pieces, list(zip(places, self.needles, strict=True)), " " if self.essay else "\n")
        return Body(body.context, tuple(body.spans[i] for i in self.asked))


@dataclass(frozen=True, slots=True)
class OfficialNeedles:
    """Drafts of an official needle task. pool: essay words or noise; None: other needles, `mean` tokens each."""

    settings: Needles
    sentence: str
    book: WordBook
    pool: Pool | None
    mean: float
    step: int
    least: int = 0

    def draft(self, draw: random.Random, index: int) -> OfficialNeedleDraft:
        """Keys, values and places, all drawn."""
        drawn: Drawn = draw_needles(self.settings, self.book, frozenset(), draw)
        key, value = maker_of(self.settings.keys, self.book), maker_of(self.settings.values, self.book)
        held = {text for pair in drawn.pairs for text in pair}

        def other(draw: random.Random) -> str:
            while (name := key(draw)) in held:
                pass
            return self.sentence.format(key=name, value=value(draw))

        return OfficialNeedleDraft(
            ask=drawn.ask(self.settings, self.book, None),
            asked=drawn.asked,
            needles=drawn.texts(self.sentence),
            strand=None if self.pool is None else Strand(self.pool, None),
            other=other,
            mean=self.mean,
            essay=self.settings.haystack == "essay",
            seed=draw.getrandbits(ORDER_BITS),
        )


@dataclass(frozen=True, slots=True)
class OfficialChains:
    """Drafts of the official variable tracking: an example with other names stands in front."""

    settings: Chains
    wording: Wording
    pool: Pool
    example_noises: int
    step: int = CHAIN_STEP
    least: int = 0

    def draft(self, draw: random.Random, index: int) -> OfficialChainDraft:
        """As loom's, in the authors' form; the example has names of three letters."""
        settings, length = self.settings, self.settings.hops + 1
        names = distinct(lambda: a_name(draw), settings.chains * length)
        values = distinct(lambda: a_value(draw), settings.chains)
        chains = [chain(FORM, names[i * length : (i + 1) * length], value) for i, value in enumerate(values)]
        lead = self._example(draw)
        return OfficialChainDraft(
            ask=chain_ask(names[:length], values[0], lead),
            strand=Strand(self.pool, None),
            joint=" ",
            statements=[statement for row in chains for statement in row],
            depths=[depth for row in chains for depth in sorted(draw.random() for _ in row)],
            asked=length,
        )

    def _example(self, draw: random.Random) -> str:
        names = distinct(lambda: a_name(draw, EXAMPLE_LETTERS), self.settings.hops + 1)
        value = a_value(draw)
        example = OfficialChainDraft(
            ask=chain_ask(names, value),
            strand=Strand(self.pool, None),
            joint=" ",
            statements=chain(FORM, names, value),
            depths=sorted(draw.random() for _ in names),
            asked=len(names),
        )
        blanks, wording = example.ask.blanks, self.wording
        parts = wording.before.format(**blanks), wording.after.format(**blanks), wording.prefix.format(**blanks)
        return f"{parts[0]}{example.body(self.example_noises).context}{parts[1]}{parts[2]} {' '.join(names)}\n\n"


class OfficialChainDraft(ChainDraft):
    """A chain in noise whose lines end with a line feed."""

    __slots__ = ()

    def body(self, n: int, padding: str = "") -> Body:
        """The authors join with spaces, then take the space before a line feed away."""
        body = ChainDraft.body(self, n)
        context = body.context.replace(". \n", ".\n")
        spans, at = [], 0
        for start, end in body.spans:
            statement = body.context[start:end].strip()
            at = context.index(statement, at)
            spans.append((at, at + len(statement)))
        return Body(context, tuple(spans))


@dataclass(frozen=True, slots=True)
class OfficialCommon:
    """Drafts of the official cwe: a shorter list with its answer stands in front."""

    maker: CommonMaker
    wording: Wording
    short: bool
    step: int = 10
    least: int = 1

    def draft(self, draw: random.Random, index: int) -> CommonDraft:
        """The list, and the example in front of it."""
        draft = self.maker.draft(draw, index)
        return replace(draft, ask=common_ask(draft.common, self.maker.source, self._example(draw)))

    def _example(self, draw: random.Random) -> str:
        n, often, seldom = EXAMPLE_WORDS[self.short]
        words = draw.sample(list(self.maker.words), n)
        common, others = words[: self.maker.rule.words], words[self.maker.rule.words :]
        listed = shuffled(common * often + others * seldom, draw.getrandbits(ORDER_BITS))
        parts = (self.wording.before, self.wording.after, self.wording.prefix)
        before, after, prefix = (text.format(query="", num_v="", type_needle_v="") for text in parts)
        return f"{before}{numbered(listed)}{after}{prefix} {numbered(common)}\n"

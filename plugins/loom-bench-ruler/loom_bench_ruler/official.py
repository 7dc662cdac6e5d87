"""The official variant: the authors' files, and the run of their generator that they make up. Executes nothing of them.

Reads pinned files through `Data`: templates, settings, noise, essays, words, questions. What follows from a seed, a
tokenizer and a length is the authors' own output to the byte; `*_run.py` say how.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Literal

from loom_bench_ruler.chain_run import ChainRun, Layout, chain_samples
from loom_bench_ruler.keywords import Keywords
from loom_bench_ruler.list_run import SHORT, CommonRun, FrequentRun, common_search
from loom_bench_ruler.needle_run import NeedleRun, needle_search
from loom_bench_ruler.question_run import QuestionRun, question_search
from loom_bench_ruler.questions import Asked, read_hotpot, read_squad
from loom_bench_ruler.runs import Count, Made, order, samples
from loom_bench_ruler.sentences import Haystack, haystack
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
from loom_bench_ruler.words import wonderwords_book
from loom_core.api import Data, DataError, DataSource, Unavailable

CONSTANTS, SETTINGS = "ruler/scripts/data/synthetic/constants.py", "ruler/scripts/synthetic.yaml"
NOISE = "ruler/scripts/data/synthetic/niah.py"
LONG_LISTS = "ruler/scripts/data/synthetic/json/english_words.json"
QUESTIONS = {"squad": "ruler/dataset/dev-v2.0.json", "hotpotqa": "ruler/hotpot_dev_distractor_v1.json"}
CHECKOUT = "ruler/scripts/data/synthetic/json/{}.json"
"""Where the authors' script download_qa_dataset.sh puts the questions."""
ESSAYS = "niah/"
LongLists = Literal["auto", "file", "pool"]


@dataclass(frozen=True)
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
            found.append(self.pins[QUESTIONS[settings.dataset]])
        return tuple(found)

    def _essays(self) -> list[DataSource]:
        return [self.pins[name] for name in sorted(self.pins) if name.startswith(ESSAYS)]

    def read(self, name: str, data: Data) -> Read:
        """A task's settings and wording. Raises Unavailable or DataError naming the file."""
        constants, yaml = self.pins[CONSTANTS], self.pins[SETTINGS]
        wordings = read_wording(data.constants(constants, ["TASKS"])["TASKS"], constants.pin)
        rows = read_settings(data.text(yaml), yaml.pin)
        if name not in rows:
            raise DataError("a task is missing from the settings of RULER", where=yaml.pin, why=f"no {name}")
        settings = rows[name]
        return Read(settings, wordings[family(settings)], data, self)

    def noise(self, data: Data) -> str:
        """The line of noise."""
        return read_noise(data.text(self.pins[NOISE]), self.pins[NOISE].pin)

    def essays(self, data: Data) -> Haystack:
        """The essays in the order of their names, one directly behind the other, as the authors' script joins them."""
        found = haystack(self.essays_text(data))
        if not found.known:
            data.notes[
                "ruler: essays other than the pinned ones are cut into sentences by a plain rule, not NLTK's"
            ] = None
        return found

    def essays_text(self, data: Data) -> str:
        """The essays as one text."""
        return "".join(data.text(source) for source in self._essays())

    def long_lists(self, data: Data) -> tuple[str, ...]:
        """The words of english_words.json. Raises Unavailable where the file is absent or a git-lfs pointer."""
        source = self.pins[LONG_LISTS]
        try:
            return tuple(str(word) for word in json.loads(data.text(source)).values())
        except DataError as error:
            if not (isinstance(error, Unavailable) or "git-lfs" in error.what):
                raise
            raise Unavailable(
                "the words of long lists are not at hand",
                where=source.pin,
                why="cwe needs them for lists of more different words than wonderwords has; the file lies in git-lfs",
                hint="run `git lfs pull` in a checkout of NVIDIA/RULER and name it as ruler/ of --data-dir; or ask for "
                "shorter lengths, or for ruler@variant=official,long_lists=pool",
            ) from error
        except (ValueError, AttributeError) as error:
            raise DataError("the words of long lists cannot be read", where=source.pin, why=str(error)) from error

    def questions(self, data: Data, dataset: str) -> tuple[list[str], list[Asked]]:
        """Documents and questions: from the checkout where the authors' script puts them, else as pinned."""
        text, pin = self.questions_text(data, dataset)
        try:
            values = json.loads(text)
            return read_squad(values) if dataset == "squad" else read_hotpot(values)
        except (ValueError, KeyError, TypeError) as error:
            why = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(f"the questions of {dataset} cannot be read", where=pin, why=why) from error

    def questions_text(self, data: Data, dataset: str) -> tuple[str, str]:
        """The file of a set of questions, and its pin."""
        placed, pinned = self.pins[CHECKOUT.format(dataset)], self.pins[QUESTIONS[dataset]]
        try:
            return data.text(placed), placed.pin
        except DataError as error:
            if not (isinstance(error, Unavailable) or error.why.startswith("HTTP ")):
                raise
        return data.text(pinned), pinned.pin


@dataclass(frozen=True)
class Read:
    """A task's settings and wording as read, and where its material comes from; each is read once, when needed."""

    settings: Settings
    wording: Wording
    data: Data
    official: Official

    def samples(
        self, level: int, cut: int, max_tokens: int, seed: int, where: str, count: Count, choice: Choice
    ) -> Iterator[Made]:
        """The samples of one run, without an end: those of the authors' generator, in their order.

        level: most tokens of prompt and answer; cut: tokens of them that a chat template takes. Raises UsageError
        where a length is too short, Unavailable or DataError where a file is not at hand.
        """
        settings, wording, room, draw = self.settings, self.wording, level - cut, Random(seed)
        match settings:
            case Needles():
                search = needle_search(settings, level, room, max_tokens, where)
                needles = self._needles(settings, seed, draw)
                return samples(needles, search.units(needles, count), search, count, max_tokens)
            case Chains():
                from numpy.random import RandomState

                chains = ChainRun(settings, wording, draw, RandomState(seed), self._noise, choice.vt)
                return chain_samples(chains, level, room, cut, max_tokens, where, count)
            case Common():
                wonderwords_book()  # where it is absent, so is the task, whatever long lists are made of
                if choice.long_lists != "pool":
                    try:
                        return self._lists(settings, level, room, max_tokens, seed, where, count, "file")
                    except Unavailable:
                        if choice.long_lists == "file":
                            raise
                    self.data.notes[
                        f"ruler:{where}: english_words.json is not at hand, so lists of more words than wonderwords "
                        "has are not made (as with long_lists=pool)"
                    ] = None
                return self._lists(settings, level, room, max_tokens, seed, where, count, "pool")
            case Frequent():
                return FrequentRun(settings, wording, seed, draw, room, max_tokens, where).samples(count)
            case Questions():
                search = question_search(room, max_tokens, where)
                documents, questions = self._questions
                asked = QuestionRun(wording, seed, draw, documents, questions, where)
                return samples(asked, search.units(asked, count), search, count, max_tokens)

    def _needles(self, settings: Needles, seed: int, draw: Random) -> NeedleRun:
        words: Sequence[str] = ()
        source = ""
        if "words" in (settings.keys, settings.values):
            book = wonderwords_book()
            words, source = Keywords(book.adjectives, book.nouns), book.source
        return NeedleRun(
            settings=settings,
            wording=self.wording,
            seed=seed,
            stream=draw,
            words=words,
            essays=self._essays if settings.haystack == "essay" else None,
            noise=self._noise if settings.haystack == "noise" else "",
            source=source,
        )

    def _lists(
        self,
        settings: Common,
        level: int,
        room: int,
        max_tokens: int,
        seed: int,
        where: str,
        count: Count,
        long_lists: Literal["file", "pool"],
    ) -> Iterator[Made]:
        """A run of cwe, its search done. Raises Unavailable where a list takes words from a file that is absent."""
        book = wonderwords_book()
        pool = [book.single[i] for i in order(seed, len(book.single))]
        search = common_search(room, max_tokens, where)
        if long_lists == "pool":
            search = search.at_most(len(pool))
        more: Callable[[], Sequence[str]] = (lambda: self._long_lists) if long_lists == "file" else (lambda: pool)
        run = CommonRun(settings, self.wording, seed, Random(seed), level < SHORT, pool, more, book.source, long_lists)
        return samples(run, search.units(run, count), search, count, max_tokens)

    @cached_property
    def _noise(self) -> str:
        return self.official.noise(self.data)

    @cached_property
    def _essays(self) -> Haystack:
        return self.official.essays(self.data)

    @cached_property
    def _long_lists(self) -> tuple[str, ...]:
        return self.official.long_lists(self.data)

    @cached_property
    def _questions(self) -> tuple[list[str], list[Asked]]:
        assert isinstance(self.settings, Questions)
        return self.official.questions(self.data, self.settings.dataset)


@dataclass(frozen=True, slots=True)
class Choice:
    """The options that change what the official variant makes."""

    vt: Layout
    long_lists: LongLists

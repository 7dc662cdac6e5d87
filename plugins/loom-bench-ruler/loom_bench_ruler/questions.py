"""Questions on documents: qa_1 needs one of them, qa_2 two. Knows documents and costs, no prompt and no file.

Source of the rules: NVIDIA/RULER, qa.py; `question_run` is it. loom's variant writes its own documents, about
made-up people, workshops and towns.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, product

from loom_bench_ruler.draft import Ask, Body
from loom_bench_ruler.meter import Meter
from loom_bench_ruler.words import article, own, sentence
from loom_core.api import Json

JOINT = "\n\n"
FILLER_SENTENCES = 2
POOL_SHARE = 1.25


@dataclass(frozen=True, slots=True)
class Asked:
    """A question. documents: those it needs (indices). others: the first distractors. answers: any one is right."""

    query: str
    answers: tuple[str, ...]
    documents: tuple[int, ...]
    others: tuple[int, ...] = ()


def titled(i: int, document: str) -> str:
    """A document as the prompt shows it."""
    return f"Document {i}:\n{document}"


def spans_of(
    answers: Sequence[str], needed: Sequence[int], order: Sequence[int], rows: Sequence[str]
) -> tuple[tuple[int, int], ...]:
    """Where each answer stands in the last needed document that has it; none where one of them is nowhere.

    order: the document of each row, rows: the documents as the prompt shows them, joined by `JOINT`.
    """
    spans = []
    for answer in answers:
        for i in reversed(needed):
            number = order.index(i)
            at = rows[number].find(answer)
            if at >= 0:
                start = sum(len(row) + len(JOINT) for row in rows[:number]) + at
                spans.append((start, start + len(answer)))
                break
    return tuple(spans) if len(spans) == len(answers) else ()


@dataclass(frozen=True, slots=True)
class QuestionDraft:
    """The needed documents, and the others in their order; `places` says where among others the needed ones go."""

    ask: Ask
    documents: Sequence[str]
    needed: Sequence[int]
    others: Sequence[int]
    sums: Sequence[float]
    places: Sequence[float]
    frame: float

    def fit(self, room: float) -> tuple[int, float]:
        """How many other documents fit."""
        n = bisect_right(self.sums, room) - 1
        return n, self.sums[n]

    def body(self, n: int, padding: str = "") -> Body:
        """Numbered documents. The span of each reference is where it is in the last needed document."""
        order = list(self.others[:n])
        for place, i in sorted(zip(self.places, self.needed, strict=True), reverse=True):
            order.insert(int(place * (n + 1)), i)
        texts = [self.documents[i] for i in order] + ([padding] if padding else [])
        rows = [titled(number, text) for number, text in enumerate(texts, 1)]
        return Body(JOINT.join(rows), spans_of(self.ask.references, self.needed, order, rows))


@dataclass(frozen=True, slots=True)
class QuestionMaker:
    """Drafts of a qa task at one length."""

    documents: Sequence[str]
    costs: Sequence[float]
    questions: Sequence[Asked]
    frame: float
    rounds: int
    least: int = 0

    def draft(self, draw: random.Random, index: int) -> QuestionDraft:
        """A drawn question. Distractors are drawn, and come again where a prompt has room for more than there are."""
        asked = draw.choice(self.questions)
        held = {*asked.documents, *asked.others}
        rest = [i for i in range(len(self.documents)) if i not in held]
        draw.shuffle(rest)
        first = list(asked.others)
        draw.shuffle(first)
        others = (first + rest) * self.rounds
        return QuestionDraft(
            ask=question_ask(asked),
            documents=self.documents,
            needed=asked.documents,
            others=others,
            sums=list(accumulate((self.costs[i] for i in others), initial=0.0)),
            places=[draw.random() for _ in asked.documents],
            frame=self.frame,
        )


def question_ask(asked: Asked) -> Ask:
    """The question; any answer of it is right."""
    return Ask(references=asked.answers, blanks={"query": asked.query, "count": "1"}, oracle=asked.answers[0])


def loom_questions(dataset: str, meter: Meter, target: int, seed: str) -> QuestionMaker:
    """As many made-up documents as a prompt of `target` tokens may need, and every question on them."""
    draw = random.Random(f"{seed} documents")
    some = meter.pool([titled(100, text) for text in _world(random.Random("size"), 32)[0]], JOINT)
    documents, persons = _world(draw, int(POOL_SHARE * target / some.mean / 2) + 8)
    hop = dataset == "hotpotqa"
    questions = [
        Asked(
            query=f"In which town was the workshop founded that {name} works for?"
            if hop
            else f"In which town was {name} born?",
            answers=(founded if hop else born,),
            documents=(2 * i, 2 * i + 1) if hop else (2 * i,),
        )
        for i, (name, born, founded) in enumerate(persons)
    ]
    return question_maker(documents, questions, meter, target)


def question_maker(documents: Sequence[str], questions: Sequence[Asked], meter: Meter, target: int) -> QuestionMaker:
    """The maker for these documents, each measured once, and prompts of `target` tokens."""
    costs = meter.pieces([titled(100, text) for text in documents], JOINT)
    (frame,) = meter.pieces([titled(100, "")], JOINT)
    return QuestionMaker(documents, costs, questions, frame=frame, rounds=int(target / sum(costs) * 2) + 1)


def _world(draw: random.Random, n: int) -> tuple[list[str], list[tuple[str, str, str]]]:
    """2n documents, a person's and its workshop's in turn, and each person's (name, birthplace, workshop's town).

    Names are unique: a workshop is named after a town and a craft, and numbered guilds follow where those run out.
    """
    lasts = [a + b for a, b in product(own("last_heads"), own("last_tails"))]
    towns = [a + b for a, b in product(own("town_heads"), own("town_tails"))]
    names = _drawn(draw, [own("first_names"), lasts], n)
    shops = _drawn(draw, [towns, own("crafts")], n)
    documents, persons = [], []
    for name, shop in zip(names, shops, strict=True):
        born, founded, grew = draw.sample([town for town in towns if town not in shop], 3)
        job = draw.choice(own("jobs"))
        year = draw.randrange(1801, 1960)
        prose = [sentence(draw) for _ in range(2 * FILLER_SENTENCES)]
        documents.append(
            f"{name}\n{name} was born in {born} and trained as {article(job)}. {' '.join(prose[:FILLER_SENTENCES])} "
            f"Since then {name} has worked for the {shop}."
        )
        documents.append(
            f"{shop}\nThe {shop} was founded in {founded} in the year {year}. {' '.join(prose[FILLER_SENTENCES:])} "
            f"Later it kept a second house in {grew}."
        )
        persons.append((name, born, founded))
    return documents, persons


def _drawn(draw: random.Random, lists: Sequence[Sequence[str]], n: int) -> list[str]:
    """n different combinations of one word from each list; a middle initial tells more of them apart."""
    initials = [""]
    while len(lists[0]) * len(lists[1]) * len(initials) < n:
        initials += [letter * (len(initials) // 26 + 1) + ". " for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    size = len(lists[0]) * len(lists[1]) * len(initials)
    found = []
    for number in draw.sample(range(size), n):
        number, first = divmod(number, len(lists[0]))
        middle, last = divmod(number, len(lists[1]))
        found.append(f"{lists[0][first]} {initials[middle]}{lists[1][last]}")
    return found


def read_squad(values: Json) -> tuple[list[str], list[Asked]]:
    """SQuAD 2.0's development set: paragraphs as documents; others of the same article are the first distractors."""
    articles = values["data"]
    documents = sorted({paragraph["context"] for entry in articles for paragraph in entry["paragraphs"]})
    index = {text: i for i, text in enumerate(documents)}
    questions = []
    for entry in articles:
        group = [index[paragraph["context"]] for paragraph in entry["paragraphs"]]
        for paragraph in entry["paragraphs"]:
            own_index = index[paragraph["context"]]
            others = tuple(i for i in group if i != own_index)
            for row in paragraph["qas"]:
                if not row["is_impossible"]:
                    answers = tuple(str(answer["text"]) for answer in row["answers"])
                    questions.append(Asked(str(row["question"]), answers, (own_index,), others))
    return documents, questions


def read_hotpot(values: Sequence[Mapping[str, Json]]) -> tuple[list[str], list[Asked]]:
    """HotpotQA's development set with distractors: every document of a question's context is needed."""
    contexts = [[f"{title}\n{''.join(lines)}" for title, lines in row["context"]] for row in values]
    documents = sorted({text for texts in contexts for text in texts})
    index = {text: i for i, text in enumerate(documents)}
    questions = [
        Asked(str(row["question"]), (str(row["answer"]),), tuple(index[text] for text in texts))
        for row, texts in zip(values, contexts, strict=True)
    ]
    return documents, questions

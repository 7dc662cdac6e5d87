"""What is hidden and how it is asked: loom's own needles, or the authors' read from their files. Knows no filler.

The authors' needle and question are defaults of a class in their needlehaystack/run.py, their messages are returned by
`generate_prompt` in needlehaystack/providers/openai.py. Both are read through `ast`; nothing is executed.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import cast

from loom_core.api import DataError, Prompt, Role, Segment, segment

RUN_CLASS = "CommandArgs"
TOWNS = (
    *("Aldermere", "Ashcombe", "Birchwick", "Brackenford", "Coldstead", "Dunhaven", "Elmgate", "Fernleigh"),
    *("Foxmouth", "Glenbury", "Hawkshurst", "Hazelby", "Ironport", "Kestrelwell", "Larkfield", "Longmere"),
    *("Marshton", "Northcross", "Oakhaven", "Otterford", "Pinegrove", "Quarrydale", "Ravenbury", "Redcliff"),
    *("Saltby", "Sandgate", "Silverwell", "Stonecombe", "Swanmouth", "Thornby", "Upperford", "Westmere", "Whitcombe"),
    *("Willowstead", "Wolfdale", "Yarrowgate"),
)
ACTIVITIES = (
    "watch the ferries from the stone steps",
    "buy warm bread at the corner bakery",
    "walk along the old tram line",
    "listen to the bell ringers",
    "rent a blue rowing boat",
    "climb the wooden lookout tower",
    "visit the museum of clocks",
    "feed the ducks behind the mill",
    "draw the market stalls",
    "ride the hill train to the top",
    "drink cocoa by the harbour wall",
    "look for fossils under the cliff",
    "read in the glass pavilion",
    "play chess with the fishermen",
    "swim in the tidal pool",
    "fly a kite on the long meadow",
    "taste the plum cakes",
    "follow the lantern parade",
    "sit below the great chestnut tree",
    "count the herons on the weir",
    "see the puppet theatre",
    "borrow a bicycle for the dyke path",
    "photograph the painted doors",
    "wait for the northern lights",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hidden:
    """The needles of a sample, as they are in the text; their facts; and the question."""

    needles: tuple[str, ...]
    facts: tuple[str, ...]
    question: str
    prefill: str = ""


@dataclass(frozen=True, slots=True)
class Frame:
    """The messages around context and question: (role, text with the blanks {context} and {question}).

    Each is a message of its own, also where the one before has its role: upstream sends context and question so.
    """

    messages: Sequence[tuple[Role, str]]
    blanks: frozenset[str] = field(default=frozenset({"context", "question"}))

    def prompt(self, context: str, hidden: Hidden) -> Prompt:
        """The prompt; what comes before the context is instruction, what follows it question."""
        segments: list[Segment] = []
        seen = False
        for role, text in self.messages:
            first = True
            before, blank, after = text.partition("{context}")
            for part, is_context in ((before, False), (context if blank else "", True), (after, False)):
                if is_context:
                    seen = seen or bool(blank)
                filled = part if is_context else part.replace("{question}", hidden.question)
                if filled:
                    kind = "context" if is_context else "system" if role == "system" else None
                    kind = kind or ("question" if seen else "instruction")
                    apart = first and bool(segments)
                    segments.append(Segment(kind=kind, text=filled, role=role, apart=apart))  # type: ignore[arg-type]
                    first = False
        if hidden.prefill:
            segments.append(segment("prefill", hidden.prefill))
        return Prompt(segments=tuple(segments))


LOOM_FRAME = Frame(
    (
        (
            "user",
            "Read the text below. A question about one thing in it follows.\n\n{context}\n\n"
            "Answer from the text alone, in its own words.\n{question}\n",
        ),
    )
)


def loom_needles(draw: random.Random, n: int) -> Hidden:
    """A town, and what is best done there: one needle with two activities, or several needles with one each."""
    town = draw.choice(TOWNS)
    if n == 1:
        pairs = list(combinations(range(len(ACTIVITIES)), 2))
        first, second = draw.choice(pairs)
        fact = f"{ACTIVITIES[first]} and {ACTIVITIES[second]}"
        return Hidden(
            needles=(f"The best thing to do in {town} is to {fact}.",),
            facts=(fact,),
            question=f"What is the best thing to do in {town}?",
            prefill=f"The best thing to do in {town} is to",
        )
    facts = tuple(draw.sample(ACTIVITIES, n))
    return Hidden(
        needles=tuple(f"One of the best things to do in {town} is to {fact}." for fact in facts),
        facts=facts,
        question=f"What are the {n} best things to do in {town}? Name all of them.",
        prefill=f"The best things to do in {town} are to",
    )


def official_needle(needle: str, question: str) -> Hidden:
    """The authors' needle, which is its own reference."""
    return Hidden(needles=(needle,), facts=(needle.strip(),), question=question)


def read_frame(text: str, where: str) -> Frame:
    """The messages that `generate_prompt` returns. Raises DataError where they are not a list of plain messages."""
    try:
        tree = ast.parse(text)
        returned = next(
            node.value
            for function in ast.walk(tree)
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)) and function.name == "generate_prompt"
            for node in ast.walk(function)
            if isinstance(node, ast.Return) and isinstance(node.value, ast.List)
        )
        messages = tuple(_message(item) for item in returned.elts)
        if sum("{context}" in content for _, content in messages) != 1:
            raise ValueError("no message holds the context")
    except (SyntaxError, ValueError, StopIteration) as error:
        why = "no function generate_prompt that returns a list" if isinstance(error, StopIteration) else str(error)
        raise DataError("the authors' messages cannot be read", where=where, why=why) from error
    return Frame(messages)


def _message(node: ast.expr) -> tuple[Role, str]:
    if not isinstance(node, ast.Dict):
        raise ValueError("a message is not a dict")
    row = {key.value: value for key, value in zip(node.keys, node.values, strict=True) if isinstance(key, ast.Constant)}
    role = row.get("role")
    if not isinstance(role, ast.Constant) or role.value not in ("system", "user", "assistant") or "content" not in row:
        raise ValueError("a message has no known role or no content")
    return cast(Role, role.value), _content(row["content"])


def _content(node: ast.expr) -> str:
    blanks = {"context": "{context}", "retrieval_question": "{question}"}
    match node:
        case ast.Constant(value=str()):
            return str(node.value)
        case ast.Name() if node.id in blanks:
            return blanks[node.id]
        case ast.JoinedStr():
            return "".join(
                _content(part.value if isinstance(part, ast.FormattedValue) else part) for part in node.values
            )
        case ast.BinOp(op=ast.Add()):
            return _content(node.left) + _content(node.right)
    raise ValueError(f"a message holds a {type(node).__name__}")

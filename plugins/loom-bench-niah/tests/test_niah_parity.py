"""The adapter's own side: places read from ids, messages kept apart, what a program of the authors' shape is asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from loom_bench_niah.parity import Parity, _asked, _judged, _place, _places, _prompt
from loom_bench_niah.wording import Frame, Hidden
from loom_parity.contract import Case

from loom_core.api import Sample
from loom_core.api.serving import messages

FRAME = Frame((("system", "Be short."), ("user", "{context}"), ("user", "{question} Look there.")))
HIDDEN = Hidden(needles=("n",), facts=("f",), question="Where?")


def test_places_are_read_from_the_ids_of_samples() -> None:
    assert _place("official-t1000-d0.03-r0") == (1000, 3)
    assert _place("official-t16000-d0.29-r0") == (16000, 29)
    assert _places(["official-t2000-d1-r0", "official-t1000-d0-r0"]) == [[1000, 0], [2000, 100]]


def test_each_of_the_authors_messages_stays_one() -> None:
    """Also two of one role in a row, which the authors send as two."""
    rows = messages(FRAME.prompt("Text.", HIDDEN))
    assert [(row["role"], row["content"]) for row in rows] == [
        ("system", "Be short."),
        ("user", "Text."),
        ("user", "Where? Look there."),
    ]
    assert len(messages(FRAME.prompt("", HIDDEN))) == 2


def test_a_prompt_is_asked_for_by_its_place() -> None:
    sample = Sample(
        id="official-t2000-d0.12-r0", task="official", prompt=FRAME.prompt("Text.", HIDDEN), references=("f",)
    )
    case = _prompt("prompt", "words", [1000, 2000], sample)
    assert (case.id, case.payload) == ("2000 12", ["words", [1000, 2000], 2000, 12])
    assert case.ours() == messages(sample.prompt)


def test_no_difference_is_explained_away() -> None:
    case = Case(kind="prompt", name="bytes", id="0", function="asked", payload=[], ours=list)
    assert Parity().explain(case, [], [{"role": "user"}]) is None


class OpenAI:
    """A provider of their shape: what it is asked goes to its tokenizer."""

    tokenizer: Any

    def encode_text_to_tokens(self, text: str) -> Any:
        return self.tokenizer.encode(text)

    def generate_prompt(self, context: str, question: str) -> Any:
        return [context, question]


class Needles:
    def __init__(self, *, model_to_test: Any, evaluator: Any, retrieval_question: str, context_lengths: Any) -> None:
        self.model_to_test, self.retrieval_question, self.longest = (
            model_to_test,
            retrieval_question,
            max(context_lengths),
        )

    async def generate_context(self, length: int, percent: int) -> str:
        return f"{length} {percent} {self.longest} {self.model_to_test.encode_text_to_tokens('ab')}"


def test_a_program_of_their_shape_is_asked_with_the_lengths_of_the_grid() -> None:
    args = SimpleNamespace(retrieval_question="Where?", context_lengths=None)
    run = SimpleNamespace(OpenAI=OpenAI, LLMNeedleHaystackTester=Needles, CommandArgs=lambda: args)
    testers: dict[str, Any] = {}
    assert _asked(run, testers, ["bytes", [5, 9], 5, 50]) == ["5 50 9 [97, 98]", "Where?"]
    assert _asked(run, testers, ["words", [5], 5, 0]) == ["5 0 5 [0]", "Where?"]
    assert list(testers) == ["words [5]"]


def load_evaluator(*_: Any, **__: Any) -> Any:
    raise AssertionError("asks a model")


class OpenAIEvaluator:
    def evaluate_response(self, text: str) -> int:
        made = load_evaluator("kind", criteria={"c": "x"}, llm=None)
        return int(made.evaluate_strings(prediction=text, reference="n", input="Where?")["score"])


def test_what_the_judge_is_given_is_kept_and_nobody_is_asked() -> None:
    run = SimpleNamespace(
        OpenAIEvaluator=OpenAIEvaluator, CommandArgs=SimpleNamespace, get_evaluator=lambda args: OpenAIEvaluator()
    )
    assert _judged(run, "f") == {"criteria": {"c": "x"}, "prediction": "f", "reference": "n", "input": "Where?"}

"""The adapter of `motto` to its authors' program, which the tests write: prompts and exact matches."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from loom_parity import upstream
from loom_parity.contract import Case, ParityContext, answer_variants

from loom_core.api import Json


class Parity:
    """Their `ask(motto)` and `exact(answer, owner)`."""

    commit = "0123456789abcdef0123456789abcdef01234567"
    files = ("motto/score.py",)
    differences = {"case": "theirs ignores case, loom does not; no option"}

    def authors(self, root: Path) -> Mapping[str, Callable[[Json], Json]]:
        made = upstream.module(root, "motto/score.py", absent=("openai",), name="motto_score")
        return {"ask": made.ask, "exact": lambda payload: made.exact(*payload)}

    def cases(self, context: ParityContext) -> Iterator[Case]:
        for task in context.tasks:
            for number, sample in enumerate(context.samples(task)):
                yield Case(
                    kind="prompt",
                    name=task.name,
                    id=str(number),
                    function="ask",
                    payload=sample.id,
                    ours=lambda sample=sample: sample.prompt.text,
                )
                owner = sample.references[0]
                for shape, text in answer_variants(owner, context.random(sample.id)):
                    yield Case(
                        kind="score",
                        name="exact",
                        id=f"{number} {shape}",
                        function="exact",
                        payload=[text, owner],
                        ours=partial(lambda *given: context.scored(*given)["fable_exact"].value, task, sample, text),
                    )

    def explain(self, case: Case, theirs: Json, ours: Json) -> str | None:
        if case.kind == "score" and case.payload[0].lower() == case.payload[1].lower():
            return "case"
        return None

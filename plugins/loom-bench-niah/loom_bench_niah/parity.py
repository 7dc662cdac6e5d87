"""The needle test beside its authors' program: the grid, every prompt of it, and what their judge is given.

Upstream's functions run in a process of their own (`loom parity niah --upstream FOLDER`): generate_context with its
insert_needle, generate_prompt, and the evaluator's call; the tokenizers are those of `TOKENIZERS`. Knows both sides'
forms.
"""

from __future__ import annotations

import asyncio
import glob
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from loom_parity import TOKENIZERS, Case, ParityContext, answer_variants, upstream

from loom_bench_niah.benchmark import EVALUATOR, RUN, Niah
from loom_bench_niah.judging import CRITERIA
from loom_bench_niah.plugin import NiahOptions
from loom_bench_niah.wording import RUN_CLASS
from loom_core.api import Json, Sample, Unavailable, read_pins
from loom_core.api.serving import messages

PACKAGE = "needlehaystack"
AWAY = (
    *(
        "langchain",
        "langchain_openai",
        "langchain_community",
        "langchain_core",
        "langchain_anthropic",
        "langchain_cohere",
        "langsmith",
    ),
    *("openai", "anthropic", "cohere", "dotenv", "jsonargparse", "tiktoken"),
)
FAR = (700_000, 210_000, 215_000)
"""Lengths that take the essays more than once, in tokens of each."""
FAR_DEPTHS = 3


class Parity:
    """Grid, prompts and the judge's questions of gkamradt/LLMTest_NeedleInAHaystack."""

    commit = "7b90d285651b68d39a94f3d3bd3672f84192c989"
    files = (
        f"{PACKAGE}/llm_needle_haystack_tester.py",
        f"{PACKAGE}/run.py",
        f"{PACKAGE}/providers/openai.py",
        f"{PACKAGE}/evaluators/openai.py",
    )
    differences: Mapping[str, str] = {}

    def authors(self, root: Path) -> Mapping[str, Callable[[Json], Json]]:
        """grid, asked and judged."""
        with upstream.stand_ins(AWAY):
            run = upstream.module(root, f"{PACKAGE}/run.py", name=f"{PACKAGE}.run", absent=AWAY)
        # The file system's order of the essays is not the same everywhere; loom takes that of the names.
        listed = glob.glob
        glob.glob = lambda *given, **named: sorted(listed(*given, **named))
        testers: dict[str, Any] = {}
        return {
            "grid": partial(_grid, run),
            "asked": partial(_asked, run, testers),
            "judged": partial(_judged, run),
        }

    def cases(self, context: ParityContext) -> Iterator[Case]:
        """The grid, its prompts for each tokenizer, longer ones, and the judge's questions."""
        context.missing["score"] = "the mark is a judge's: no score is compared, only what the judge is given"
        bench = Niah(NiahOptions(variant="official", grid="authors"))
        far = Niah(NiahOptions(variant="official", depths=FAR_DEPTHS))
        try:
            for (name, make), length in zip(TOKENIZERS.items(), FAR, strict=True):
                tokenizer = make()
                if tokenizer is None:
                    context.missing[f"prompts by the tokenizer of {name}"] = "it is not installed"
                    continue
                found = list(_samples(context, bench, tokenizer, ()))
                yield Case(
                    kind="samples",
                    name="grid",
                    id=name,
                    function="grid",
                    payload=None,
                    ours=partial(_places, [sample.id for sample in found]),
                )
                lengths = sorted({_place(sample.id)[0] for sample in found})
                for sample in found[: context.limit]:
                    yield _prompt("prompt", name, lengths, sample)
                for sample in _samples(context, far, tokenizer, (length,)):
                    yield _prompt("prompt, essays repeated", name, [length], sample)
            yield from _judging(context)
        except Unavailable as error:
            context.missing["prompts"] = str(error.what)

    def explain(self, case: Case, theirs: Json, ours: Json) -> str | None:
        """No difference is known."""
        return None


def _samples(context: ParityContext, bench: Niah, tokenizer: Any, lengths: tuple[int, ...]) -> Iterator[Sample]:
    (task,) = bench.tasks(lengths)
    return bench.samples(task, context.data, tokenizer, lengths)


def _place(name: str) -> tuple[int, int]:
    """Length and depth in per cent, from a sample's id: official-t1000-d0.03-r0."""
    _, length, depth, _ = name.split("-")
    return int(length[1:]), round(100 * float(depth[1:]))


def _places(names: Sequence[str]) -> Json:
    return sorted(list(_place(name)) for name in names)


def _prompt(kind: str, tokenizer: str, lengths: list[int], sample: Sample) -> Case:
    length, percent = _place(sample.id)
    return Case(
        kind=kind,
        name=tokenizer,
        id=f"{length} {percent}",
        function="asked",
        payload=[tokenizer, lengths, length, percent],
        ours=partial(messages, sample.prompt),
    )


def _judging(context: ParityContext) -> Iterator[Case]:
    """Their evaluator's criteria, reference and question, with answers of many shapes."""
    pins = read_pins(Path(__file__))
    names = [f"{RUN_CLASS}.needle", f"{RUN_CLASS}.retrieval_question"]
    needle, question = (context.data.constants(pins[RUN], names)[name] for name in names)
    criteria = context.data.constants(pins[EVALUATOR], [CRITERIA])[CRITERIA]
    draw = context.random("answers")
    for shape, text in list(answer_variants(str(needle).strip(), draw))[: context.limit]:
        given = {"criteria": criteria, "prediction": text, "reference": needle, "input": question}
        yield Case(
            kind="judge", name="what it is given", id=shape, function="judged", payload=text, ours=partial(dict, given)
        )


# --- the authors' side ----------------------------------------------------------------------------------------------


def _grid(run: Any, payload: Json) -> Json:
    tester = _tester(run, SimpleNamespace(model_name="none"), {})
    return sorted(
        [int(length), int(percent)] for length in tester.context_lengths for percent in tester.document_depth_percents
    )


def _tester(run: Any, model: Any, changed: Mapping[str, Any]) -> Any:
    given = {**vars(run.CommandArgs()), **changed}
    return run.LLMNeedleHaystackTester(**{**given, "model_to_test": model, "evaluator": None})


def _asked(run: Any, testers: dict[str, Any], payload: Json) -> Json:
    name, lengths, length, percent = payload
    key = f"{name} {lengths}"
    if key not in testers:
        tokenizer = TOKENIZERS[name]()
        # Their provider asks for a key and a client; only its tokenizer is used here. The essays are encoded once.
        model = object.__new__(run.OpenAI)
        model.model_name = "none"
        model.tokenizer = SimpleNamespace(encode=lru_cache(8)(tokenizer.encode), decode=tokenizer.decode)
        testers.clear()
        testers[key] = _tester(run, model, {"context_lengths": lengths})
    tester = testers[key]
    context = asyncio.run(tester.generate_context(length, percent))
    return tester.model_to_test.generate_prompt(context, tester.retrieval_question)


def _judged(run: Any, text: Json) -> Json:
    asked: dict[str, Json] = {}

    def load(kind: str, *, criteria: Any, llm: Any) -> Any:
        def evaluate(**given: Any) -> Any:
            asked.update(given, criteria=criteria)
            return {"score": 1}

        return SimpleNamespace(evaluate_strings=evaluate)

    os.environ.setdefault("NIAH_EVALUATOR_API_KEY", "none: nothing is asked")
    run.OpenAIEvaluator.evaluate_response.__globals__["load_evaluator"] = load
    args = run.CommandArgs()
    run.get_evaluator(args).evaluate_response(text)
    return asked

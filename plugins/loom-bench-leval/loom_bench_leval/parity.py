"""L-Eval against its authors' own program: every prompt, published and made-up answers, tables of published answers.

The comparison of `loom parity leval --upstream FOLDER`; the authors' side is `authors`. Knows the layout of their
`Predictions/`; holds none of their text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from loom_parity import Case, ParityContext, answer, answer_variants

from loom_bench_leval.authors import SCORER, SCRIPT, authors, count_tokens, digest
from loom_bench_leval.benchmark import LEval
from loom_bench_leval.plugin import EXAM, F1, LEvalOptions
from loom_bench_leval.table import TOPICS, geometric_mean, metric_names, table
from loom_bench_leval.wording import kind_of
from loom_core.api import Graded, Json, Line, Prompt, Sample, Scored, Unavailable
from loom_core.api.serving import messages

CUT = 8000
"""The authors' `--max_length 8k`."""
REFERENCES = 4
"""References of each task around which answers are made."""
PREDICTIONS = ("exam_eval", "ngram_eval")
SHAPES = (
    *(
        "{0}. {1}",
        "({0}) {1}",
        "{0}, {1}",
        "{0} {1}",
        "{0}) {1}\n{1}) {0}",
        "Question 2. {1}\n{0}.",
        "The answer is {0}",
    ),
    *(
        "the final output is {0}",
        "[ [{0}.0, '{1}'] ] ] [",
        "{0}\\n{1}",
        "{0} [fact: {1}]",
        "{1} [FACT: {0}",
        "nan",
        "inf",
    ),
    *("not {0}, {1} [fact: {0}] [fact: {1}]", "The answer is 00{0}.5", "{1}\n\nThe answer is {0} {1}", "1_0", "½"),
    "{0}printed is{1}",
)
"""Answers in which the exams' rules differ from what one would expect. {0}: the reference, {1}: another answer."""
ODD_REFERENCES = {
    "coursera": ("ABD", "(B) x", "E", "", "CAB"),
    "quality": ("(B) They", "", "x"),
    "tpo": ("A", "E"),
    "gsm100": ("18", "0", ""),
    "codeU": ("[[1 2]\n [3 4]]", "nan", "A", "", "'a'", "1.0", "True"),
    "topic_retrieval_longchat": ("The role of art in society", "A", "18", "nan", ""),
    "sci_fi": ("True [fact: False]", "False [fact: true]", "true", "[fact: ]"),
}
"""Made-up references beside those of the data: other cases, none, and what reads as a number."""


class Words:
    """A tokenizer that only counts, by the rule of both sides."""

    def encode(self, text: str) -> range:
        """As many ids as tokens."""
        return range(count_tokens(text))


class Parity:
    """See `loom_parity.contract.Parity`."""

    commit = "cd34b050269148aed75acbbe4a599873ad0f37e9"
    files = (SCORER, "Evaluation/em.py", "Evaluation/f1.py", "Evaluation/rouge.py", "Baselines/LEval_config.py", SCRIPT)
    differences: Mapping[str, str] = {}

    def authors(self, root: Path) -> Mapping[str, Callable[[Json], Json]]:
        """The authors' functions."""
        return authors(root)

    def explain(self, case: Case, theirs: Json, ours: Json) -> str | None:
        """No difference is known."""
        return None

    def cases(self, context: ParityContext) -> Iterator[Case]:
        """Prompts uncut and cut, answers and tables."""
        names = [task.name for task in context.tasks]
        why = (
            "both sides count words, signs and white space as tokens; of a tokenizer the cut uses nothing but the count"
        )
        context.missing["prompts cut by a model's tokenizer"] = why
        for max_length in (None, CUT):
            for name in names:
                yield from _prompts(context, name, max_length)
        for name in names:
            yield from _made_up(context, name)
            for file in _published(context.root, name):
                yield from _published_answers(context, name, file)
                yield _table(context, name, file)


def _prompts(context: ParityContext, name: str, max_length: int | None) -> Iterator[Case]:
    benchmark = LEval(LEvalOptions(wording="official", max_length=max_length))
    task = next(task for task in benchmark.tasks(()) if task.name == name)
    tokenizer: Any = Words()
    made = benchmark.samples(task, context.data, tokenizer, ())
    kind = "prompt" if max_length is None else f"prompt, cut to {max_length}"
    try:
        for n, sample in enumerate(made):
            if n == context.limit:
                return
            record, question = sample.id.rsplit("-", 2)[1:]
            payload = {"task": name, "record": record, "question": question, "max_length": max_length}
            yield Case(
                kind=kind,
                name=name,
                id=f"{record}-{question}",
                function="prompt",
                payload=payload,
                ours=partial(_asked, benchmark, sample),
            )
    except Unavailable as error:
        context.missing[f"{kind} {name}"] = str(error.what)


def _asked(benchmark: LEval, sample: Sample) -> list[str]:
    """The digests of a sample's calls."""
    prompts = [sample.prompt]
    if (turn := benchmark.follow_up(sample, [answer("True")])) is not None:
        prompts.append(turn.prompt)
    return [digest(messages(prompt)) for prompt in prompts]


def _made_up(context: ParityContext, name: str) -> Iterator[Case]:
    """Answers of many shapes around references of the data and made-up ones."""
    task = next(task for task in context.tasks if task.name == name)
    rng = context.random(name)
    known = list(dict.fromkeys(str(sample.references[0]) for sample in context.samples(task)))
    chosen = rng.sample(known, min(REFERENCES, len(known))) + list(ODD_REFERENCES.get(name, ("a summary. Of two", "")))
    n = 0
    for at, reference in enumerate(chosen):
        others = [rng.choice(chosen), rng.choice("ABCD"), rng.choice(("True", "false", "7", "[1, 2]"))]
        texts = dict(answer_variants(reference, rng, others=others))
        texts |= {shape: shape.replace("{0}", reference).replace("{1}", rng.choice(others)) for shape in SHAPES}
        for i, text in enumerate(texts.values()):
            if n == context.limit:
                return
            n += 1
            yield _scored(context, name, f"made up {at}-{i}", text, reference)


def _scored(context: ParityContext, name: str, place: str, text: str, reference: str) -> Case:
    function = "exam" if name in EXAM else "f1" if name in F1 else "rouge"
    payload = {"task": name, "prediction": text, "reference": reference}
    return Case(
        kind="score",
        name=name,
        id=place,
        function=function,
        payload=payload,
        ours=lambda: _values(context, name, text, reference),
        # The authors round ROUGE to four decimals.
        tolerance=1e-4 if function == "rouge" else 1e-9,
    )


def _values(context: ParityContext, name: str, text: str, reference: str) -> Json:
    found = [100 * (scored.value or 0.0) for scored in _metrics(context, name, text, reference).values()]
    if name in EXAM or name in F1:
        return found if len(found) > 1 else found[0]
    rouge_l, rouge1, rouge2 = found
    return [rouge1, rouge2, rouge_l, geometric_mean((rouge1, rouge2, rouge_l))]


def _metrics(context: ParityContext, name: str, text: str, reference: str) -> dict[str, Scored]:
    sample = _sample(name, reference)
    return {metric: context.metrics[metric].score(text, sample) for metric in metric_names(name)}


def _sample(name: str, reference: str, **meta: Json) -> Sample:
    return Sample(id="x", task=name, prompt=Prompt(segments=()), references=(reference,), meta=meta)


# --- published answers -----------------------------------------------------------------------------------------------


def _published(root: Path, name: str) -> list[Path]:
    """The files of published answers to a task, in the order of their models' names."""
    return sorted(file for part in PREDICTIONS for file in root.glob(f"Predictions/{part}/*/{name}.pred.jsonl"))


def rows_of(file: Path) -> list[tuple[str, str]]:
    """(answer, reference) of the scored rows."""
    rows = [json.loads(line) for line in file.read_text("utf-8").split("\n") if line.strip()]
    key = next(key for key in rows[0] if "_pred" in key)
    return [(row[key], row["gt"]) for row in rows if row["evaluation"] in ("exam", "f1", "rouge")]


def _published_answers(context: ParityContext, name: str, file: Path) -> Iterator[Case]:
    for n, (text, reference) in enumerate(rows_of(file)[: context.limit]):
        yield _scored(context, name, f"{file.parent.name} {n}", text, reference)


def _table(context: ParityContext, name: str, file: Path) -> Case:
    return Case(
        kind="table",
        name=name,
        id=file.parent.name,
        function="table",
        payload={"file": str(file.relative_to(context.root))},
        ours=lambda: _lines(context, name, rows_of(file)),
        tolerance=1e-9,
    )


def _lines(context: ParityContext, name: str, rows: Sequence[tuple[str, str]]) -> list[float]:
    """The values of the table's lines as they are printed; an average is printed whole."""
    lines = graded_lines(context, name, rows)
    return [(line.value or 0.0) if line.metric == "mean" else round(line.value or 0.0, line.digits) for line in lines]


def graded_lines(context: ParityContext, name: str, rows: Sequence[tuple[str, str]]) -> list[Line]:
    """loom's table of a task's (answer, reference) in the order of the data."""
    topics = len(TOPICS) if kind_of(name) == "topic" else 1
    return table(
        [
            Graded(
                task=name,
                sample=_sample(name, reference, topic=i % topics),
                repeat=0,
                scored=_metrics(context, name, text, reference),
            )
            for i, (text, reference) in enumerate(rows)
        ]
    )

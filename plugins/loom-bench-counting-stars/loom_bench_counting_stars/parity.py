"""Counting-Stars beside its authors' program: the prompts of the notebook's generator, scores of answers, the table.

Upstream's functions run in a process of their own (`loom parity counting-stars --upstream FOLDER`), which needs their
libraries jsonlines, json_repair and pandas. Their counts are read from the checkout.
"""

from __future__ import annotations

import ast
import glob
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from loom_parity import Case, ParityContext, answer_variants, upstream

from loom_bench_counting_stars.benchmark import KEYS, METRICS, NOMINAL, CountingStars, star_lines
from loom_bench_counting_stars.plugin import FORMS, CountingStarsOptions
from loom_core.api import Graded, Json, Prompt, Sample, Task, Unavailable

SCORING, MAKING = "viz.ipynb", "gen_test_data.ipynb"
SIZES, STARS, LONGEST = 32, 32, 128_000
KINDS = {"searching": "Acquisition", "reasoning": "Reasoning"}
"""The scorer's names of the two."""
DRAWN = 24
"""Drawn lists of counts a form, each in the shapes of `_shapes`, `answer_variants` around the first."""
TABLES = 32
ORDER, TIES = "order of essays", "rounding of ties"


class Parity:
    """Prompts, scores and means of nick7nlp/Counting-Stars."""

    commit = "32e16f2c2d2be9f38d710e782236315e0821a038"
    files = (SCORING, MAKING, "context_data/a_stars.txt", "context_data/r_stars.txt")
    differences: Mapping[str, str] = {
        ORDER: "the generator reads the English essays in the order of the file system: counts, places in words, "
        "question and references are the same, the text between them is another; no option",
        TIES: "numpy rounds a mean such as 0.4625 to 0.462, loom's table shows 0.463; the means are equal; no option",
    }

    def authors(self, root: Path) -> Mapping[str, Callable[[Json], Json]]:
        """asked: a row of their generator; mean: the scorer's mean of answers, rounded by it, and its table's own."""
        away = ("requests", "tqdm", "seaborn", "matplotlib")
        made = upstream.notebook(root, SCORING, absent=away)
        # Their scorer opens its counts by paths relative to the checkout.
        os.chdir(root)
        rows: dict[str, list[Json]] = {}
        return {"asked": partial(_asked, root.resolve(), rows), "mean": partial(_mean, made)}

    def cases(self, context: ParityContext) -> Iterator[Case]:
        """The rows at hand; drawn answers one by one, and tables of some."""
        bench = CountingStars(CountingStarsOptions())
        for task in bench.tasks(()):
            try:
                if anew := _anew(context, task):
                    context.missing[f"the repository's own {task.name}"] = anew
                for number, sample in enumerate(bench.samples(task, context.data, None, ())):
                    if number == context.limit:
                        break
                    yield _prompt(task.name, sample)
            except Unavailable as error:
                context.missing[f"prompts of {task.name}"] = str(error.what)
        for form in FORMS:
            yield from _answers(context, form)

    def explain(self, case: Case, theirs: Json, ours: Json) -> str | None:
        """English prompts of another order of the essays, with all else the same; equal means, rounded another way."""
        if case.kind == "table" and isinstance(theirs, list):
            tie = abs(ours[1] * 1000 % 1 - 0.5) < 1e-6
            return TIES if tie and abs(theirs[1] - ours[1]) < 1e-9 and abs(theirs[0] - ours[0]) < 0.0011 else None
        if case.kind == "prompt" and case.name.startswith("en") and isinstance(theirs, dict):
            same = {key: value for key, value in theirs.items() if key != "question"}
            other = {key: value for key, value in ours.items() if key != "question"}
            return ORDER if same == other and _frame(theirs) == _frame(ours) else None
        return None


def _anew(context: ParityContext, task: Task) -> str:
    """What a certificate says of rows that are not those of the pinned file; "" where they are."""
    (source,) = task.sources
    context.data.path(source)
    if not any(used.extract for used in context.data.used() if used.pin == source.pin):
        return ""
    return f"its file is not at hand; the prompts are of the rows in its place, made anew by {MAKING}"


def _frame(row: Mapping[str, Json]) -> Json:
    """What of a prompt does not depend on the essays: the star lines, the words before each, the question's words."""
    text = str(row["question"])
    found = star_lines(text.removesuffix(str(row["retrieval_question"])))
    lines = [text[start:end].strip() for start, end, _ in found]
    return lines, [text[:start].count(" ") for start, _, _ in found], len(text.split(" "))


def _prompt(form: str, sample: Sample) -> Case:
    asked = sample.prompt.segments[-1].text
    size = int(sample.id.rsplit("-", 1)[1])
    ours: Json = {
        "question": sample.prompt.text,
        "retrieval_question": asked,
        "context_size": size,
        "reference_counting_results": list(sample.references),
    }
    return Case(
        kind="prompt", name=form, id=str(size), function="asked", payload=[form, size], ours=partial(_same, ours)
    )


def _same(value: Json) -> Json:
    return value


def _answers(context: ParityContext, form: str) -> Iterator[Case]:
    right, wrong = (_counts(context.root, name) for name in ("a_stars", "r_stars"))
    draw = context.random(f"answers {form}")
    key, given = KEYS[form[:2]], []
    for number in range(min(DRAWN, context.limit or DRAWN)):
        pool = [*right, *(wrong if draw.random() < 0.5 else ()), draw.randint(1, 999)]
        counts: list[Json] = draw.sample(pool, draw.randint(0, min(len(pool), 40)))
        shapes = [(f"own {shape}", text) for shape, text in _shapes(key, counts, draw.choice(right))]
        if number == 0:
            shapes += answer_variants(json.dumps({key: counts}, ensure_ascii=False), draw)
        for shape, text in shapes:
            given.append(text)
            yield _case(context, "score", form, f"{number} {shape}", [text], (right, wrong))
    whole = [json.dumps({key: draw.sample([*right, *wrong], 30)}, ensure_ascii=False) for _ in range(SIZES)]
    for number in range(min(TABLES, context.limit or TABLES)):
        yield _case(context, "table", form, str(number), draw.sample(whole, draw.randint(1, SIZES)), (right, wrong))


def _shapes(key: str, counts: list[Json], one: Json) -> Iterator[tuple[str, str]]:
    """The benchmark's own: a list in each way that models and JSON have."""
    whole = json.dumps({key: counts}, ensure_ascii=False)
    yield "JSON", whole
    yield "escaped", json.dumps({key: counts})
    yield "pretty", json.dumps({key: counts}, ensure_ascii=False, indent=2)
    yield "fenced json", f"```json\n{whole}\n```"
    yield "fenced, not closed", f"```json\n{whole[:-2]}"
    yield "words before a fence", f"Here it is:\n```json\n{whole}\n```"
    yield "single quotes", f"{{'{key}': {counts}}}"
    yield "words before", f"The answer is {whole}"
    yield "not closed", whole[:-1]
    yield "text for numbers", json.dumps({key: [str(count) for count in counts]}, ensure_ascii=False)
    yield "fractions for numbers", json.dumps({key: [float(count) for count in counts]}, ensure_ascii=False)
    yield "other key", json.dumps({"penguin": counts})
    yield "two keys", json.dumps({"note": "x", key: counts}, ensure_ascii=False)
    yield "key twice", f'{{"{key}": [{one}], {whole[1:]}'
    yield "repeated", json.dumps({key: counts * 3}, ensure_ascii=False)
    yield "one number", json.dumps({key: one}, ensure_ascii=False)
    yield "a text", json.dumps({key: ", ".join(map(str, counts))}, ensure_ascii=False)
    yield "lists in the list", json.dumps({key: [counts]}, ensure_ascii=False)
    yield "an object", json.dumps({key: {str(count): count for count in counts}}, ensure_ascii=False)
    yield "null", json.dumps({key: None}, ensure_ascii=False)
    yield "nulls", json.dumps({key: [None, True, one, "★"]}, ensure_ascii=False)
    yield "a list alone", json.dumps(counts)
    yield "a list of objects", json.dumps([{key: counts}], ensure_ascii=False)


def _case(
    context: ParityContext, kind: str, form: str, at: str, texts: Sequence[str], counts: tuple[list[Json], list[Json]]
) -> Case:
    right, wrong = counts
    sizes = [NOMINAL[form[:2]] * (i + 1) for i in range(len(texts))]

    def ours() -> Json:
        bench = CountingStars(CountingStarsOptions())
        task = next(task for task in bench.tasks(()) if task.name == form)
        meta: dict[str, Json] = {"key": KEYS[form[:2]]}
        if form.endswith("reasoning"):
            meta["wrong"] = wrong
        metric = METRICS[form[3:]]
        rows = []
        for text in texts:
            sample = Sample(
                id="x", task=task.name, prompt=Prompt(segments=()), references=tuple(right), level="4k", meta=meta
            )
            scored = {metric: context.metrics[metric].score(text, sample)}
            rows.append(Graded(task=task.name, sample=sample, repeat=0, scored=scored))
        (line,) = bench.aggregate(rows)
        value = line.value or 0.0
        return [round(value, 3), value]

    return Case(
        kind=kind,
        name=form,
        id=at,
        function="mean",
        payload=[form, [[text, size] for text, size in zip(texts, sizes, strict=True)], right],
        ours=ours,
        tolerance=1e-9,
    )


def _counts(root: Path, name: str) -> list[Json]:
    """The 32 counts of one of their files, which hold a Python dictionary."""
    line = (root / "context_data" / f"{name}.txt").read_text("utf-8").splitlines()[0]
    return list(ast.literal_eval(line)[str(STARS)])


# --- the authors' side ----------------------------------------------------------------------------------------------


def _mean(made: Any, payload: Json) -> Json:
    form, given, right = payload
    read = made.get_data_EN if form.startswith("en") else made.get_data_ZH
    lines = [
        json.dumps({"answer": text, "context_size": size, "reference_counting_results": right}) for text, size in given
    ]
    table, mean = read(lines, LONGEST, STARS, SIZES, KINDS[form[3:]])
    return [float(mean), float(table.to_numpy().mean())]


def _asked(root: Path, rows: dict[str, list[Json]], payload: Json) -> Json:
    form, size = payload
    if not rows:
        rows.update(_generated(root))
    (found,) = (row for row in rows[form] if row["context_size"] == size)
    return {name: found[name] for name in found if name != "parameters"}


def _generated(root: Path) -> dict[str, list[Json]]:
    """Every row of their generator, run in a folder of its own; the essays in the order of their names."""
    listed, before = glob.glob, os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "context_data").symlink_to(root / "context_data")
        (Path(folder) / "test_data").mkdir()
        os.chdir(folder)
        glob.glob = lambda *given, **named: sorted(listed(*given, **named))
        try:
            upstream.notebook(
                root, MAKING, absent=("requests", "tqdm", "pandas", "jsonlines"), name="__main__", whole=True
            )
        finally:
            os.chdir(before)
            glob.glob = listed
        rows = {}
        for form in FORMS:
            language, kind = form.split("_")
            (file,) = (Path(folder) / "test_data").glob(f"*_{language.upper()}_*-{kind}_*.jsonl")
            rows[form] = [json.loads(line) for line in file.read_text("utf-8").split("\n")[:-1]]
        return rows

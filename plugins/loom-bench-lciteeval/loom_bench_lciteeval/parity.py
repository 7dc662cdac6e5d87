"""L-CiteEval against its authors' own program: every prompt of the data at hand, answers of many shapes, tables.

The comparison of `loom parity lciteeval --upstream FOLDER`; the authors' side is `authors`, which says what had to be
put in place of their model and of undefined names. Holds none of their text.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from statistics import fmean

from loom_parity import Case, ParityContext, answer_variants

from loom_bench_lciteeval.authors import CITATIONS, CORRECT, PROMPTS, authors, digest
from loom_bench_lciteeval.benchmark import KNOWN_PASSAGES, SUMMARIES, LCiteEval, cited_as, known_passages, metrics_of
from loom_bench_lciteeval.passages import LEFT_OUT, Part, Passages
from loom_bench_lciteeval.plugin import TASKS, LCiteEvalOptions
from loom_bench_lciteeval.scoring import COUNTS, bucket, gold_score, table
from loom_core.api import Graded, Json, Prompt, Sample, Scored, Unavailable, gold_scored

UNREAD = "answers without an object at the end of a bucket"
EXPERIMENTS = {"main": "l-citeeval", "length": "l-citeeval-length"}
SHORT = 4000
"""The length of a record whose answer is scored alone."""
LENGTHS = (1, 7999, 8000, 8001, 15999, 16000, 23999, 31999, 32000, 40000, 40001, 47999, 48000, 60000)
TABLES = 4
DOCS: tuple[Json, ...] = (
    "Paris is the capital of France.",
    "Rome is old.",
    {"title": "Seine", "text": "Seine\nThe river flows through Paris."},
    "Dr. Smith wrote 7 reports in 1998.",
    {"title": "Berlin", "text": "\nBerlin is large.\n"},
    "Nobody counts here.",
)
STAR_DOCS = tuple(f"t\nThe little penguin counted {n} ★\nu" if n else "t" for n in (0, 12, 0, 40, 7, 0))
NEEDLE = "eat a sandwich and sit in Dolores Park"
NEEDLE_DOCS = ("no", f"he said to {NEEDLE.upper()}", f"to {NEEDLE} today", "no", f"again {NEEDLE}", "no")
ANSWERS: Mapping[str, tuple[Json, ...]] = {
    "counting_stars": ([12, 40, 7],),
    "niah": (NEEDLE,),
    **dict.fromkeys(SUMMARIES, ("Paris is the capital. Rome is old, and the river flows.", "the bill")),
}
OTHER_ANSWERS: tuple[Json, ...] = (["Paris", "the city of Paris"], "Rome is old", 1998)
SHAPES = (
    "{0} [1].",
    "{0} [1][2][3][4].",
    "{0} [3][3].",
    "{0} [2, 3].",
    "{0}[5].\n\nMore [1].",
    "\n\n{0} [0]",
    "{0} [9][1].",
    "Summary: {0} [1].",
    "In summary, {0} [2].",
    "Here is a summary of it:\n\n{0} [1].",
    "{0}. That is a summary: {0}",
    "Rome is old [2]. {0} [1][2]. Nobody [6].",
    "The river flows through Paris [3].",
    "Seine Paris river flows [3][1].",
    "Berlin is large [5][2]! Dr. Smith wrote 7 reports [4]? Rome [4]",
    "{0} |[1]",
    "{0} ] [x] [１]",
    ". [1]",
    "[3]",
    ".",
    '{"little_penguin": [12, 40, 7], "passage_id": [2, 4, 5]}',
    '{"little_penguin": [12, 12, 3], "passage_id": [2, 2, 1]}',
    '{"little_penguin": ["12", 40.0], "passage_id": ["2", 4.0]}',
    '{"little_penguin": [12], "passage_id": []}',
    "{}",
    "}{",
    '```json\n{"little_penguin": [7, 40, 12, 1],\n "passage_id": [5]}\n```',
    '{"passage_id": [2]}',
    '{"little_penguin": [7]}',
    '{"little_penguin": 12, "passage_id": 2}',
    '{"little_penguin": "12", "passage_id": "24"}',
    '{"a": {"passage_id": [2]}}',
    '{"little_penguin": [12], "passage_id": [[2]]}',
    '{"little_penguin": [], "passage_id": [4, true, null]}',
    "[1]{[2]}",
)
"""Answers in which the rules differ from what one would expect. {0}: the reference."""


class Parity:
    """See `loom_parity.contract.Parity`."""

    commit = "6e493267767adee12eee6e9e4492e3b585dc71c7"
    files = (PROMPTS, CITATIONS, CORRECT)
    differences: Mapping[str, str] = {
        UNREAD: "a bucket of counting_stars in eval_correct.py leaves out answers without a JSON object behind the "
        "last one that has one (its mean is written inside a loop that such answers leave early), and a bucket of such "
        "answers alone; loom counts them 0 "
        "in their bucket, as the authors' total does; the totals are equal. No option."
    }

    def authors(self, root: object) -> Mapping[str, Callable[[Json], Json]]:
        """The authors' functions."""
        return authors(root)  # type: ignore[arg-type]

    def explain(self, case: Case, theirs: Json, ours: Json) -> str | None:
        """Buckets of counting_stars that are the means up to the last answer with an object, where the totals agree."""
        if case.kind != "table" or not case.name.startswith("counting_stars") or "raises" in theirs:
            return None
        expected = {**_until_read(case.name, case.payload["rows"]), "all": ours["accuracy"]["all"]}
        found = theirs["accuracy"]
        same = found.keys() == expected.keys() and all(
            math.isclose(found[name], expected[name], rel_tol=1e-9, abs_tol=1e-9) for name in found
        )
        return UNREAD if same else None

    def cases(self, context: ParityContext) -> Iterator[Case]:
        """Prompts of the three collections, answers, and tables of two collections."""
        for variant in ("main", "length", "hardness"):
            yield from _prompts(context, LCiteEval(LCiteEvalOptions(variant=variant)))
        for base in TASKS:
            yield from _scores(context, base)
        for experiment in EXPERIMENTS:
            yield from _tables(context, experiment)


def _prompts(context: ParityContext, benchmark: LCiteEval) -> Iterator[Case]:
    for task in benchmark.tasks(()):
        _, wording, source = task.sources
        stem = wording.pin.rpartition("/")[2].removesuffix("_default.json")
        try:
            records = json.loads(context.data.text(source))
            samples = list(benchmark.samples(task, context.data, context.tokenizer, ()))
        except Unavailable as error:
            context.missing[f"prompt {task.name}"] = str(error.what)
            continue
        if len(records) != len(samples):
            context.missing[f"prompt {task.name}"] = f"{len(records) - len(samples)} records cannot be used"
            continue
        base = task.name.partition("_length")[0].partition("_hardness")[0]
        for n, (record, sample) in enumerate(zip(records, samples, strict=True)):
            payload = {"task": base, "stem": stem, "record": record}
            ours = partial(digest, sample.prompt.text)
            yield Case(kind="prompt", name=task.name, id=str(n), function="prompt", payload=payload, ours=ours)


# --- answers ---------------------------------------------------------------------------------------------------------


def _scores(context: ParityContext, base: str) -> Iterator[Case]:
    """Answers of many shapes: correctness, and citations by entailment or by known passages."""
    rng, n = context.random(base), 0
    for at, answer in enumerate(ANSWERS.get(base, OTHER_ANSWERS)):
        for i, text in enumerate(_texts(answer, rng)):
            if n == context.limit:
                return
            n += 1
            row = {"generation": text, "answer": answer, "docs": list(_docs(base)), "length": SHORT}
            place = f"{at}-{i}"
            yield _case("score", base, place, "correct", {"task": base, "exp": "l-citeeval", "rows": [row]}, _correct)
            if base in KNOWN_PASSAGES:
                yield _case("known passages", base, place, "known", {"task": base, **row}, _known)
            else:
                yield _case("citations", base, place, "cited", {"task": base, **row}, _cited)


def _case(
    kind: str,
    name: str,
    place: str,
    function: str,
    payload: Json,
    ours: Callable[[Json], Json],
    tolerance: float = 1e-9,
) -> Case:
    made = partial(ours, payload)
    return Case(kind=kind, name=name, id=place, function=function, payload=payload, ours=made, tolerance=tolerance)


def _texts(answer: Json, rng: random.Random) -> list[str]:
    first = str(answer[0] if isinstance(answer, list) else answer)
    cited = f"{first} [{rng.randrange(8)}][{rng.randrange(8)}]. Rome is old [{rng.randrange(4)}]"
    variants = [text for _, text in answer_variants(first, rng, others=[cited, "Rome is old [2]."])]
    return [*variants, *(shape.replace("{0}", first) for shape in SHAPES), *(_random(first, rng) for _ in range(40))]


def _random(first: str, rng: random.Random) -> str:
    """Sentences, citations, and pieces of JSON in any order."""
    pieces = [
        first,
        "Rome is old",
        "Paris",
        "[1]",
        "[2][3]",
        "[4, 5]",
        ". ",
        "! ",
        "\n",
        " ",
        ": ",
        "summary",
        "{",
        "}",
    ]
    pieces += ['"passage_id": [2, 4]', '"little_penguin": [12, 40]', ", ", "Berlin is large", "|", "]", "[5]", "Title"]
    return "".join(rng.choice(pieces) for _ in range(rng.randrange(1, 12)))


def _docs(base: str) -> Sequence[Json]:
    return {"counting_stars": STAR_DOCS, "niah": NEEDLE_DOCS}.get(base, DOCS)


def _gold(payload: Json, metric: str) -> Json:
    """What loom's rule of gold rows makes of the payload."""
    extra = {"docs": payload["docs"], "at_most_citations": 3}
    row = {"metric": metric, "task": payload["task"], "prediction": payload["generation"], "extra": extra}
    return gold_score({**row, "references": payload["answer"]})


def _correct(payload: Json) -> Json:
    [row] = payload["rows"]
    base = payload["task"]
    asked = {"task": base, **row}
    if base in SUMMARIES:
        return {"rouge-l": 100 * _gold(asked, "rouge-l f")}
    if base == "niah":
        return {"rouge-1": 100 * _gold(asked, "rouge-1 r")}
    if base == "counting_stars":
        return {"accuracy": 100 * _gold(asked, "accuracy")}
    return {part: 100 * value for part, value in _gold(asked, "f1/precision/recall").items()}


def _cited(payload: Json) -> Json:
    found = _gold(payload, "citation recall/precision/f1/num")
    return [found[part] for part in ("recall", "precision", "f1", "num")]


def _known(payload: Json) -> Json:
    sample = _sample(payload)
    parts: tuple[Part, ...] = ("recall", "precision", "f1", "count")
    found = [Passages(part).score(payload["generation"], sample) for part in parts]
    return [[] if _left_out(scored) else [scored.value] for scored in found]


def _left_out(scored: Scored) -> bool:
    return str(scored.detail.get("official", "")).startswith(LEFT_OUT)


def _sample(row: Json, name: str = "") -> Sample:
    """A made-up record as a sample, with what the citations of niah and counting_stars look at."""
    base, answer = row["task"], row["answer"]
    references = tuple(answer) if isinstance(answer, list) else (answer,)
    meta: dict[str, Json] = {"length": row["length"]}
    if base in KNOWN_PASSAGES:
        meta |= {"passages": known_passages(base, references, row["docs"]), "cited_as": cited_as(base)}
    return Sample(id="x", task=name or base, prompt=Prompt(segments=()), references=references, meta=meta)


# --- tables ----------------------------------------------------------------------------------------------------------


def _tables(context: ParityContext, experiment: str) -> Iterator[Case]:
    """Tables of made-up answers to records of many lengths, at and around the bounds of the buckets."""
    for base in TASKS:
        rng = context.random(f"table {experiment} {base}")
        for n in range(min(TABLES, context.limit or TABLES)):
            answer = rng.choice(ANSWERS.get(base, OTHER_ANSWERS))
            texts = [text for text in _texts(answer, rng) if _harmless(base, text, answer)]
            if base == "counting_stars" and n % 2:
                # Every answer has an object: buckets are to be equal.
                texts = [text for text in texts if _read(text, answer)]
            rows = [
                {"generation": rng.choice(texts), "answer": answer, "docs": list(_docs(base)), "length": length}
                for length in LENGTHS
            ]
            name = base if experiment == "main" else f"{base}_{experiment}"
            payload = {"task": base, "exp": EXPERIMENTS[experiment], "rows": rows}
            yield _case("table of citations", name, str(n), "table", payload, partial(_cited_lines, name))
            yield _case("table", name, str(n), "correct", payload, partial(_correct_lines, name))


def _harmless(base: str, text: str, answer: Json) -> bool:
    """True for an answer on which the authors' code does not fail, and whose citations are in their means."""
    row = {"task": base, "generation": text, "answer": answer, "docs": list(_docs(base)), "length": SHORT}
    scored = _scored(row, Sample(id="x", task=base, prompt=Prompt(segments=()), references=()))
    stop = text.replace("[1]", "").replace("[3]", "").strip(" .\n") == ""
    return not stop and not any("official" in one.detail for one in scored.values())


def _scored(row: Json, sample: Sample) -> dict[str, Scored]:
    """Every metric of an answer, its citations by the double of both sides."""
    base, found = row["task"], dict[str, Scored]()
    known = _sample(row)
    for metric in metrics_of(base):
        part = metric.rpartition("_")[2]
        if metric.startswith("lciteeval_passage_"):
            found[metric] = Passages(part).score(row["generation"], known)  # type: ignore[arg-type]
        elif metric.startswith("citation_"):
            [values] = [_gold(row, "citation")["num" if part == "count" else part]]
            out = {"official": f"{LEFT_OUT}: the answer has no sentence"}
            found[metric] = Scored(value=values[0]) if values else Scored(value=0.0, detail=out)
        else:
            values = _correct({"task": base, "rows": [row]})
            one = values[part] if part in values else next(iter(values.values()))
            found[metric] = Scored(value=one / 100)
    return found


def _lines(name: str, payload: Json) -> dict[tuple[str, str], float | None]:
    graded = []
    for row in payload["rows"]:
        asked = {"task": payload["task"], **row}
        sample = _sample(asked, name)
        graded.append(Graded(task=name, sample=sample, repeat=0, scored=_scored(asked, sample)))
    return {(line.name.removeprefix(name).strip(), line.metric): line.value for line in table(graded)}


def _cited_lines(name: str, payload: Json) -> Json:
    found = _lines(name, payload)
    family = "lciteeval_passage" if payload["task"] in KNOWN_PASSAGES else "citation"
    metrics = [f"{family}_{part}" for part in ("recall", "precision", "f1", "count")]
    levels = dict.fromkeys(level for level, metric in found if metric in metrics)
    return {_key(level, "total"): [_printed(metric, found[level, metric]) for metric in metrics] for level in levels}


def _printed(metric: str, value: float | None) -> float:
    return (value or 0.0) if metric in COUNTS else round(value or 0.0, 2)


def _correct_lines(name: str, payload: Json) -> Json:
    names = {"lciteeval_rouge_l": "rouge-l", "lciteeval_niah": "rouge-1", "lciteeval_counting_stars": "accuracy"}
    names |= {f"lciteeval_{part}": part for part in ("f1", "precision", "recall")}
    made: dict[str, dict[str, float]] = {}
    for (level, metric), value in _lines(name, payload).items():
        if metric in names:
            made.setdefault(names[metric], {})[_key(level, "all")] = value or 0.0
    return made


def _stars(text: str, answer: Json) -> Scored:
    row = {"task": "counting_stars", "prediction": text, "references": answer}
    return gold_scored("lciteeval_counting_stars", row)


def _read(text: str, answer: Json) -> bool:
    """True where an object is read from an answer to counting_stars."""
    return _stars(text, answer).extracted is not None


def _until_read(name: str, rows: Sequence[Json]) -> dict[str, float]:
    """The buckets of counting_stars as eval_correct.py means them: up to the last answer in which an object is read."""
    values: dict[str, list[float]] = {}
    means: dict[str, float] = {}
    for row in rows:
        level = bucket(row["length"], name, strict=True)
        if level is None:
            continue
        values.setdefault(level, []).append(100 * (_stars(row["generation"], row["answer"]).value or 0.0))
        if _read(row["generation"], row["answer"]):
            means[_key(level, "all")] = fmean(values[level])
    return means


def _key(level: str, whole: str) -> str:
    return f"{level.removesuffix('k')}000" if level else whole

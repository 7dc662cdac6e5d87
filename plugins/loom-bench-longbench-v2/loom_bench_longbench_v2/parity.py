"""LongBench v2 beside its authors' program: the prompts of both calls, cut and whole, answers read, and the table.

Upstream's functions run in a process of their own (`loom parity longbench-v2 --upstream FOLDER`): get_pred with a
scripted client and a tokenizer of this file, extract_answer, and result.py. Records that are not at hand are made up.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from loom_parity import TOKENIZERS, Case, ParityContext, answer, answer_variants, upstream

from loom_bench_longbench_v2.benchmark import (
    ACCURACY,
    COMPENSATED,
    DIFFICULTIES,
    FIELDS,
    FOLDER,
    LENGTHS,
    LETTERS,
    PARTS,
    SECOND_CALL,
    TEMPLATES,
    LongBenchV2,
    sample_of,
)
from loom_bench_longbench_v2.plugin import AUTHORS_LENGTH, LongBenchV2Options
from loom_core.api import Graded, Json, Prompt, Sample, Unavailable, records
from loom_core.api.serving import fit

PREDICTING, COUNTING = "pred.py", "result.py"
MODEL = "GLM-4-9B-Chat"
"""A name of their configuration; its limit is set anew for each case."""
LIMITS = (AUTHORS_LENGTH, 1200, 801, 64)
"""Tokens; all made-up prompts fit the first."""
MADE = 24
TABLES = 60
FORMS = (
    "The correct answer is ({letter})",
    "The correct answer is ({letter}).",
    "the correct answer is ({letter})",
    "The correct answer is {letter}",
    "The correct answer is **({letter})**",
    "**The correct answer is {letter}**",
    "The correct answer is: ({letter})",
    "The correct answer is  ({letter})",
    "The correct answer is\n({letter})",
    "The correct answer is ( {letter} )",
    "The correct answer is ({letter}",
    "The correct answer is [{letter}]",
    "The correct answer is {other}. No: The correct answer is ({letter})",
    "The correct answer is ({other}). The correct answer is ({letter}).",
    "The correct answer is not ({letter}), The correct answer is {other}",
    "The correct answer is Answer {letter}",
    "The correct answer is Dallas, ({letter})",
    "The correct answer is E",
    "The correct answer is (E), or The correct answer is {letter}",
    "The correct *answer* is ({letter})",
    "The correct answer is (**{letter}**)",
    "<think>The correct answer is ({other})</think>The correct answer is ({letter})",
    "The correct answer is （{letter}）",
    "({letter})",
    "{letter}",
    "  The correct answer is ({letter})  \n",
)


class Parity:
    """Prompts, answers and table of THUDM/LongBench, the second benchmark."""

    commit = "2e00731f8d0bff23dc4325161044d0ed8af94c1e"
    files = (PREDICTING, COUNTING, "config/model2path.json", "config/model2maxlen.json")
    differences: Mapping[str, str] = {}

    def authors(self, root: Path) -> Mapping[str, Callable[[Json], Json]]:
        """asked: the calls of one record; read: the letter and the judgement; table: result.py."""
        # Their program reads its templates and limits by paths relative to the checkout.
        os.chdir(root)
        away = ("tqdm", "datasets", "openai", "transformers", "tiktoken", "torch")
        made = upstream.module(root, PREDICTING, name="longbench_v2_pred", absent=away)
        return {"asked": partial(_asked, made), "read": partial(_read, made), "table": partial(_table, root.resolve())}

    def cases(self, context: ParityContext) -> Iterator[Case]:
        """Records at hand and made-up ones in three modes, answers of many forms, drawn tables."""
        yield from _prompts(context)
        yield from _answers(context)
        yield from _tables(context)

    def explain(self, case: Case, theirs: Json, ours: Json) -> str | None:
        """No difference is known."""
        return None


def _prompts(context: ParityContext) -> Iterator[Case]:
    tokenizers = [name for name in TOKENIZERS if _tokenizer(name) is not None]
    for name in sorted(TOKENIZERS.keys() - set(tokenizers)):
        context.missing[f"prompts by the tokenizer of {name}"] = "it is not installed"
    made = [(f"made {i}", record) for i, record in enumerate(_made(context))]
    for mode in ("direct", "cot", "no_context"):
        for name, record in made:
            for limit in LIMITS:
                for tokenizer in tokenizers:
                    yield _prompt(context, mode, f"{name} {limit} {tokenizer}", record, limit, tokenizer)
        source = LongBenchV2(LongBenchV2Options()).pins[f"{FOLDER}/data.json"]
        try:
            for number, row in enumerate(records.read_records(context.data, source, FIELDS, form="json")):
                if number == context.limit:
                    break
                yield _prompt(context, mode, str(row["_id"]), dict(row.values), AUTHORS_LENGTH, "bytes")
        except Unavailable as error:
            context.missing["prompts of the records"] = f"{error.what}; made-up records of their columns were compared"
    context.missing["prompts of rag"] = "upstream puts its own retriever's chunks there, loom an arm's"


@cache
def _tokenizer(name: str) -> Any:
    return TOKENIZERS[name]()


def _made(context: ParityContext) -> Iterator[dict[str, str]]:
    """Records of the true columns; texts with placeholders, other scripts, spaces around."""
    draw = context.random("records")
    odd = [text for _, text in answer_variants("The tower of {Elmgate} is 40 m high.", draw) if len(text) < 400]
    odd += ["  $Q$ and $DOC$ \n", "$COT$ $C_A$", "\u2028\x1f $C_D$ $C_D$\u00a0", "塔有四十米高。" * 9, "🗼" * 30]
    for number in range(min(MADE, context.limit or MADE)):
        text = "\n".join(draw.choice(odd) for _ in range(draw.choice((1, 3, 40))))
        yield {
            "_id": f"made {number}",
            "domain": "Single-Document QA",
            "sub_domain": "Academic",
            "difficulty": draw.choice(DIFFICULTIES),
            "length": draw.choice(LENGTHS),
            "question": draw.choice(odd),
            **{f"choice_{letter}": draw.choice(odd) for letter in LETTERS},
            "answer": draw.choice(LETTERS),
            "context": text,
        }


def _prompt(context: ParityContext, mode: str, at: str, record: dict[str, str], limit: int, tokenizer: str) -> Case:
    draw = context.random(f"reply {mode} {at}")
    first = draw.choice((" It says 40 m. $Q$ \n", "The correct answer is (B)", "四十米。" * 60, "$COT$"))
    replies = [first, "The correct answer is (C)"]
    return Case(
        kind="prompt" if limit == AUTHORS_LENGTH else "prompt, cut",
        name=mode,
        id=at,
        function="asked",
        payload=[mode, record, limit, tokenizer, replies],
        ours=partial(_loom_asks, context, mode, record, limit, tokenizer, replies),
    )


def _loom_asks(
    context: ParityContext, mode: str, record: dict[str, str], limit: int, tokenizer: str, replies: list[str]
) -> Json:
    bench = LongBenchV2(LongBenchV2Options(mode=mode, max_length=limit))  # type: ignore[arg-type]
    (task,) = bench.tasks(())
    template, second = (
        context.data.text(bench.pins[f"{FOLDER}/prompts/{name}.txt"]) for name in (TEMPLATES[mode], SECOND_CALL)
    )
    sample = sample_of(mode, template, second if mode == "cot" else None, record)
    assert task.truncation is not None
    cut = partial(fit, tokenizer=_tokenizer(tokenizer), chat="completion", truncation=task.truncation, limit=1 << 60)
    calls = [(sample.prompt, task.generation)]
    if turn := bench.follow_up(sample, [answer(replies[0])]):
        calls.append((turn.prompt, turn.generation or task.generation))
    return [[cut(prompt)[0].text, generation.temperature, generation.max_tokens] for prompt, generation in calls]


def _answers(context: ParityContext) -> Iterator[Case]:
    draw = context.random("answers")
    for right in LETTERS:
        for letter in LETTERS:
            other = draw.choice([one for one in LETTERS if one != letter])
            given = [(f"own {i}", form.format(letter=letter, other=other)) for i, form in enumerate(FORMS)]
            if letter == right:
                given += answer_variants(f"The correct answer is ({letter})", draw, others=("The correct answer is E",))
                given += [(f"letter {shape}", text) for shape, text in answer_variants(letter, draw, others=LETTERS)]
            for shape, text in given:
                yield Case(
                    kind="score",
                    name="answer",
                    id=f"{right} {letter} {shape}",
                    function="read",
                    payload=[text, right],
                    ours=partial(_loom_reads, context, text, right),
                )


def _loom_reads(context: ParityContext, text: str, right: str) -> Json:
    sample = Sample(id="x", task="direct", prompt=Prompt(segments=()), references=(right,))
    found = context.metrics[ACCURACY].score(text, sample)
    return [found.extracted, found.value == 1.0]


def _tables(context: ParityContext) -> Iterator[Case]:
    draw = context.random("tables")
    for number in range(min(TABLES, context.limit or TABLES)):
        rows = [
            [draw.choice(DIFFICULTIES), draw.choice(LENGTHS), draw.choice((*LETTERS, None)), draw.choice(LETTERS)]
            for _ in range(draw.choice((12, 50, 503)))
        ]
        for metric in (ACCURACY, COMPENSATED):
            yield Case(
                kind="table",
                name="plain" if metric == ACCURACY else "compensated",
                id=str(number),
                function="table",
                payload=[rows, metric == COMPENSATED],
                ours=partial(_loom_table, context, rows, metric),
            )


def _loom_table(context: ParityContext, rows: list[list[Json]], metric: str) -> Json:
    graded = []
    for number, (difficulty, length, said, right) in enumerate(rows):
        sample = Sample(
            id=str(number),
            task="direct",
            prompt=Prompt(segments=()),
            references=(right,),
            level=length,
            meta={"difficulty": difficulty},
        )
        text = "I cannot tell." if said is None else f"The correct answer is ({said})"
        scored = {name: context.metrics[name].score(text, sample) for name in (ACCURACY, COMPENSATED)}
        graded.append(Graded(task="direct", sample=sample, repeat=0, scored=scored))
    lines = {
        line.name: line.value for line in LongBenchV2(LongBenchV2Options()).aggregate(graded) if line.metric == metric
    }
    return [round(lines[name] or 0.0, 1) for name in PARTS]


# --- the authors' side ----------------------------------------------------------------------------------------------


def _asked(made: Any, payload: Json) -> Json:
    mode, record, limit, name, replies = payload
    tokenizer, asked, left = _tokenizer(name), [], iter(replies)

    def create(*, model: str, messages: Any, temperature: float, max_tokens: int) -> Any:
        (message,) = messages
        asked.append([message["content"], temperature, max_tokens])
        return SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content=next(left)))])

    theirs = SimpleNamespace(
        encode=lambda text: tokenizer.encode(text, special=True),
        decode=lambda ids, skip_special_tokens: tokenizer.decode(ids),
    )
    completions = SimpleNamespace(completions=SimpleNamespace(create=create))
    made.AutoTokenizer = SimpleNamespace(from_pretrained=lambda path, trust_remote_code: theirs)
    made.OpenAI = lambda base_url, api_key: SimpleNamespace(chat=completions)
    made.tqdm = iter
    made.maxlen_map[MODEL] = limit
    asking = SimpleNamespace(model=MODEL, rag=0, no_context=mode == "no_context", cot=mode == "cot")
    made.get_pred([dict(record)], asking, SimpleNamespace(write=len, flush=list))
    return asked


def _read(made: Any, payload: Json) -> Json:
    text, right = payload
    found = made.extract_answer(text.strip())
    return [found, found == right]


def _table(root: Path, payload: Json) -> Json:
    rows, compensated = payload
    keys = ("difficulty", "length", "pred", "judge")
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "results"
        place.mkdir()
        lines = [dict(zip(keys, (*row[:3], row[2] == row[3]), strict=True)) for row in rows]
        (place / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        os.chdir(folder)
        try:
            upstream.script(root, COUNTING, constants={"compensated": compensated})
        finally:
            os.chdir(before)
        table = (Path(folder) / "result.txt").read_text("utf-8")
    return [float(value) for value in table.split("\n")[1].split("\t")[1:]]

"""LongBench's prompts beside its authors' get_pred: of the records at hand and of made-up ones, whole and cut.

Their function runs with a tokenizer of `TOKENIZERS` and a model that answers nothing. Knows both sides' forms.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from loom_parity import TOKENIZERS, Case, ParityContext, answer_variants, upstream

from loom_bench_longbench.benchmark import FIELDS, PROMPTS, LongBench
from loom_bench_longbench.plugin import TASKS, LongBenchOptions
from loom_bench_longbench.prompts import fill, read_entry
from loom_core.api import Json, Prompt, Tokenizer, Unavailable, records
from loom_core.api.serving import fit

PREDICTING = "LongBench/pred.py"
AWAY = ("torch", "datasets", "transformers", "tqdm", "numpy", "llama_flash_attn_monkey_patch")
MODEL = "none"
"""A name that is not a model of theirs: none of their chat formats and none of their clean-ups is its own."""
WHOLE = 2_000_000
CUTS = (3500, 1000, 501, 64)
"""Tokens, BOS counted: their limit of a 4k model, and smaller ones, odd and even."""
MADE = 8


def asked(root: Path) -> Callable[[Json], Json]:
    """What their get_pred asks for one record, and how."""
    made: Any = upstream.module(root, PREDICTING, name="longbench_pred", absent=AWAY)
    made.tqdm = iter
    return partial(_asked, made, root)


def cases(context: ParityContext) -> Iterator[Case]:
    """Every task's made-up records and those at hand, under every tokenizer and limit."""
    tokenizers = [name for name in TOKENIZERS if _tokenizer(name) is not None]
    for name in sorted(TOKENIZERS.keys() - set(tokenizers)):
        context.missing[f"prompts by the tokenizer of {name}"] = "it is not installed"
    for task in TASKS:
        given = [*_made(context, task), *_at_hand(context, task)][: context.limit]
        for at, record, prompt in given:
            for tokenizer in tokenizers:
                for limit in (WHOLE, *CUTS):
                    yield _case(task, f"{at} {limit} {tokenizer}", record, prompt, limit, tokenizer)


def _at_hand(context: ParityContext, task: str) -> Iterator[tuple[str, Json, Prompt]]:
    bench = LongBench(LongBenchOptions())
    (chosen,) = (one for one in bench.tasks(()) if one.name == task)
    try:
        rows = records.read_records(context.data, chosen.sources[-1], FIELDS)
        for row, sample in zip(rows, bench.samples(chosen, context.data, None, ()), strict=True):
            yield f"record {row.number}", dict(row.values), sample.prompt
    except Unavailable as error:
        context.missing[f"prompts of the records of {task}"] = f"{error.what}; made-up records were compared"
        return
    if any(used.extract for used in context.data.used() if used.pin == chosen.sources[-1].pin):
        context.missing[f"prompts of all records of {task}"] = "only a part of the file is at hand"


def _made(context: ParityContext, task: str) -> Iterator[tuple[str, Json, Prompt]]:
    """Records of the true columns; texts with placeholders, other scripts, spaces around."""
    draw, bench = context.random(f"records {task}"), LongBench(LongBenchOptions())
    template = read_entry(context.data.text(bench.pins[PROMPTS]), bench.pins[PROMPTS], task, str)
    odd = [text for _, text in answer_variants("The tower of {Elmgate} is 40 m high.", draw) if len(text) < 400]
    odd += ["  {context} and {input} \n", "{0} {{}} %s", "\u2028\x1f\u00a0", "塔有四十米高。" * 9, "🗼" * 30, ""]
    for number in range(MADE):
        text = "\n".join(draw.choice(odd) for _ in range(draw.choice((1, 3, 40, 200))))
        record: Json = {
            "input": draw.choice(odd),
            "context": text,
            "answers": ["x"],
            "length": draw.randrange(20000),
            "all_classes": None,
            "_id": f"made {number}",
            "dataset": task,
            "language": "en",
        }
        yield f"made {number}", record, fill(template, record)


def _case(task: str, at: str, record: Json, prompt: Prompt, limit: int, tokenizer: str) -> Case:
    return Case(
        kind="prompt" if limit == WHOLE else "prompt, cut",
        name=task,
        id=at,
        function="asked",
        payload=[task, record, limit, tokenizer],
        ours=partial(_loom_asks, task, prompt, limit, tokenizer),
    )


def _loom_asks(task: str, prompt: Prompt, limit: int, tokenizer: str) -> Json:
    bench = LongBench(LongBenchOptions(max_length=limit))
    (chosen,) = (one for one in bench.tasks(()) if one.name == task)
    reads = _tokenizer(tokenizer)
    assert chosen.truncation is not None and reads is not None
    # The window has room for all: only the authors' own limit cuts.
    cut, _ = fit(prompt, reads, chat="completion", truncation=chosen.truncation, limit=1 << 60)
    generation = chosen.generation
    return {
        "text": cut.text,
        "chat": chosen.chat == "template",
        "max_tokens": generation.max_tokens,
        "min_tokens": generation.min_tokens,
        "ends at a line feed": "\n" in generation.stop,
        "greedy": generation.temperature == 0.0,
    }


@cache
def _tokenizer(name: str) -> Tokenizer | None:
    made: Tokenizer | None = TOKENIZERS[name]()
    return made


# --- the authors' side ----------------------------------------------------------------------------------------------


class _Batch(list[Any]):
    """A tensor of one row, as far as they look into it."""

    @property
    def shape(self) -> tuple[int, int]:
        return 1, len(self[0])


class _Encoded(dict[str, Any]):
    """What their tokenizer returns: read by name, moved to a device, and spread into arguments."""

    @property
    def input_ids(self) -> Any:
        return self["input_ids"]

    def to(self, device: Any) -> _Encoded:
        return self


class _Reader:
    """A tokenizer of loom's in the shape of theirs; keeps the last text it was given."""

    eos_token_id = -1

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self.last = tokenizer, ""

    def __call__(self, text: str, *, add_special_tokens: bool = True, **_: Any) -> _Encoded:
        self.last = text
        return _Encoded(input_ids=_Batch([self._tokenizer.encode(text, special=add_special_tokens)]))

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return self._tokenizer.encode(text, special=add_special_tokens)

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        return self._tokenizer.decode(ids)


def _asked(made: Any, root: Path, payload: Json) -> Json:
    task, record, limit, name = payload
    config = root / "LongBench" / "config"
    template, most = (
        json.loads((config / f"{file}.json").read_text("utf-8"))[task] for file in ("dataset2prompt", "dataset2maxlen")
    )
    found = _tokenizer(name)
    assert found is not None
    reader = _Reader(found)
    heard: dict[str, Json] = {"chat": False}

    def generate(*, input_ids: Any, **given: Any) -> Any:
        line_feed = found.encode("\n")[-1] in given.get("eos_token_id", [])
        heard.update(
            {
                "text": reader.last,
                "max_tokens": given["max_new_tokens"],
                "min_tokens": max(0, given.get("min_length", 0) - len(input_ids[0])),
                "ends at a line feed": line_feed,
                "greedy": given["num_beams"] == 1 and not given["do_sample"],
            }
        )
        return [input_ids[0]]

    def build_chat(tokenizer: Any, prompt: str, name: str) -> str:
        heard["chat"] = True
        return prompt

    made.build_chat = build_chat
    made.load_model_and_tokenizer = lambda path, name, device: (SimpleNamespace(generate=generate), reader)
    made.get_pred(0, 1, [record], limit, most, template, task, None, MODEL, {MODEL: MODEL}, os.devnull)
    return heard

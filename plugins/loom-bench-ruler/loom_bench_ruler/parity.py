"""RULER beside its authors' program: prompts of their generators, scores of their evaluator.

Their functions run in a process of their own (`loom parity ruler@variant=official --upstream FOLDER`). Lengths are
counted by one rule on both sides, four characters a token, so that no model is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice, takewhile
from pathlib import Path
from types import ModuleType
from typing import Any

from loom_parity import Case, ParityContext, answer_variants, upstream

from loom_bench_ruler.benchmark import Ruler
from loom_bench_ruler.plugin import RulerOptions
from loom_bench_ruler.settings import FAMILIES, LOOM_SETTINGS, MAX_TOKENS, family
from loom_core.api import Json, Unavailable

DATA, EVAL = "scripts/data/synthetic", "scripts/eval"
SEED, LENGTHS, SAMPLES, REFERENCES = 42, (2048, 4096, 16384), 10, 12
CHARACTERS_PER_TOKEN = 4
UNNEEDED = ("nemo", "nltk", "pandas", "tqdm", "yaml")


class Parity:
    """Prompts and scores of NVIDIA/RULER."""

    commit = "c3f5e3b4f87f97e048793bb510a3a6b19a46bf3a"
    files = (*[f"{DATA}/{name}.py" for name in FAMILIES], f"{EVAL}/evaluate.py", f"{EVAL}/synthetic/constants.py")
    differences: Mapping[str, str] = {}

    def authors(self, root: Path) -> Mapping[str, Callable[[Json], Json]]:
        """prompt and score."""
        runs: dict[str, list[list[Json]]] = {}
        sys.argv = ["evaluate.py", "--data_dir", ".", "--benchmark", "synthetic"]
        evaluate = upstream.module(root, f"{EVAL}/evaluate.py", absent=UNNEEDED)
        metrics = upstream.module(root, f"{EVAL}/synthetic/constants.py", name="eval_constants").TASKS
        return {"prompt": partial(_prompt, root, runs), "score": partial(_score, evaluate, metrics)}

    def cases(self, context: ParityContext) -> Iterator[Case]:
        """The first samples of every chosen task at three lengths; generated answers under both metrics."""
        bench = Ruler(RulerOptions(variant="official", seed=SEED + context.seed))
        n = min(SAMPLES, context.limit or SAMPLES)
        for task in bench.tasks(()):
            if task.name not in {chosen.name for chosen in context.tasks}:
                continue
            settings = _arguments(task.name)
            for length in LENGTHS:
                try:
                    made = list(islice(bench.samples(task, context.data, None, (length,)), n))
                except Unavailable as error:
                    context.missing[task.name] = str(error.what)
                    break
                for i, sample in enumerate(made):
                    yield Case(
                        kind="prompt",
                        name=task.name,
                        id=f"{length} {i}",
                        function="prompt",
                        payload={**settings, "length": length, "seed": SEED + context.seed, "n": n, "index": i},
                        ours=partial(list, [sample.prompt.text, list(sample.references)]),
                    )
        yield from self._scores(context)

    def explain(self, case: Case, theirs: Json, ours: Json) -> str | None:
        """No difference is known."""
        return None

    def _scores(self, context: ParityContext) -> Iterator[Case]:
        draw = context.random("answers")
        for number in range(min(REFERENCES, context.limit or REFERENCES)):
            others = [str(draw.randint(10**6, 10**7 - 1)) for _ in range(3)]
            for shape, text in answer_variants(others[0], draw, others=others[1:]):
                for name in ("niah", "qa"):
                    row = {
                        "task": name,
                        "metric": "string_match_part" if name == "qa" else "string_match_all",
                        "prediction": [text],
                        "references": [others[: 1 + number % 3]],
                    }
                    yield Case(
                        kind="score",
                        name=name,
                        id=f"{number} {shape}",
                        function="score",
                        payload=row,
                        ours=partial(Ruler.score_gold, row),
                    )


def _arguments(task: str) -> dict[str, Json]:
    """A task's generator and its arguments."""
    kind = family(LOOM_SETTINGS[task])
    script = next(upstream_name for upstream_name, name in FAMILIES.items() if name == kind)
    return {"task": task, "script": script, "max_tokens": MAX_TOKENS[kind]}


# --- the authors' side ----------------------------------------------------------------------------------------------


def _score(evaluate: Any, metrics: Any, row: Json) -> Json:
    answers = [evaluate.postprocess_pred(text, {}) for text in row["prediction"]]
    return metrics[row["task"]]["metric_fn"](answers, row["references"])


def _prompt(root: Path, runs: dict[str, list[list[Json]]], payload: Json) -> Json:
    key = f"{payload['task']} {payload['length']} {payload['seed']} {payload['n']}"
    if key not in runs:
        runs[key] = [[row["input"] + row["answer_prefix"], row["outputs"]] for row in _run(root, payload)]
    return runs[key][payload["index"]]


def _run(root: Path, payload: Json) -> list[Any]:
    """The lines that the task's script would write."""
    name, n, length = payload["script"], payload["n"], payload["length"]
    base = upstream.module(root, f"{DATA}/constants.py", name="constants").TASKS[name]
    arguments = _arguments_of((root / "scripts/synthetic.yaml").read_text("utf-8"), payload["task"])
    given = {
        "save_dir": ".",
        "save_name": name,
        "tokenizer_path": "none",
        "max_seq_length": length,
        "tokens_to_generate": payload["max_tokens"],
        "num_samples": n,
        "random_seed": payload["seed"],
        "template": base["template"] + base["answer_prefix"],
        **arguments,
    }
    sys.argv = [name, *(str(part) for option, value in given.items() for part in (f"--{option}", value))]
    sys.modules["tokenizer"] = _tokenizer()
    script = upstream.module(root, f"{DATA}/{name}.py", absent=("nemo",), name=f"ruler_{name}")
    if name == "variable_tracking":
        chains = {"num_chains": script.args.num_chains, "num_hops": script.args.num_hops}
        (example,) = script.sys_vartrack_w_noise_random(num_samples=1, max_seq_length=500, incremental=5, **chains)
        return list(
            script.sys_vartrack_w_noise_random(
                num_samples=n, max_seq_length=length, icl_example=example, final_output=True, **chains
            )
        )
    if name == "freq_words_extraction":
        return list(script.sys_kwext(num_samples=n, max_seq_length=length, incremental=10))
    make = script.sys_word_pair_random if name == "common_words_extraction" else script.generate_samples
    return list(make(num_samples=n, max_seq_length=length, save_dir="."))


def _arguments_of(text: str, task: str) -> dict[str, str]:
    """A task's arguments from their settings: the lines that are indented twice."""
    lines = text[text.index(f"\n{task}:\n") :].splitlines()[2:]
    rows = (line.strip().partition(": ") for line in takewhile(lambda line: line.startswith("  "), lines))
    return {name: value for name, _, value in rows if value and name != "task"}


def _tokenizer() -> ModuleType:
    """What the scripts take a tokenizer from: one that knows four characters a token."""

    class Quarter:
        def text_to_tokens(self, text: str) -> range:
            return range(-(-len(text) // CHARACTERS_PER_TOKEN))

    made = ModuleType("tokenizer")
    made.select_tokenizer = lambda kind, path: Quarter()  # type: ignore[attr-defined]
    return made

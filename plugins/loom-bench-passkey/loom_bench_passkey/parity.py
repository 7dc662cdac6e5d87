"""The passkey test beside its authors' program: every prompt of their grid, scores of answers, and the table.

Upstream's functions run in a process of their own (`loom parity passkey --upstream FOLDER`).
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from loom_parity import Case, ParityContext, answer_variants, upstream

from loom_bench_passkey.benchmark import UPSTREAM_SEED, Passkey, upstream_keys
from loom_bench_passkey.plugin import PasskeyOptions
from loom_core.api import Json, Prompt, Sample, Unavailable

FOLDER = "eval/passkey_utils"
ESSAYS = f"{FOLDER}/background/PaulGrahamEssays"
CONFIG = "config/eval_config/paulgraham_passkey/20480words_10x10x3_{digits}digits.json"
METRICS = {"passkey_exact": "exact_match", "passkey_partial": "partial_match"}
KEYS = 30


class Parity:
    """Prompts and scores of henryzhongsc/longctx_bench."""

    commit = "72204d09514f4c26aead889de3c892845ff007ee"
    files = (f"{FOLDER}/passkey_utils.py", f"{FOLDER}/eval_metrics.py")
    differences: Mapping[str, str] = {}

    def authors(self, root: Path) -> Mapping[str, Callable[[Json], Json]]:
        """grid and cell."""
        utils = upstream.module(root, f"{FOLDER}/passkey_utils.py", name="eval.passkey_utils.passkey_utils")
        # The file system's order of the essays is not the same everywhere; loom takes that of the names.
        listed = os.listdir
        utils.os.listdir = lambda folder: sorted(listed(folder))
        grids: dict[int, dict[str, str]] = {}
        return {"grid": partial(_prompt, utils, root, grids), "cell": partial(_cell, utils)}

    def cases(self, context: ParityContext) -> Iterator[Case]:
        """The whole grid for 7 and 64 digits; cells of generated answers."""
        for digits in (7, 64):
            bench = Passkey(PasskeyOptions(variant="essays", digits=digits))
            (task,) = bench.tasks(())
            try:
                for number, sample in enumerate(bench.samples(task, context.data, None, ())):
                    if context.limit is not None and number >= context.limit:
                        break
                    place = [digits, sample.meta["words"], sample.depth, sample.meta["repeat"]]
                    yield Case(
                        kind="prompt",
                        name=task.name,
                        id=sample.id,
                        function="grid",
                        payload=place,
                        ours=partial(lambda text: text, sample.prompt.text),
                    )
            except Unavailable as error:
                context.missing[task.name] = str(error.what)
        yield from self._cells(context)

    def explain(self, case: Case, theirs: Json, ours: Json) -> str | None:
        """No difference is known."""
        return None

    def _cells(self, context: ParityContext) -> Iterator[Case]:
        """One answer alone, and three together, as their tables have them."""
        draw = context.random("answers")
        given: list[tuple[str, str]] = []
        for number, key in enumerate(upstream_keys(min(KEYS, context.limit or KEYS), 7, draw.randrange(1000))):
            others = upstream_keys(3, 7, draw.randrange(1000))
            split = f"{key[:3]},{key[3:]}", f"{key[:4]} {key[4:]}", f"{key[:3]} the {key[3:]}", f"{key[0]}-{key[1:]}"
            own = [(f"own {i}", text) for i, text in enumerate((*split, key[1:] + key[0], f"0{key}", key[:6]))]
            for shape, text in (*answer_variants(key, draw, others=others), *own):
                given.append((key, text))
                yield self._cell(context, "one answer", f"{number} {shape}", [(key, text)])
        for number in range(min(200, context.limit or 200)):
            yield self._cell(context, "three answers", str(number), draw.sample(given, 3))

    def _cell(self, context: ParityContext, name: str, at: str, given: list[tuple[str, str]]) -> Case:
        def ours() -> Json:
            rows = [
                (Sample(id=key, task="t", prompt=Prompt(segments=()), references=(key,)), text) for key, text in given
            ]
            values = {
                theirs: [context.metrics[metric].score(text, sample).value or 0.0 for sample, text in rows]
                for metric, theirs in METRICS.items()
            }
            return {metric: sum(found) / len(found) for metric, found in values.items()}

        return Case(
            kind="score",
            name=name,
            id=at,
            function="cell",
            payload=[list(pair) for pair in given],
            ours=ours,
            tolerance=1e-12,
        )


# --- the authors' side ----------------------------------------------------------------------------------------------


def _prompt(utils: Any, root: Path, grids: dict[int, dict[str, str]], payload: Json) -> Json:
    digits, words, depth, repeat = payload
    if digits not in grids:
        config = json.loads((root / CONFIG.format(digits=digits)).read_text("utf-8"))
        values = config["eval_params"]
        values["background_dir"] = str(root / ESSAYS)
        between = utils.get_intermediate_values_within_min_max
        lengths = between(
            values["background_len_min"],
            values["background_len_max"],
            values["n_background_lens"],
            desc="lengths",
            int_rounding=True,
        )
        depths = between(values["depth_min"], values["depth_max"], values["n_depths"], desc="depths")
        random.seed(UPSTREAM_SEED)
        grids[digits] = {
            f"{length} {at} {i}": text
            for length in lengths
            for at in map(float, depths)
            for i, text in enumerate(utils.make_full_input_for_all_iterations(length, at, config)[0])
        }
    return grids[digits][f"{words} {depth} {repeat}"]


def _cell(utils: Any, payload: Json) -> Json:
    rows = [
        {"background_len": 1, "depth": 0, "answer": answer, "response": response, "iteration": i}
        for i, (answer, response) in enumerate(payload)
    ]
    found, _ = utils.process_raw_exp_results(rows, list(METRICS.values()))
    return found["overall_results"]

"""`loom prompts`: the exact prompts that a run would ask, with digests; as text or as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click

from loom_core.cli import exits

RULE = 100
"""Columns of the line between two prompts."""


@click.command(short_help="Print the exact prompts that a run would ask.")
@click.argument("benchmarks", nargs=-1, required=True, metavar="BENCH[@OPTIONS][:TASKS]…")
@click.option("--model", "-m", help="A model whose tokenizer and template are used; its weights are not read.")
@click.option("--model-option", "model_options", multiple=True, metavar="NAME=VALUE", help="Repeatable.")
@click.option("--server", "-s", help="The server that describes the model.  [default: hf]")
@click.option("--server-option", "server_options", multiple=True, metavar="NAME=VALUE", help="Repeatable.")
@click.option("--lengths", "-l", metavar="4k,32k", help="Prompt lengths in tokens of the model.")
@click.option("--limit", "-n", help="At most this many samples of each task, a fair subset.")
@click.option("--subset", help="This many samples of each task, drawn fairly over its levels.")
@click.option("--seed", help="Seed of generated samples.  [default: 0]")
@click.option("--overlength", metavar="truncate", help="truncate: cut what is longer than the window.")
@click.option("--reply", metavar="TEXT", help="Also the later turns, as if every answer were TEXT.")
@click.option("--data-dir", help="Mirror folder of data files (or LOOM_DATA).")
@click.option("--offline", is_flag=True, default=None, help="Download nothing.")
@click.option("--format", "form", type=click.Choice(["text", "jsonl"]), default="text", show_default=True)
def prompts(benchmarks: tuple[str, ...], reply: str | None, form: str, **flags: Any) -> int:
    """Print every prompt of the benchmarks as it would be asked: messages, text, limits, stops and digests.

    Without --model the prompts are told before any chat template; a benchmark that counts tokens needs one. Streams, so
    that it may be piped. Exit code 3 where a task was refused and others were told.
    """
    told, refused = False, []
    for name, rows in _tasks(benchmarks, flags, reply):
        try:
            for row in rows:
                told = True
                if not exits.say_data(json.dumps(row, ensure_ascii=True) if form == "jsonl" else _text(row)):
                    return 0  # `| head` has read enough
        except _loom_error() as error:
            refused.append(error)
            exits.say(f"{name}: {error}", err=True)
    if refused and not told:
        return int(refused[0].exit_code)
    return 3 if refused else 0


def _loom_error() -> Any:
    from loom_core.contract.errors import LoomError

    return LoomError


def _tasks(
    benchmarks: tuple[str, ...], flags: Mapping[str, Any], reply: str | None
) -> Iterator[tuple[str, Iterator[dict[str, Any]]]]:
    """The full name and the records of each task."""
    from loom_core.cli.settings import config_from
    from loom_core.pipeline import open_data
    from loom_core.registry.plugins import installed
    from loom_core.run.prompts import prompts as records
    from loom_core.run.selection import described, opened

    catalog, config = installed(), config_from((), {**flags, "benchmarks": list(benchmarks)})
    chosen = opened(config, catalog)
    card = described(config, catalog) if config.model or config.server else None
    data = open_data(config)
    for one in chosen:
        for task in one.tasks:
            yield one.full_name(task), records(one, task, config, card, data, reply)


def _text(row: Mapping[str, Any]) -> str:
    """A prompt to read."""
    facts = [f"{row['task']}  {row['id']}", f"at most {row['max_tokens']} new tokens"]
    facts += [f"turn {row['turn'] + 1}"] if row["turn"] else []
    facts += [f"{row['n_tokens']:,} tokens"] if row["n_tokens"] is not None else []
    facts += [f"{row['n_dropped']:,} dropped"] if row["n_dropped"] else []
    facts += [f"stops at {', '.join(map(repr, row['stop']))}"] if row["stop"] else []
    facts += [row["note"]] if row["note"] else []
    lines = ["─" * RULE, " · ".join(facts), f"sha256 of the text {row['sha256']['text']}"]
    if row["rendered"] is not None:
        return "\n".join([*lines, f"sha256 as rendered {row['sha256']['rendered']}", "", row["rendered"]])
    for message in row["messages"]:
        lines += ["", f"[{message['role']}]", message["content"]]
    return "\n".join([*lines, *(["", "[answer begins]", row["prefill"]] if row["prefill"] else [])])

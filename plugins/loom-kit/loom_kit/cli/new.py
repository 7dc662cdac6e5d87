"""`loom new`: the smallest plugin distribution of a kind, which passes `loom check` once it is installed."""

from __future__ import annotations

from pathlib import Path

import click

from loom_core.cli.exits import say

KINDS = {
    "benchmark": "tasks, samples and how they are scored",
    "server": "a way to run models",
    "metric": "one number for an answer",
    "accel": "a KV-cache method",
    "prompt": "a method that rewrites the context",
    "retriever": "chunks of the context, ranked for a question (on loom-rag)",
    "strategy": "several calls for one answer",
    "report": "a format of loom report",
    "command": "a command of loom",
    "suite": "a named selection of benchmarks",
}

HELP = f"""Write a plugin distribution that registers NAME: pyproject.toml, README.md, the package and a test.

KIND is one of:

\b
{chr(10).join(f"  {kind:<10} {what}" for kind, what in KINDS.items())}

It works as it is: install it with `pip install -e FOLDER`, then `loom check` says that its contracts hold. Change it
from there; docs/plugins.md explains each part.
"""


@click.command(short_help="Write a minimal plugin distribution to start from.", help=HELP)
@click.argument("kind", metavar="KIND")
@click.argument("name")
@click.option("--out", "-o", type=click.Path(path_type=Path), help="The new folder.  [default: loom-KIND-NAME]")
def new(kind: str, name: str, out: Path | None) -> int:
    """Write it, and say what comes next."""
    from loom_core.contract.errors import UsageError, nearest
    from loom_kit.scaffold import write

    if kind not in KINDS:
        raise UsageError(f"unknown kind of plugin {kind!r}", where="loom new", hint=nearest(kind, KINDS))
    folder, distribution = write(kind, name, out)
    say(f"{folder}\nnext: pip install -e {folder} && loom check {distribution}")
    return 0

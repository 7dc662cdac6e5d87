"""`loom new`: the smallest plugin distribution of a kind, which passes `loom check` once it is installed."""

from __future__ import annotations

from pathlib import Path

import click

from loom_core.cli.exits import say

KINDS = ("benchmark", "accel", "server", "metric")


@click.command(short_help="Write a minimal plugin distribution to start from.")
@click.argument("kind", metavar="|".join(KINDS))
@click.argument("name")
@click.option("--out", "-o", type=click.Path(path_type=Path), help="The new folder.  [default: loom-KIND-NAME]")
def new(kind: str, name: str, out: Path | None) -> int:
    """Write a plugin distribution that registers NAME: pyproject.toml, README.md, the package and a test.

    It works as it is: install it with `pip install -e FOLDER`, then `loom check` says that its contracts hold. Change
    it from there; docs/plugins.md explains each part.
    """
    from loom_core.contract.errors import UsageError, nearest
    from loom_kit.scaffold import write

    if kind not in KINDS:
        raise UsageError(f"unknown kind of plugin {kind!r}", where="loom new", hint=nearest(kind, KINDS))
    folder, distribution = write(kind, name, out)
    say(f"{folder}\nnext: pip install -e {folder} && loom check {distribution}")
    return 0

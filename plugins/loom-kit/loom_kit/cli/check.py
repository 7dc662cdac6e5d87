"""`loom check`: the conformance kit for an installed plugin, and methods against recorded oracle results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from loom_core.cli.exits import paint, say


@click.command(short_help="Check an installed plugin, or methods against oracle results.")
@click.argument("package", required=False)
@click.option("--oracle", type=click.Path(path_type=Path), help="Folder with models/, prompts.json and expected/.")
@click.option("--server", default="hf", show_default=True, help="The server whose methods are checked.")
@click.option("--model", metavar="NAME|PATH", help="The model that a server is checked on.")
@click.option("--server-option", "server_options", multiple=True, metavar="NAME=VALUE", help="Repeatable.")
@click.option("--model-option", "model_options", multiple=True, metavar="NAME=VALUE", help="Repeatable.")
@click.option("--verbose", "-v", is_flag=True, help="Show the rows that differ.")
def check(
    package: str | None,
    oracle: Path | None,
    server: str,
    model: str | None,
    server_options: tuple[str, ...],
    model_options: tuple[str, ...],
    verbose: bool,
) -> int:
    """Check what PACKAGE registers against its contracts, or installed methods against the rows of an oracle folder.

    PACKAGE is a distribution, or the name of one thing that is registered. Every kind has its rules: a KV-cache method
    is run on small models and held to U1 to U9, a server is asked questions, a metric is given answers of all sorts.
    What cannot be checked here (no model, no endpoint, no data) is said to be so. Prints one line a check; exit code 1
    when anything fails or differs.
    """
    from loom_core.contract.errors import UsageError

    if oracle is not None:
        return _oracle(oracle, package, server, verbose)
    if package is None:
        raise UsageError("nothing to check", hint="loom check PACKAGE, or loom check --oracle FOLDER")
    from loom_core.cli.commands import SUMMARIES
    from loom_core.contract.options import assignments
    from loom_kit.conformance import Given, check_package

    given = Given(
        model=model,
        server_options=assignments(",".join(server_options), where="--server-option"),
        model_options=assignments(",".join(model_options), where="--model-option"),
        commands=frozenset(SUMMARIES),
    )
    failed = passed = 0
    unchecked: list[str] = []
    for row in check_package(package, given):
        failed, passed = failed + (not row.passed), passed + (row.passed and row.checked)
        if row.passed and not row.checked:
            unchecked.append(row.check)
        say(_mark(row), f" {row.subject}: {row.check}" + (f"\n     {row.why}" if row.why else ""))
    if failed:
        say(f"{failed} checks failed, {passed} passed" + (f", {len(unchecked)} not checked" if unchecked else ""))
    elif unchecked:
        say(f"no check failed: {passed} passed, {len(unchecked)} not checked: {'; '.join(dict.fromkeys(unchecked))}")
    else:
        say("all checks passed")
    return int(failed > 0)


def _mark(row: Any) -> str:
    if not row.passed:
        return paint("FAIL", fg="red")
    return paint("ok  ", fg="green") if row.checked else paint("--  ", fg="yellow")


def _oracle(folder: Path, method: str | None, server: str, verbose: bool) -> int:
    from loom_core.contract.errors import UsageError
    from loom_core.registry.plugins import installed, resolve

    found = installed().servers.get(server)
    if not found.spec.oracle:
        raise UsageError(f"server {server} has no oracle check", hint="loom check --oracle FOLDER --server hf")
    if not (folder / "expected").is_dir():
        raise UsageError("not an oracle folder", where=str(folder), why="it has no folder expected/")
    rows: list[Any] = resolve(found.spec.oracle)(folder, [method] if method else None)
    width = max((len(row.method) for row in rows), default=0)
    for row in rows:
        text = f"{row.method:<{width}}  {row.agree:>4} agree  {row.differ:>4} differ  {row.not_covered:>4} not covered"
        say(paint(text, fg="red" if row.differ else "yellow" if row.not_covered else None))
        for detail in row.details if verbose or row.differ else ():
            say(f"    {detail}")
    return int(any(row.differ for row in rows))

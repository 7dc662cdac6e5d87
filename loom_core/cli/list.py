"""`loom list`: everything that is installed, with its status and origin; broken plugins with their reason."""

from __future__ import annotations

from typing import Any

import click

from loom_core.cli.exits import paint, say, say_json

NOUNS = (
    *("benchmarks", "servers", "augmentations", "metrics", "models", "suites", "reports"),
    *("run reports", "job sources", "executors"),
)
SHOWN = ("kind", "name", "version", "status", "summary", "distribution")
"""What every row has; whatever else it has are facts of plugins."""


@click.command("list", short_help="List what is installed.")
@click.argument("what", required=False, type=click.Choice(NOUNS), metavar="[" + "|".join(NOUNS) + "]")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def list_(what: str | None, form: str) -> int:
    """List installed benchmarks, servers, augmentations, metrics, models, suites and report formats."""
    from loom_core.registry.plugins import installed

    rows = _rows(installed(), what)
    if form == "json":
        say_json(rows)
        return 0
    if not rows:
        say(f"no {what or 'plugins'} are installed")
    width = max((len(row["name"]) for row in rows), default=0)
    kind = None
    for row in rows:
        if row["kind"] != kind:
            kind = row["kind"]
            say(paint(("\n" if row is not rows[0] else "") + kind + "s", bold=True))
        status = "" if row["status"] == "ok" else paint(f"  [{row['status']}]", fg="yellow")
        known = "".join(
            f"  [{name}: {text}]" for name, text in row.items() if name not in SHOWN and isinstance(text, str)
        )
        say(f"  {row['name']:<{width}}  {row['summary']}", status, known)
    return 0


def facts(catalog: Any, spec: Any) -> dict[str, Any]:
    """What plugins know of a spec, by name."""
    given = [(name, value) for one in catalog.every("loom_facts", spec=spec) for name, value in one.items()]
    return {name: value for name, value in given if value is not None}


def _rows(catalog: Any, what: str | None) -> list[dict[str, Any]]:
    """name, kind, version, status, summary and distribution of each, and the facts that plugins know of it
    (`loom_facts`); a broken plugin has its reason as status."""
    rows = [
        {
            "kind": kind.noun,
            "name": found.spec.name,
            "version": found.spec.version,
            "status": found.spec.status,
            "summary": found.spec.summary,
            "distribution": f"{found.distribution} {found.distribution_version}",
            **facts(catalog, found.spec),
        }
        for kind in catalog.kinds
        if what is None or kind.noun == what.removesuffix("s")
        for found in kind
    ]
    if what is None:
        rows += [
            {
                "kind": "broken plugin",
                "name": broken.name,
                "version": "",
                "status": f"broken: {broken.why}",
                "summary": f"from {broken.distribution}",
                "distribution": broken.distribution,
            }
            for broken in catalog.broken
        ]
    return rows

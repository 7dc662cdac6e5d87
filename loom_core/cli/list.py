"""`loom list`: everything that is installed, with its status and origin; broken plugins with their reason."""

from __future__ import annotations

from typing import Any

import click

from loom_core.cli.exits import paint, say, say_json

NOUNS = ("benchmarks", "servers", "augmentations", "metrics", "models", "suites", "reports")


@click.command("list", short_help="List what is installed.")
@click.argument("what", required=False, type=click.Choice(NOUNS), metavar="[" + "|".join(NOUNS) + "]")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def list_(what: str | None, form: str) -> int:
    """List installed benchmarks, servers, augmentations, metrics, models, suites and report formats."""
    from loom_core.plugins import installed

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
        parity = f"  [parity: {row['parity']}]" if "parity" in row else ""
        say(f"  {row['name']:<{width}}  {row['summary']}", status, parity)
    return 0


def _rows(catalog: Any, what: str | None) -> list[dict[str, str]]:
    """name, kind, version, status, summary and distribution of each; a broken plugin has its reason as status, a
    benchmark how it compares with its authors' program (`parity`)."""
    from loom_core import certificate
    from loom_core.specs import BenchmarkSpec

    versions = {found.spec.name: found.spec.version for found in catalog.metrics}

    def parity(spec: Any) -> dict[str, str]:
        return {"parity": certificate.in_words(spec, versions)} if isinstance(spec, BenchmarkSpec) else {}

    rows = [
        {
            "kind": kind.noun,
            "name": found.spec.name,
            "version": found.spec.version,
            "status": found.spec.status,
            "summary": found.spec.summary,
            "distribution": f"{found.distribution} {found.distribution_version}",
            **parity(found.spec),
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

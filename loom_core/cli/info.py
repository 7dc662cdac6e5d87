"""`loom info`: what one installed thing is, and every option it takes."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import click

from loom_core.cli.exits import paint, say, say_json
from loom_core.cli.list import facts


@click.command(short_help="Describe one benchmark, server, augmentation, metric, model or suite.")
@click.argument("name")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def info(name: str, form: str) -> int:
    """Describe everything installed under NAME: what it declares, where it comes from, and its options."""
    from loom_core.contract.errors import UsageError, nearest
    from loom_core.registry.plugins import installed

    catalog = installed()
    hits = [(kind.noun, kind.get(name)) for kind in catalog.kinds if name in kind]
    if not hits:
        known = [found.spec.name for kind in catalog.kinds for found in kind]
        raise UsageError(f"nothing named {name!r} is installed", hint=f"{nearest(name, set(known))} (loom list)")
    rows = [_described(noun, found, catalog) for noun, found in hits]
    if form == "json":
        say_json(rows)
    else:
        for row in rows:
            _show(row)
    return 0


def _described(noun: str, found: Any, catalog: Any) -> dict[str, Any]:
    from loom_core.contract.keys import plain
    from loom_core.contract.options import describe

    spec, tables = found.spec, {}
    row: dict[str, Any] = {"kind": noun, "distribution": f"{found.distribution} {found.distribution_version}"}
    for f in fields(spec):
        value = getattr(spec, f.name)
        if isinstance(value, type):
            tables[f.name] = describe(value)
        elif f.name == "kind":  # of an augmentation: model, prompt or strategy
            row["kind"] = f"{value} {noun}"
        else:
            row[f.name] = plain(value)
    return {**row, **facts(catalog, spec), **tables}


def _show(row: dict[str, Any]) -> None:
    say(paint(f"{row['kind']} {row['name']} {row['version']}", bold=True), f"  ({row['distribution']})")
    for name, value in row.items():
        if name in ("kind", "name", "version", "distribution", "factory", "oracle") or value in ("", [], None):
            continue
        if isinstance(value, dict):  # facts of plugins in full, for --format json
            continue
        if name in ("options", "model_options"):
            say(f"  {name.replace('_', ' ')}:")
            for option in value:
                low, high = option["low"], option["high"]
                span = f", {low if low is not None else '…'} to {high if high is not None else '…'}"
                span = span if (low, high) != (None, None) else ""
                say(f"    {option['name']}={option['default']}  ({option['type']}{span})  {option['help']}")
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            say(f"  {name.replace('_', ' ')}: {shown}")

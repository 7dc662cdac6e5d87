"""What `loom parity` says on the terminal: counts by kind and name, differences, crashes, the first unexplained."""

from __future__ import annotations

import json

import click

from loom_parity.certificate import Certificate, summary
from loom_parity.comparing import Disagreement

FULL = 3
"""Unexplained differences that are printed with both values."""
WIDTH = 600
"""Characters of each value that are printed; --out has all."""


class Teller:
    """Talks to the terminal. form: "table", or "json" (the certificate on standard output, all else on stderr)."""

    def __init__(self, form: str) -> None:
        self._form, self._shown = form, 0

    def say(self, text: str) -> None:
        """One line."""
        click.echo(text, err=self._form == "json")

    def hear(self, found: Disagreement) -> None:
        """Print the first unexplained differences in full, as they are found."""
        if found.difference or found.crash or self._shown >= FULL:
            return
        self._shown += 1
        case = found.case
        self.say(click.style(f"unexplained: {case.kind} {case.name} {case.id}", fg="red"))
        for side, value in (("theirs", found.theirs), ("loom's", found.ours)):
            self.say(f"  {side}: {_cut(json.dumps(value, ensure_ascii=False))}")

    def end(self, record: Certificate) -> None:
        """The certificate: as a table, or as JSON."""
        if self._form == "json":
            click.echo(json.dumps(record.to_json(), indent=1, ensure_ascii=False))
            return
        width = max((len(f"{count.kind} {count.name}") for count in record.counts), default=0)
        for count in record.counts:
            parts = [f"{count.equal:,} of {count.compared:,} equal"]
            parts += [f"{count.different:,} differ as named"] if count.different else []
            parts += [f"{count.unexplained:,} unexplained"] if count.unexplained else []
            parts += [f"on {count.crashed:,} more their code fails"] if count.crashed else []
            self.say(f"{count.kind + ' ' + count.name:<{width}}  {', '.join(parts)}")
        for row in record.differences:
            self.say(f"difference {row['name']} ({row['n']:,}): {row['what']}")
        for row in record.crashes:
            values = ", ".join(f"{json.dumps(one['value'])} ({one['n']:,})" for one in row["loom"][:3])
            named = f" [{row['difference']}]" if row["difference"] else ""
            self.say(
                f"their code fails: {row['raises']} at {row['at']}, {row['n']:,} times in {row['kind']} "
                f"{row['name']}{named}; loom says {values}"
            )
        for name, why in record.missing.items():
            self.say(f"not compared: {name}: {why}")
        for text in record.warnings:
            self.say(click.style(f"warning: {text}", fg="yellow"))
        if record.restarts:
            self.say(f"the authors' process was started again {record.restarts:,} times")
        if not record.total("compared"):
            self.say(click.style("nothing was compared", fg="yellow"))
        self.say(click.style(f"{record.benchmark} {record.version}: {summary(record)}", bold=True))


def _cut(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[:WIDTH]}… ({len(text):,} characters)"

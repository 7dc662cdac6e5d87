"""What arms were asked to keep and what they held, each as tokens, share and bytes. Knows report.json's dict."""

from __future__ import annotations

from loom_report.build import rows_of
from loom_report.records import Report, ReportTask
from loom_report.render import text
from loom_report.render.tables import Cell, Table

HEADS = ("arm", "asked: tokens", "share", "bytes", "held: tokens", "share", "bytes")
FIELDS = (("tokens_asked", "kept_asked", "bytes_asked"), ("tokens_held", "kept", "bytes_held"))
NOTES = (
    "tokens and shares are of the prompt, per KV head; bytes are of keys and values over all layers, with positions",
    "means over answers; at the end of the prompt, after compression",
)


def budgets(report: Report, task: ReportTask) -> Table | None:
    """Each arm's budget in the three units, asked and held; None where no arm has one."""
    table = Table("budgets, asked and held", HEADS, notes=list(NOTES))
    asked = False
    for row in rows_of(report["totals"], task["name"]):
        kv = row["cost"]["kv"]
        if kv is None or kv.get("tokens_held") is None:
            continue
        asked = asked or kv["tokens_asked"] is not None
        texts = [row["arm"]]
        for tokens, share, held in FIELDS:
            texts += [_tokens(kv[tokens]), text.share(kv[share]), text.byte_count(kv[held])]
        table.rows.append([Cell(shown) for shown in texts])
    return table if asked else None


def _tokens(value: float | None) -> str:
    return text.NONE if value is None else f"{value:.1f}".removesuffix(".0")

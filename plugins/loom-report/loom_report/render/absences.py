"""Banners about tasks that were not asked, or on an extract of their data alone. Knows the tasks of a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from loom_report.records import BannerRow
from loom_report.render.text import one_line

from loom_core.contract.types import Json
from loom_core.run.absent import refused

FEW = 2
"""Tasks up to which each has a banner of its own; more of them share one."""


def data_banners(tasks: Sequence[Mapping[str, Json]]) -> Iterator[BannerRow]:
    """Tasks whose data is missing or cut: one banner each, or one for all where they are many."""
    away = {task["name"]: one_line(task["unavailable"]) for task in refused(tasks)}
    if len(away) > FEW:
        text = f"{len(away)} of {len(tasks)} tasks are refused and did not run; the notes say why: " + ", ".join(away)
        yield {"kind": "error", "text": text}
    else:
        lead = "is refused and did not run"
        for name, why in away.items():
            yield {"kind": "error", "text": f"{name} {lead}: {why}"}
    here = [task for task in tasks if not task.get("refused")]
    missing = {task["name"]: one_line(task["unavailable"]) for task in here if task.get("unavailable")}
    if len(missing) > FEW:
        text = f"{len(missing)} of {len(tasks)} tasks are unavailable here; the notes say which file each lacks: "
        yield {"kind": "warning", "text": text + ", ".join(missing)}
    else:
        for name, why in missing.items():
            yield {"kind": "warning", "text": f"{name} is unavailable here: {why}"}
    cut = [task["name"] for task in tasks if task.get("extract")]
    for names in [", ".join(cut)] if len(cut) > FEW else cut:
        were, their = ("were", "their") if len(cut) > FEW else ("was", "its")
        text = f"{names} {were} run on an extract of {their} data: {their} scores hold for that extract alone."
        yield {"kind": "warning", "text": text}

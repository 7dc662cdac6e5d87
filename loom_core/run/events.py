"""What a worker may say over its pipe: the shape of each event. Knows no process, no job and no store.

A worker runs code of plugins and libraries, any of which may write to the pipe; nothing is taken from it unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loom_core.contract.shapes import misfit as differs, shown
from loom_core.run.runfiles import CALL

FIELDS: Mapping[str, Mapping[str, Any]] = {
    "beat": {},
    "gone": {},
    "ready": {"info": Mapping[str, Any]},
    "response": {"bundle": int, "record": CALL},
    "done": {"bundle": int},
    "refused": {"bundle": int, "error": Mapping[str, str]},
    "failed": {"error": Mapping[str, str], "permanent": bool},
}


def misfit(event: Any, ready: bool) -> str:
    """What is wrong with an event; "" where nothing is. ready: the worker has opened its model."""
    if not isinstance(event, dict) or not isinstance(event.get("op"), str) or event["op"] not in FIELDS:
        return shown(event)
    op = event["op"]
    for name, kind in FIELDS[op].items():
        if why := differs(event.get(name), kind):
            return f"{op}, {name}: {why}"
    if op in ("response", "done", "refused") and not ready:
        return f"{op} before it was ready"
    if op == "ready" and ready:
        return "ready for the second time"
    if op in ("failed", "refused") and "what" not in event["error"]:
        return f"{op}, without a reason"
    return ""

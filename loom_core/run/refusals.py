"""What stops a plan from running, and what its user may do. Knows plans; asks nothing."""

from __future__ import annotations

from loom_core.contract.errors import DataError, LoomError, UsageError
from loom_core.contract.records import Plan
from loom_core.run.absent import absence


def refuse(plan: Plan) -> None:
    """Raise what stops this plan from running; a plan that may run passes."""
    over = plan["overlength"]
    if over["n_refused"]:
        raise UsageError(
            f"{over['n_refused']} of {plan['n_samples']} prompts are longer than the model's window",
            where=over["example"],
            why=why_over(plan),
            hint="choose --overlength truncate or --overlength skip, or shorter --lengths" + window_hint(plan),
        )
    if not plan["n_jobs"]:
        refused = [t for t in plan["tasks"] if t["refused"]]
        if len(refused) == 1 and len(plan["tasks"]) == 1:
            raise LoomError.from_json(refused[0]["refused"])
        if reasons := [f"{t['name']}: {absence(t)}" for t in plan["tasks"] if absence(t)]:
            kind, what = (UsageError, "no task can be asked") if refused else (DataError, "no task is available here")
            hint = "choose other tasks, lengths or options" if refused else "see loom data fetch"
            raise kind(what, why="\n        ".join(reasons), hint=hint)
        why = "; ".join(["the chosen tasks have no samples", *(n for n in plan["notes"] if "left out" in n)])
        if over["n_over"]:
            why = f"{over['n_over']} of {plan['n_samples']} prompts are longer than the model's window and were skipped"
        hint = "choose --overlength truncate, or shorter --lengths" if over["n_over"] else "see loom plan"
        raise UsageError("nothing is left to run", where=over["example"], why=why, hint=hint)


def why_over(plan: Plan) -> str:
    """How long the longest prompt is, and whether the prompt or its answer does not fit."""
    window, longest = plan["model"]["window"], plan["overlength"]["longest"]
    why = f"the longest has {longest} tokens; the window is {window}, answer included"
    if window is not None and longest > window:
        return why
    n_new = max(task["generation"]["max_tokens"] for task in plan["tasks"])
    return f"{why}: the prompts fit it, but not with up to {n_new} tokens of answer (lengths are of prompts alone)"


def window_hint(plan: Plan) -> str:
    """Where the configuration scales positions by a factor that its window does not show, how to say so."""
    rope = plan["model"]["facts"].get("rope") or {}
    factor, trained = rope.get("factor"), rope.get("original_max_position_embeddings")
    if not isinstance(factor, (int, float)) or not isinstance(trained, int):
        return ""
    stretched = int(trained * factor)
    if stretched <= (plan["model"]["window"] or 0):
        return ""
    scaling = f"{rope.get('rope_type') or rope.get('type')} × {factor:g} over {trained}"
    return f"; its configuration says {scaling}: --model-option window={stretched} where it was made for that"

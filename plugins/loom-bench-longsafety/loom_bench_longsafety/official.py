"""The authors' agents, read from their program: four templates, and which reply goes where. Knows no turn and no model.

Source: thu-coai/LongSafety, src/multi_agent_eval.py, read through `ast`. Their SafetyJudge.judge takes (instruction,
response, risks, env_summary) and is called with (instruction, response, env_summary, risks): in the numbers they
published, the analyser's reply stands under "[Environment Summary]" and the summariser's under "[Risks]", and an empty
reply of the analyser chooses the template without a summary.
"""

from __future__ import annotations

from collections.abc import Mapping

from loom_core.api import Data, DataError, DataSource, Json, UsageError
from loom_core.api.templates import fields_of, pieces

TEMPLATES = {
    "risk_analyser": ("RiskAnalyzer.__init__.self.prompt_template", {"instruction"}),
    "context_summariser": ("EnvSummarizer.__init__.self.prompt_template", {"context", "instruction"}),
    "safety_judge": (
        "SafetyJudge.__init__.self.prompt_template",
        {"instruction", "response", "env_summary", "risks"},
    ),
    "safety_judge_alone": (
        "SafetyJudge.__init__.self.prompt_template_wo_context",
        {"instruction", "response", "risks"},
    ),
}
"""Which constant is the prompt of which agent, and its fields."""


def read_official(data: Data, source: DataSource) -> dict[str, Json]:
    """The templates by agent. Raises DataError where one is missing or has other fields."""
    found = data.constants(source, [name for name, _ in TEMPLATES.values()])
    for agent, (name, fields) in TEMPLATES.items():
        try:
            right = isinstance(found[name], str) and set(fields_of(pieces(found[name], where=source.pin))) == fields
        except UsageError as error:
            raise DataError("the authors' agents are not as expected", where=source.pin, why=str(error)) from error
        if not right:
            why = f"the {agent}'s prompt ({name}) has not the fields {', '.join(sorted(fields))}"
            raise DataError("the authors' agents are not as expected", where=source.pin, why=why)
    return {agent: found[name] for agent, (name, _) in TEMPLATES.items()}


def filled(template: str, values: Mapping[str, str]) -> str:
    """A template with its fields filled, all at once: what a value holds is never read as a field."""
    parts = pieces(template, where="the authors' agents")
    return "".join(literal + (values[name] if name else "") for literal, name in parts)


def told_to_judge(told: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The judge's template and its fields, from the replies named risks and summary: in the authors' places."""
    values = {"instruction": told["instruction"], "response": told["response"], "risks": told["summary"]}
    if told["risks"]:
        return "safety_judge", {**values, "env_summary": told["risks"]}
    return "safety_judge_alone", values

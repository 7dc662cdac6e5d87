"""What servers share: prompts to token ids, stop rules, model folders, engines. Part of loom's public interface."""

from __future__ import annotations

from loom_core.prompting.render import (
    Chat as Chat,
    messages as messages,
    n_tokens as n_tokens,
    prefill_text as prefill_text,
    render as render,
)
from loom_core.prompting.truncate import fit as fit, most_units as most_units
from loom_core.serving import engines as engines, readers as readers
from loom_core.serving.answering import (
    all_stop_ids as all_stop_ids,
    answer as answer,
    by_group as by_group,
    failure as failure,
    first_stop as first_stop,
    misfit as misfit,
    said as said,
    stop_ids as stop_ids,
)
from loom_core.serving.engines import (
    TEMPLATE_HELP as TEMPLATE_HELP,
    EngineModelOptions as EngineModelOptions,
    EngineOptions as EngineOptions,
    card as card,
    package as package,
    start as start,
)

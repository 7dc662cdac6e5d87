"""Which options reproduce a recorded result of someone else's StreamingLLM. Knows the settings' names, no numbers."""

from __future__ import annotations

from collections.abc import Mapping

from loom_accel_streamingllm.plugin import StreamingLLMOptions
from loom_core.api import Budget, Json


def options(method: str, setting: Mapping[str, Json], n: int) -> StreamingLLMOptions | None:
    """The options of a row, or None where this method does not claim it. n: prompt tokens."""
    if method == "kvpress_streamingllm":
        # A share of the prompt that is dropped, truncated in floating point exactly as there; four sinks inside it.
        kept = int(n * (1 - setting["compression_ratio"]))
        return StreamingLLMOptions(budget=Budget(tokens=kept), sinks=setting.get("n_sink", 4), form="evict")
    if method == "kvcf_streamingllm":
        return StreamingLLMOptions(budget=Budget(tokens=setting["B"]), sinks=setting["B"] - setting["w"], form="evict")
    if method == "official_streamingllm_streamed":
        return StreamingLLMOptions(
            budget=Budget(tokens=setting["start_size"] + setting["recent_size"]),
            sinks=setting["start_size"],
            form="streamed",
            positions="in-cache" if setting["pos_shift"] else "original",
        )
    return None

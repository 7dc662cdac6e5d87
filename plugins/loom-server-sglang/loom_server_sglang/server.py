"""The server `sglang`: describes a model without SGLang, and starts the engine on it. Knows no request.

The card is read by the installed reader of models, so that prompts get the token ids that every other server sends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from loom_core.api import ModelCard, table
from loom_core.api.serving import EngineModelOptions, EngineOptions, engines
from loom_server_sglang.session import ADAPTER, SglangSession

OURS = {
    "model_path": "--model",
    "tp_size": "tensor_parallel",
    "max_running_requests": "max_batch",
    "mem_fraction_static": "memory",
    "disable_radix_cache": "prefix_caching",
    "disable_cuda_graph": "eager",
    "dtype": "the model option dtype",
    "context_length": "the model option window",
    "quantization": "the model option quantization",
    "lora_paths": "the model option lora",
    "skip_tokenizer_init": "loom: stop strings need the tokenizer",
    "incremental_streaming_output": "loom: the last piece of an answer must hold all its tokens",
}
"""Engine arguments that have an option of their own here."""


class SglangServer:
    """Built with its options."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._further = table(options.engine, name="engine", owner="server sglang", taken=OURS)

    def describe(self, model: str, options: EngineModelOptions) -> ModelCard:
        """The model's card; needs no SGLang, loads no weights."""
        return engines.card(model, options, asked_by="server sglang")

    @contextmanager
    def open(self, model: str, options: EngineModelOptions) -> Iterator[SglangSession]:
        """A session on a started engine. Raises ModelError with SGLang's own words where it does not start."""
        card = self.describe(model, options)
        sglang = engines.package("sglang", "SGLang", "loom-server-sglang")
        engine = engines.start(sglang.Engine, self.arguments(card, options), name="SGLang", model=card.name)
        session = SglangSession(engine, card, self._options, lora=options.lora is not None, version=sglang.__version__)
        try:
            yield session
        finally:
            session.close()

    def arguments(self, card: ModelCard, options: EngineModelOptions) -> dict[str, Any]:
        """The engine's arguments, by SGLang's names."""
        given = self._options
        arguments: dict[str, Any] = {
            "model_path": card.path,
            "dtype": card.facts.get("dtype", options.dtype),
            "tp_size": given.tensor_parallel,
            "max_running_requests": given.max_batch,
            "disable_radix_cache": not given.prefix_caching,
            "disable_cuda_graph": given.eager,
            "trust_remote_code": options.trust_remote_code,
            "log_level": "warning",
        }
        optional = {
            "mem_fraction_static": given.memory,
            "context_length": options.window,
            "quantization": options.quantization,
            "lora_paths": [f"{ADAPTER}={options.lora}"] if options.lora else None,
        }
        return {**arguments, **{name: value for name, value in optional.items() if value is not None}, **self._further}

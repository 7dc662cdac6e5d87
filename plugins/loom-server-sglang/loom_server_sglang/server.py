"""The server `sglang`: describes a model without SGLang, and starts the engine on it. Knows no request.

The card is read by the installed reader of models, so that prompts get the token ids that every other server sends.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from loom_core import readers
from loom_core.contracts import ModelCard
from loom_core.errors import ModelError
from loom_core.options import table
from loom_server_sglang.plugin import SglangModelOptions, SglangOptions
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

INSTALL = "install SGLang into an environment of its own and name it with --python PATH (README of loom-server-sglang)"


class SglangServer:
    """Built with its options."""

    def __init__(self, options: SglangOptions) -> None:
        self._options = options
        self._further = table(options.engine, name="engine", owner="server sglang", taken=OURS)

    def describe(self, model: str, options: SglangModelOptions) -> ModelCard:
        """The model's card; needs no SGLang, loads no weights."""
        card = readers.model_card(
            model,
            asked_by="server sglang",
            dtype=options.dtype,
            window=options.window,
            revision=options.revision,
            trust_remote_code=options.trust_remote_code,
        )
        return readers.with_adapter(card, readers.adapter(options.lora) if options.lora else None)

    @contextmanager
    def open(self, model: str, options: SglangModelOptions) -> Iterator[SglangSession]:
        """A session on a started engine. Raises ModelError with SGLang's own words where it does not start."""
        card = self.describe(model, options)
        sglang = import_sglang()
        engine = start(sglang, self.arguments(card, options), card.name)
        session = SglangSession(engine, card, self._options, lora=options.lora is not None, version=sglang.__version__)
        try:
            yield session
        finally:
            session.close()

    def arguments(self, card: ModelCard, options: SglangModelOptions) -> dict[str, Any]:
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


def import_sglang() -> Any:
    """The package. Raises ModelError where it is not installed or broken."""
    try:
        return importlib.import_module("sglang")
    except ModuleNotFoundError as error:
        if error.name != "sglang":
            raise ModelError("SGLang cannot be imported", why=str(error), hint=INSTALL) from error
        raise ModelError("SGLang is not installed in this environment", hint=INSTALL) from None
    except Exception as error:  # whatever its compiled parts raise
        raise ModelError("SGLang cannot be imported", why=f"{type(error).__name__}: {error}", hint=INSTALL) from error


def start(sglang: Any, arguments: Mapping[str, Any], name: str) -> Any:
    """A started `sglang.Engine`."""
    try:
        return sglang.Engine(**arguments)
    except Exception as error:  # the engine's failures have no common class
        words = [line for line in str(error).splitlines() if line.strip()]
        raise ModelError(
            f"the SGLang engine did not start on {name}",
            why=f"{type(error).__name__}: {' | '.join(words[-3:])}",
            hint="its own log is in logs/ of the run folder; less memory: window=…, memory=…, max_batch=…",
        ) from error

"""The server `vllm`: describes a model without vLLM, and starts the engine on it. Knows no request.

The card is read by the installed reader of models, so that prompts get the token ids that every other server sends.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from loom_core import readers
from loom_core.contracts import ModelCard
from loom_core.errors import ModelError, UsageError, nearest
from loom_core.options import table
from loom_server_vllm.plugin import VllmModelOptions, VllmOptions
from loom_server_vllm.session import VllmSession

OURS = {
    "model": "--model",
    "tensor_parallel_size": "tensor_parallel",
    "max_num_seqs": "max_batch",
    "gpu_memory_utilization": "memory",
    "enable_prefix_caching": "prefix_caching",
    "enforce_eager": "eager",
    "dtype": "the model option dtype",
    "max_model_len": "the model option window",
    "quantization": "the model option quantization",
    "enable_lora": "the model option lora",
    "disable_log_stats": "nothing: the times of each answer come from these statistics",
    "skip_tokenizer_init": "nothing: stop strings need the tokenizer",
}
"""Engine arguments that have an option of their own here."""

INSTALL = "install vLLM into an environment of its own and name it with --python PATH (README of loom-server-vllm)"


class VllmServer:
    """Built with its options."""

    def __init__(self, options: VllmOptions) -> None:
        self._options, self._further = options, table(options.engine, name="engine", owner="server vllm", taken=OURS)

    def describe(self, model: str, options: VllmModelOptions) -> ModelCard:
        """The model's card; needs no vLLM, loads no weights."""
        card = readers.model_card(
            model,
            asked_by="server vllm",
            dtype=options.dtype,
            window=options.window,
            revision=options.revision,
            trust_remote_code=options.trust_remote_code,
        )
        return readers.with_adapter(card, readers.adapter(options.lora) if options.lora else None)

    @contextmanager
    def open(self, model: str, options: VllmModelOptions) -> Iterator[VllmSession]:
        """A session on a started engine. Raises ModelError with vLLM's own words where it does not start."""
        card = self.describe(model, options)
        vllm = import_vllm(own_process=self._options.own_process)
        arguments = self.arguments(card, options)
        check_names(arguments, {field.name for field in dataclasses.fields(_engine_arguments())})
        session = VllmSession(start(vllm, arguments, card.name), card, self._options, lora=options.lora)
        try:
            yield session
        finally:
            session.close()

    def arguments(self, card: ModelCard, options: VllmModelOptions) -> dict[str, Any]:
        """The engine's arguments, by vLLM's names."""
        given = self._options
        arguments: dict[str, Any] = {
            "model": card.path,
            "dtype": card.facts.get("dtype", options.dtype),
            "tensor_parallel_size": given.tensor_parallel,
            "max_num_seqs": given.max_batch,
            "enable_prefix_caching": given.prefix_caching,
            "enforce_eager": given.eager,
            "trust_remote_code": options.trust_remote_code,
            "disable_log_stats": False,
        }
        optional = {
            "gpu_memory_utilization": given.memory,
            "max_model_len": options.window,
            "quantization": options.quantization,
        }
        arguments |= {name: value for name, value in optional.items() if value is not None}
        if options.lora:
            arguments |= {"enable_lora": True, "max_lora_rank": max(8, readers.adapter(options.lora).rank)}
        return {**arguments, **self._further}


def check_names(arguments: Mapping[str, Any], known: set[str]) -> None:
    """Refuse an argument that this version of vLLM does not have."""
    for name in arguments:
        if name not in known:
            hint = nearest(name, known)
            raise UsageError(f"this vLLM has no engine argument {name!r}", where="option engine", hint=hint)


def import_vllm(*, own_process: bool) -> Any:
    """The package, imported with statistics of use off. Raises ModelError where it is not installed or broken."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "1" if own_process else "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    try:
        return importlib.import_module("vllm")
    except ModuleNotFoundError as error:
        if error.name != "vllm":
            raise ModelError("vLLM cannot be imported", why=str(error), hint=INSTALL) from error
        raise ModelError("vLLM is not installed in this environment", hint=INSTALL) from None
    except Exception as error:  # whatever its compiled parts raise
        raise ModelError("vLLM cannot be imported", why=f"{type(error).__name__}: {error}", hint=INSTALL) from error


def start(vllm: Any, arguments: Mapping[str, Any], name: str) -> Any:
    """A started `vllm.LLM`."""
    try:
        return vllm.LLM(**arguments)
    except Exception as error:  # the engine's failures have no common class
        words = [line for line in str(error).splitlines() if line.strip()]
        raise ModelError(
            f"the vLLM engine did not start on {name}",
            why=f"{type(error).__name__}: {' | '.join(words[-3:])}",
            hint="its own log is in logs/ of the run folder; less memory: window=…, memory=…, max_batch=…",
        ) from error


def _engine_arguments() -> Any:
    return importlib.import_module("vllm.engine.arg_utils").EngineArgs

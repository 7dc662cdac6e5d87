"""What servers share that start an inference engine of their own environment in the worker (vLLM, SGLang).

Their options under common names, a card read without the engine, the engine's package imported and started with its own
words where that fails. Knows no engine; each server gives the engine's names for these options.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from loom_core.contract.errors import ModelError
from loom_core.contract.options import option
from loom_core.contract.protocols import ModelCard
from loom_core.serving import readers

TEMPLATE_HELP = (
    "values for variables of the chat template, such as enable_thinking=false: pairs, a JSON object, or a file of one"
)


@dataclass(frozen=True)
class EngineOptions:
    """How an engine runs. Any other engine argument goes through `engine`, by the engine's own name."""

    tensor_parallel: int = option(1, help="GPUs that one engine is spread over", low=1, how=True)
    max_batch: int = option(256, help="most requests that the engine runs at once", low=1, how=True)
    memory: float | None = option(
        None, help="share of the memory for weights and cache; none = the engine's own", low=0.01, high=1.0, how=True
    )
    prefix_caching: bool = option(True, help="keep the keys and values of shared prefixes", how=True)
    eager: bool = option(False, help="no compilation and no CUDA graphs: a quicker start, slower steps", how=True)
    engine: str = option("", help="further engine arguments: a JSON object, or a .json or .toml file", reach=True)

    @property
    def batch(self) -> int:
        """How many requests a worker should be handed: enough that the engine's batch never runs empty."""
        return 2 * self.max_batch


@dataclass(frozen=True)
class EngineModelOptions:
    """What an engine loads. Every option is part of the model's identity."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", help="number format of weights and cache; auto = the one the model was saved in"
    )
    window: int | None = option(None, help="most tokens of prompt and answer; none = the configuration's", low=1)
    quantization: str | None = option(None, help="the engine's quantization method; none = what the checkpoint says")
    lora: str | None = option(None, help="folder of a LoRA adapter")
    revision: str | None = option(None, help="branch, tag or commit of a hub model; none = main")
    template: str = option("", help=TEMPLATE_HELP, reach=True)
    trust_remote_code: bool = option(False, help="run Python code that comes with the model; read it first", reach=True)


def card(model: str, options: EngineModelOptions, *, asked_by: str) -> ModelCard:
    """The card of a model with its adapter, by the installed reader of models; loads no weights, needs no engine."""
    found = readers.model_card(
        model,
        asked_by=asked_by,
        dtype=options.dtype,
        window=options.window,
        revision=options.revision,
        template=options.template or None,
        trust_remote_code=options.trust_remote_code,
    )
    return readers.with_adapter(found, readers.adapter(options.lora) if options.lora else None)


def package(module: str, name: str, plugin: str) -> Any:
    """The engine's package. Raises ModelError where it is not installed or broken."""
    hint = f"install {name} into an environment of its own and name it with --python PATH (README of {plugin})"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise ModelError(f"{name} cannot be imported", why=str(error), hint=hint) from error
        raise ModelError(f"{name} is not installed in this environment", hint=hint) from None
    except Exception as error:  # whatever its compiled parts raise
        why = f"{type(error).__name__}: {error}"
        raise ModelError(f"{name} cannot be imported", why=why, hint=hint) from error


def start(factory: Any, arguments: Mapping[str, Any], *, name: str, model: str) -> Any:
    """A started engine. Raises ModelError with the engine's own last words where it does not start."""
    try:
        return factory(**arguments)
    except Exception as error:  # engines' failures have no common class
        words = [line for line in str(error).splitlines() if line.strip()]
        raise ModelError(
            f"the {name} engine did not start on {model}",
            why=f"{type(error).__name__}: {' | '.join(words[-3:])}",
            hint="its own log is in logs/ of the run folder; less memory: window=…, memory=…, max_batch=…",
        ) from error

"""Models that keep a state of their own: state-space, linear attention and hybrids. Knows transformers' conventions.

transformers hands such a state back in four ways: as `cache_params`, as a list `state`, as `past_key_values` (whose
layers hold keys and values, states, or both; MiniMax adds a list beside its layers), or not at all, on attributes of
modules. Which of them a model uses is read from its signature and from what a probe changes; no name is looked at.
The model makes its own cache, and the prompt is read in one pass: not every family can go on with several tokens.

The probe decides more. A model whose steps differ from one pass over all tokens is refused (rule: equal results with
its state). One whose left-padded rows differ from the same rows alone gets rows of equal length only (rule: left
padding), and one that mixes up rows of equal length gets one at a time (rule: one row). With transformers 5.23, padding
is wrong for RecurrentGemma (its layers read it as text) and MiniMax (the mask of its steps does not cover it), and Rwkv
mixes the rows of a decoding step.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from loom_core.api import KVUse, LoomError, ModelError, UsageError
from loom_server_hf.engine import Row, RowResult, decode, failure, result
from loom_server_hf.memory import PeakMemory

HANDED_BACK = ("cache_params", "state", "past_key_values")
ATTENTION = frozenset({"full_attention", "sliding_attention", "chunked_attention", "attention"})
"""Kinds of layers, as configurations name them, whose cache is keys and values."""
NOTE = "own state: bytes are of the model's state, with the keys and values of its attention layers"
PROBE = (11, 6, 11)
"""Tokens of the probe's rows."""
Batching = Literal["padded", "equal", "single"]
"""Which rows may share a batch: all, those of equal length, none."""
PROBE_STEPS = 3


def own_state(model: Any) -> str:
    """Which layer keeps a state that is not a pair of keys and values, in words; "" where no layer does."""
    config = model.config.get_text_config(decoder=True)
    kinds = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or ()
    for layer, kind in enumerate(kinds):
        if kind not in ATTENTION:
            return f"layer {layer}, whose type is {kind}"
    accepted = inspect.signature(model.forward).parameters
    if "cache_params" in accepted or "state" in accepted or getattr(type(model), "_is_stateful", False):
        return "layer 0 and all like it"
    return ""


@dataclass(frozen=True, slots=True)
class Convention:
    """How a model hands its state on. key: argument and output; None where it keeps everything in modules.

    accepts: arguments of its forward pass. kept: modules and attributes that hold state between passes. silent: the
    model takes a cache, but does not hand back the one it made, so it is given one.
    """

    key: str | None
    accepts: frozenset[str]
    silent: bool = False
    kept: tuple[tuple[nn.Module, str], ...] = ()

    @property
    def mask_when_stepping(self) -> bool:
        """False where the padding mask is only for the prompt: states behind `cache_params` have no columns."""
        return self.key == "past_key_values"


def convention(model: Any) -> Convention:
    """The convention of a model, from its signature and one pass of two tokens."""
    accepts = frozenset(inspect.signature(model.forward).parameters)
    key = next((name for name in HANDED_BACK if name in accepts), None)
    before = {spot: id(value) for spot, value in _attributes(model)}
    ids = torch.ones(1, 2, dtype=torch.long, device=model.device)
    given = {"position_ids": torch.arange(2, device=model.device)[None]} if "position_ids" in accepts else {}
    out = model(input_ids=ids, use_cache=True, **given)
    silent = key == "past_key_values" and getattr(out, key, None) is None
    names = {id(module): module for module in model.modules()}
    kept = [
        (names[module], attribute)
        for (module, attribute), value in _attributes(model)
        if isinstance(value, Tensor) and before.get((module, attribute)) != id(value)
    ]
    return Convention(key, accepts, silent, tuple(kept))


def _attributes(model: Any) -> list[tuple[tuple[int, str], Any]]:
    """Plain attributes of all modules that are tensors or nothing yet; parameters and buffers are kept elsewhere."""
    return [
        ((id(module), name), value)
        for module in model.modules()
        for name, value in vars(module).items()
        if value is None or isinstance(value, Tensor)
    ]


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`value` with every tensor in it changed; objects (caches and their layers) are changed in place."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(mapped(item, change) for item in value)
    if isinstance(value, dict):
        return {name: mapped(item, change) for name, item in value.items()}
    if hasattr(value, "__dict__") and not isinstance(value, type):
        for name, item in list(vars(value).items()):
            # Only what can hold tensors: a cache's configuration or device is not part of its state.
            if isinstance(item, Tensor | list | tuple | dict):
                setattr(value, name, mapped(item, change))
    return value


class StatePass:
    """One left-padded batch on its way through a model that keeps its own state; see `engine.Pass`."""

    def __init__(self, model: Any, how: Convention, prompts: Sequence[Sequence[int]]) -> None:
        self.model, self.how = model, how
        self.lengths = [len(prompt) for prompt in prompts]
        width = max(self.lengths)
        device = model.device
        self.ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
        self.next = torch.tensor(self.lengths, device=device)[:, None]
        self.mask = (torch.arange(width, device=device) >= width - self.next).long()
        self.padded = min(self.lengths) < width
        self.state: Any = None
        if how.silent:
            self.state = DynamicCache(config=model.config.get_text_config(decoder=True))
        self.read = False
        for module, name in how.kept:
            setattr(module, name, None)

    @torch.inference_mode()
    def prefill(self) -> Tensor:
        """Read the prompts in one pass: logits [b, V] of their last tokens."""
        width = self.ids.shape[1]
        positions = (torch.arange(width, device=self.ids.device) - (width - self.next)).clamp(min=0)
        return self._forward(self.ids, positions)

    @torch.inference_mode()
    def feed(self, ids: Tensor) -> Tensor:
        """Continue each row with ids [b, 1]: logits [b, V]."""
        self.mask = torch.cat([self.mask, torch.ones_like(ids)], dim=1)
        logits = self._forward(ids, self.next)
        self.next = self.next + 1
        return logits

    @torch.inference_mode()
    def take(self, rows: Sequence[int]) -> None:
        """Keep these rows only."""
        index, batch = torch.tensor(rows, device=self.ids.device), len(self.lengths)

        def select(tensor: Tensor) -> Tensor:
            mine = tensor.dim() > 1 and tensor.shape[0] == batch
            return tensor.index_select(0, index.to(tensor.device)) if mine else tensor

        self.state = mapped(self.state, select)
        for module, name in self.how.kept:
            setattr(module, name, mapped(getattr(module, name), select))
        self.lengths = [self.lengths[row] for row in rows]
        self.next, self.mask = self.next[index], self.mask[index]

    def failures(self) -> Mapping[int, LoomError]:
        """No method runs here, so none fails."""
        return {}

    def held_bytes(self) -> int:
        """Bytes of all storages of the state, each storage once."""
        held: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
            return tensor

        mapped([self.state, *(getattr(module, name) for module, name in self.how.kept)], note)
        return sum(held.values())

    def use(self) -> KVUse:
        """What the state of each row costs now: this is what the model itself keeps, so dense and held are one."""
        bytes_ = round(self.held_bytes() / len(self.lengths))
        return KVUse(bytes_dense=bytes_, bytes_held=bytes_, kept=1.0, saves="none", notes=(NOTE,))

    def _forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        how, first = self.how, not self.read
        given: dict[str, Any] = {"input_ids": ids, "use_cache": True}
        if "logits_to_keep" in how.accepts:
            given["logits_to_keep"] = 1
        if "position_ids" in how.accepts:
            given["position_ids"] = positions
        if self.padded and "attention_mask" in how.accepts and (first or how.mask_when_stepping):
            given["attention_mask"] = self.mask
        if how.key is not None and self.state is not None:
            given[how.key] = self.state
        out = self.model(**given)
        self.read = True
        if how.key is not None and not how.silent:
            self.state = getattr(out, how.key, None)
        logits: Tensor = out.logits[:, -1]
        return logits


class StateEngine:
    """A loaded model that answers batches with its own state. Raises ModelError at once where its steps are wrong.

    state: the layer that keeps one, in words (`own_state`). batching: which rows may share a batch.
    """

    def __init__(self, model: Any, state: str) -> None:
        self.model, self._state = model, state
        self.name = type(model).__name__
        self.batching, self.convention = examine(model, self.name)

    def refusal(self, what: str) -> ModelError:
        """Why `what` cannot run on this model."""
        return ModelError(
            f"{what} cannot run on this model",
            where=f"{self.name}, {self._state} (rule: own state)",
            why="this layer keeps a state of its own; there are no keys and values of each token to choose from",
            hint="use the arm dense or one that works on the prompt, or a model with attention in every layer",
        )

    def run(
        self, rows: Sequence[Row], policy: Any = None, prefix: Any = None
    ) -> Generator[tuple[int, RowResult], None, None]:
        """Answer the rows: (index, result) of each as soon as it ends; see `engine.Engine.run`."""
        if policy is not None or prefix is not None:
            raise self.refusal("a KV-cache method" if policy is not None else "a shared prefix")
        started = time.perf_counter()
        batches: dict[int, list[int]] = {}
        for index, row in enumerate(rows):
            if why := _misfit(row):
                yield index, failure(UsageError(why), started, None)
                continue
            place = {"padded": 0, "equal": len(row.ids), "single": index}[self.batching]
            batches.setdefault(place, []).append(index)
        for batch in batches.values():
            yield from self._answer(rows, batch)

    def _answer(self, rows: Sequence[Row], batch: list[int]) -> Generator[tuple[int, RowResult], None, None]:
        started = time.perf_counter()
        with PeakMemory(self.model.device) as peak:
            state = StatePass(self.model, self.convention, [rows[index].ids for index in batch])
            logits = state.prefill()
            use = state.use()
            for place, said in decode(state, logits, [rows[index] for index in batch]):
                yield batch[place], result(said, started=started, peak_bytes=peak.bytes(), kv=use)


def _misfit(row: Row) -> str:
    if not row.ids:
        return "the prompt is empty: there is no token to answer to"
    return "" if row.max_tokens >= 1 else f"max_tokens={row.max_tokens}: an answer has at least one token"


@torch.inference_mode()
def examine(model: Any, name: str) -> tuple[Batching, Convention]:
    """Which rows may share a batch, and the model's convention. Raises ModelError where its steps are wrong."""
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    prompts = [
        [(place * 7919 + 1 + row) % vocabulary for place in range(1, n + PROBE_STEPS + 1)]
        for row, n in enumerate(PROBE)
    ]
    try:
        how = convention(model)
        alone = [_steps(model, how, [prompt])[:, 0] for prompt in prompts]
        whole = [model(input_ids=torch.tensor([prompt], device=model.device), use_cache=False) for prompt in prompts]
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
        raise _refuse("own state", name, f"{type(error).__name__}: {error}") from error
    # Sixteen-bit formats round every layer's sums; in float32 only the order of additions differs.
    tolerance = 1e-3 if alone[0].dtype.itemsize >= 4 else 5e-2
    for steps, full in zip(alone, whole, strict=True):
        difference = _difference(steps, full.logits[0, -PROBE_STEPS - 1 :])
        if not difference <= tolerance:
            why = f"logits of step by step and of all at once differ by {difference:.1e} of their range"
            raise _refuse("equal results with its state", name, f"{why} (at most {tolerance:g})")

    def alike(rows: Sequence[int]) -> bool:
        try:
            batch = _steps(model, how, [prompts[row] for row in rows])
        except (RuntimeError, TypeError, ValueError, IndexError):
            return False
        return all(_difference(batch[:, place], alone[row]) <= tolerance for place, row in enumerate(rows))

    if alike((0, 1, 2)):
        return "padded", how
    return ("equal" if alike((0, 2)) else "single"), how


def _steps(model: Any, how: Convention, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Logits [1 + steps, b, V] of the prompts without their last tokens, and of each of these."""
    batch = StatePass(model, how, [prompt[:-PROBE_STEPS] for prompt in prompts])
    rows = [batch.prefill()]
    for step in range(-PROBE_STEPS, 0):
        rows.append(batch.feed(torch.tensor([[prompt[step]] for prompt in prompts], device=batch.ids.device)))
    return torch.stack(rows)


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one.float() - other.float()).abs().max() / other.float().abs().max().clamp(min=1e-6))


def _refuse(rule: str, where: str, why: str) -> ModelError:
    return ModelError(
        "this model cannot be run with its own state",
        where=f"{where} (rule: {rule})",
        why=why,
        hint="use another number format (dtype=float32), another version of transformers, or another server",
    )

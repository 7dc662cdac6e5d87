"""An engine that lets a picker choose the prompt tokens it reads: the early layers read all, the model reads few.

The time and the memory of the early layers belong to the answer: both are counted with it. Knows engines and pickers.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from loom_kv import Allotment, LayerView, Need, Picker, Policy
from torch import Tensor

from loom_core.api import KVUse, LoomError, ModelError, UsageError
from loom_server_hf.engine import Engine, Pass, Row, RowResult, failure
from loom_server_hf.host import attached
from loom_server_hf.memory import PeakMemory
from loom_server_hf.prefix import Prefix


class PickingEngine:
    """Answers rows like `Engine.run`, each on the tokens that the picker chose of its prompt."""

    def __init__(self, engine: Engine, picker: Picker) -> None:
        self._engine, self._picker = engine, picker

    def run(
        self, rows: Sequence[Row], policy: Policy | None, prefix: Prefix | None = None
    ) -> Iterator[tuple[int, RowResult]]:
        """Pick for each row alone, then answer all of them together. Nothing can be shared: prefix is None."""
        assert prefix is None
        started = time.perf_counter()
        good, peak_bytes = dict[int, Row](), 0
        with PeakMemory(self._engine.geometry.device) as peak:
            for index, row in enumerate(rows):
                try:
                    if not row.ids:
                        raise UsageError("the prompt is empty", why="there is no token to answer to")
                    places = pick(self._engine, self._picker, row.ids)
                    good[index] = replace(row, ids=tuple(row.ids[place] for place in places))
                except LoomError as error:
                    yield index, failure(error, started, policy)
            peak_bytes = peak.bytes() or 0
        order = list(good)
        for place, result in self._engine.run(list(good.values()), policy):
            index = order[place]
            kv = self._use(result.kv, len(rows[index].ids), len(good[index].ids), policy)
            most = None if result.peak_bytes is None else max(result.peak_bytes, peak_bytes)
            yield index, replace(result, started=started, kv=kv, peak_bytes=most)

    def _use(self, kv: KVUse, n: int, picked: int, policy: Policy | None) -> KVUse:
        """The cache of the picked tokens, measured against that of the whole prompt."""
        asked = str(self._picker.asked) + (f" + {kv.asked}" if kv.asked else "")
        made = replace(kv, bytes_dense=kv.bytes_dense * n // picked, kept=kv.kept * picked / n, asked=asked)
        if picked == n:
            note = f"dense: the prompt of {n} tokens fits the budget of {self._picker.asked}"
            return replace(made, notes=(*kv.notes, note))
        if policy is not None:
            return replace(made, kept_asked=None if kv.kept_asked is None else kv.kept_asked * picked / n)
        geometry = self._engine.geometry
        slots = self._picker.keep(n, geometry)
        share = self._picker.asked.ratio or slots / n
        size = self._picker.asked.bytes_ or slots * geometry.bytes_per_token
        return replace(made, saves="real", tokens_asked=float(slots), kept_asked=share, bytes_asked=size)


def pick(engine: Engine, picker: Picker, ids: Sequence[int]) -> list[int]:
    """The positions of the prompt that the picker chooses, in order; all of them where they fit its budget.

    Equal scores: the earlier token. Raises ModelError for a layer that the model does not have.
    """
    geometry = engine.geometry
    keep = picker.keep(len(ids), geometry)
    if keep >= len(ids):
        return list(range(len(ids)))
    layer = picker.layer(geometry.layers)
    if not 0 <= layer < geometry.layers:
        raise ModelError(f"{picker.name}: there is no layer {layer}", why=f"the model has {geometry.layers}, from 0")
    probe = _Probe(picker)
    probe.start(replace(geometry, layers=layer + 1))
    early = first_layers(engine.model, layer + 1)
    with attached(engine.model):
        Pass(early, probe.geometry, [ids], [0], probe, chunk=engine.prefill_chunk).prefill()
    assert probe.scores is not None
    order = torch.argsort(probe.scores, descending=True, stable=True)
    chosen: list[int] = torch.sort(order[:keep]).values.tolist()
    return chosen


def first_layers(model: Any, n: int) -> Any:
    """The model without the layers behind its first n; it shares all weights and its configuration.

    Raises ModelError where the layers cannot be found.
    """
    decoder = model.get_decoder()
    name = next((name for name, part in model.named_children() if part is decoder), None)
    layers = getattr(decoder, "layers", None)
    if name is None or not isinstance(layers, torch.nn.ModuleList):
        raise ModelError(
            f"the layers of {type(model).__name__} cannot be found",
            why="a picker runs the first of them alone, and looks for them in get_decoder().layers",
        )
    low, top = _twin(decoder), _twin(model)
    low._modules["layers"] = torch.nn.ModuleList(list(layers)[:n])
    top._modules[name] = low
    return top


def _twin(module: Any) -> Any:
    """A second module on the same parameters, whose children may be exchanged."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin


class _Probe(Policy):
    """Evicts nothing; notes the picker's scores at the last of the layers it is run with."""

    name = "probe"

    def __init__(self, picker: Picker) -> None:
        super().__init__(picker.options)
        self._picker = picker
        self.scores: Tensor | None = None

    @property
    def need(self) -> Need:
        """The last query."""
        return Need(window=1)

    def slots(self, n_valid: int) -> int:
        """All."""
        return n_valid

    def budget(self, view: LayerView) -> Allotment:
        """Everything is kept."""
        if view.layer == self.geometry.layers - 1:
            assert view.queries is not None
            self.scores = self._picker.score(view.queries[0, :, -1], view.k[0])
        return Allotment(slots=list(view.n_valid))

    def score(self, view: LayerView) -> Tensor:
        """Not asked where nothing is evicted."""
        return view.k.new_zeros(1, 1, view.columns, dtype=torch.float32)

"""The cache of one batch, and how a policy and a codec shape it. Knows stores, policies and codecs; no model, no text.

A server's host lets each attention layer of its model hand over the true q, k, v: `Session.attend` appends them to the
layer's store, attends, and at the end of the prompt lets the policy evict and the codec encode.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from loom_core.api import KVUse, LoomError, ModelError
from loom_kv.cascade import Cascade
from loom_kv.choose import choose
from loom_kv.decode import DecodeStore
from loom_kv.mass import ColumnMass
from loom_kv.policy import Policy
from loom_kv.ragged import kept, unpadded
from loom_kv.roles import allotted
from loom_kv.rope import Rope, Tables
from loom_kv.stacking import held_scores, held_view, newest_of, ranks_slots
from loom_kv.store import DenseStore, Store
from loom_kv.streamed import StreamClock, StreamStore
from loom_kv.views import Allotment, Geometry, LayerView, Need, QueryChunk, Stream


class Session:
    """The cache of one left-padded batch, and the policy that shapes it.

    n_valid: prompt tokens of each row. seeds: of each row, for random draws. room: tokens that storages grow by.
    seen: columns of the batch that have been announced. stores: what holds each layer now. prompt: of the layers that
    are still read, or still cut because of later ones; never of a streamed cache.
    repeat_heads: keep keys and values once per query head (the recorded results of some authors' code are per query
    head; never offered as a method, since it multiplies the memory).
    """

    def __init__(
        self,
        geometry: Geometry,
        n_valid: Sequence[int],
        seeds: Sequence[int],
        policy: Policy | None,
        *,
        room: int = 64,
        rope: Rope | None = None,
        repeat_heads: bool = False,
    ) -> None:
        self.repeat = geometry.group if repeat_heads else 1
        self.geometry, self.policy = geometry, policy
        self.n_valid, self.seeds = tuple(n_valid), tuple(seeds)
        self.seen = 0
        self.reading = policy is not None
        self.last_chunk = False
        need = policy.need if policy is not None else Need()
        self.codec = policy.codec if policy is not None else None
        self.window = max(need.window, self.codec.need.window) if self.codec is not None else need.window
        self.mass = ColumnMass(self.n_valid, need.mass_stride) if need.mass_stride else None
        self.layers = policy.shares_layers if policy is not None else None
        self.cascade = Cascade() if self.layers is not None else None
        self.rope = rope
        self.observer = policy.observes if policy is not None else None
        self.raw: tuple[Tensor, Tables] | None = None
        self.newest: dict[int, Tensor] = {}
        self.suspect: list[tuple[int, Tensor]] = []
        self.clock: StreamClock | None = None
        self.prompt: dict[int, DenseStore] = {}
        self.decoding: list[DecodeStore] = []
        self.stores: list[Store]
        streams = self._streams()
        if streams:
            in_cache = rope if streams[0].in_cache else None
            self.clock = StreamClock(streams, self.n_valid, room, in_cache, geometry.device)
            self.stores = [StreamStore(self.clock) for _ in range(geometry.layers)]
            self.reading = False
            return
        layers = range(geometry.layers)
        if policy is not None and policy.steps is not None:
            seeds = self.seeds
            self.decoding = [
                DecodeStore(layer, geometry, self.n_valid, seeds, room, policy.steps, policy.merges) for layer in layers
            ]
            self.prompt = dict(enumerate(self.decoding))
        else:
            self.prompt = {layer: DenseStore(self.n_valid, room) for layer in layers}
        self.stores = list(self.prompt.values())

    def _streams(self) -> list[Stream]:
        if self.policy is None:
            return []
        return [rule for n in self.n_valid if (rule := self.policy.stream(n)) is not None]

    @property
    def raw_positions(self) -> bool:
        """The model must be fed position 0, because the host rotates keys itself."""
        return self.clock is not None and self.clock.rope is not None

    def resume(self, layers: Sequence[tuple[Tensor, Tensor]], columns: int) -> None:
        """Begin behind `columns` columns of the batch, whose tokens were read before: k, v [1, h, P, d]."""
        self.seen = columns
        for store, (k, v) in zip(self.prompt.values(), layers, strict=True):
            store.continue_from(k, v, columns)

    def fork(self, rows: int) -> Session:
        """A session of `rows` rows that all continue this one's only row; nothing of this one is changed later."""
        fixed = (self.geometry, self.rope, getattr(self.policy, "options", None))
        twin = copy.deepcopy(self, {id(part): part for part in fixed if part is not None})
        twin.take([0] * rows)
        return twin

    def begin(self, n: int, *, last_chunk: bool = False) -> None:
        """Announce a forward pass of n columns; last_chunk: it ends the prompt, and eviction follows."""
        self.last_chunk = last_chunk
        if self.reading and self.observer is not None:
            assert self.rope is not None
            columns = torch.arange(self.seen, self.seen + n, device=self.geometry.device)
            pads = torch.tensor([max(self.n_valid) - valid for valid in self.n_valid], device=columns.device)
            positions = columns - pads[:, None]
            self.raw = positions, self.rope.tables(positions.clamp(min=0))
        if self.clock is not None:
            self.clock.step(n)
        self.seen += n

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scaling: float | None) -> Tensor:
        """[b, n, H, d] from q [b, H, n, d] and new k, v [b, h, n, d] of a layer: append, attend, and at the end of the
        prompt evict this layer at once."""
        if self.repeat > 1:
            k, v = k.repeat_interleave(self.repeat, dim=1), v.repeat_interleave(self.repeat, dim=1)
        out = self.stores[layer].attend(q, k, v, scaling)
        if self.reading:
            self._read(layer, q, scaling)
        return out

    def _read(self, layer: int, q: Tensor, scaling: float | None) -> None:
        """Remember the newest queries; after the last chunk let the policy evict."""
        if self.raw is not None and self.rope is not None and self.observer is not None:
            positions, tables = self.raw
            raw = self.rope.undo(q.float(), tables)
            self.observer.observe(QueryChunk(layer=layer, queries=raw, positions=positions))
        if self.mass is not None:
            self.mass.add(layer, q, self.prompt[layer].decoded()[0], scaling)
        if self.window:
            past = self.newest.get(layer)
            queries = q if past is None or q.shape[2] >= self.window else torch.cat([past, q], dim=2)
            queries = queries[:, :, -self.window :]
            if not self.last_chunk:
                self.newest[layer] = queries.clone()
                return
        if self.last_chunk:
            newest = queries if self.window else None
            ranks = self._evict(layer, newest, scaling)
            if self.codec is not None:
                view = held_view(self.prompt[layer], layer, newest, ranks, self.codec)
                self.suspect.append((layer, view.unsound()))
                self.stores[layer] = self.codec.encode(view)
            if self.cascade is None:
                del self.prompt[layer]
            self.newest.pop(layer, None)

    def _evict(self, layer: int, queries: Tensor | None, scaling: float | None) -> Tensor | None:
        """Free what the policy does not keep; the scores of what stays, for a codec that ranks."""
        store, policy = self.prompt[layer], self.policy
        assert policy is not None
        keys, values = store.decoded()
        valid = None
        if store.missing is not None:
            valid = torch.arange(store.length, device=keys.device) >= store.missing[..., None]
        view = LayerView(
            layer=layer,
            k=keys,
            v=values,
            n_valid=self.n_valid,
            valid=valid,
            queries=newest_of(queries, policy.need.window),
            scaling=scaling if scaling is not None else keys.shape[3] ** -0.5,
            seeds=self.seeds,
            geometry=policy.geometry,
            rope=self.rope,
            mass=None if self.mass is None else self.mass.take(layer, keys.shape[1]),
        )
        allotment = policy.budget(view)
        fits = all(
            slots == n for row, n in zip(allotment.table(self.n_valid, 1), self.n_valid, strict=True) for slots in row
        )
        if fits and not self.decoding and not ranks_slots(policy):
            return None
        scores = policy.score(view).float()
        wrong = ~torch.isfinite(scores)
        self.suspect.append((layer, (wrong if valid is None else wrong & valid).flatten(1).any(dim=1)))
        return self._cut(view, scores.masked_fill(wrong, 0.0), allotment)

    def _cut(self, view: LayerView, scores: Tensor, allotment: Allotment) -> Tensor | None:
        """Keep the best slots of a layer; where layers share one budget, of the earlier ones too."""
        policy = self.policy
        assert policy is not None
        if self.cascade is not None and self.layers is not None:
            self.cascade.add(scores, self.n_valid)
            layers = [self.prompt[layer] for layer in range(view.layer + 1)]
            self.cascade.cut(layers, self.layers.shares(view.layer), allotment)
            if view.layer == self.geometry.layers - 1:
                self.stores = [unpadded(layer) for layer in layers]
            return None
        choice = choose(scores, self.n_valid, allotted(policy.shares_heads, view, scores, allotment))
        if self.decoding:
            self.decoding[view.layer].settle(scores, choice, allotment)
        elif choice is not None and self.codec is not None:
            self.prompt[view.layer].keep(choice)
        elif choice is not None:
            self.stores[view.layer] = kept(self.prompt[view.layer], choice)
        return held_scores(scores, self.n_valid, allotment, choice) if ranks_slots(policy) else None

    def end_prefill(self) -> dict[int, LoomError]:
        """The prompt is read. Rows whose scores were NaN or infinite, each with an error that names the layer."""
        self.reading = False
        self.newest.clear()
        self.prompt.clear()
        self.raw = self.cascade = None
        failed = self._failed(self.suspect)
        self.suspect.clear()
        return failed

    def failures(self) -> dict[int, LoomError]:
        """Rows whose scores became NaN or infinite while decoding; empty for methods that do not look at it."""
        return self._failed([(store.layer, store.failed) for store in self.decoding if store.failed is not None])

    def _failed(self, suspect: Sequence[tuple[int, Tensor]]) -> dict[int, LoomError]:
        """The rows that are marked [b] in some layer, each with an error that names the first one."""
        failed: dict[int, LoomError] = {}
        if not suspect or self.policy is None:
            return failed
        table = torch.stack([rows.to(self.geometry.device) for _, rows in suspect]).tolist()
        for (layer, _), rows in zip(suspect, table, strict=True):
            for row, bad in enumerate(rows):
                if bad and row not in failed:
                    failed[row] = ModelError(
                        f"{self.policy.name}: NaN or infinite scores, keys or values in layer {layer}",
                        where=f"method {self.policy.name}, layer {layer}",
                        why="a ranking or a rounding of such numbers has no meaning",
                        hint="try another number format (dtype=float32), or report it to the method's author",
                    )
        return failed

    def take(self, rows: Sequence[int]) -> None:
        """Keep these rows of the batch only; the memory of the others is freed."""
        self.n_valid = tuple(self.n_valid[row] for row in rows)
        self.seeds = tuple(self.seeds[row] for row in rows)
        if self.clock is not None:
            self.clock.take(rows)
        for store in self.stores:
            store.take(rows)

    def held_bytes(self) -> int:
        """Bytes of all storages that the cache holds, each storage once."""
        storages = [t.untyped_storage() for store in self.stores for t in store.tensors()]
        return sum({s.data_ptr(): s.nbytes() for s in storages if s.nbytes()}.values())

    def uses(self) -> list[KVUse]:
        """What the cache of each row costs now (call it at the end of the prompt)."""
        rows = len(self.n_valid)
        held = self.held_bytes() / rows
        slots = torch.zeros(rows)
        for store in self.stores:
            slots += (store.positions() >= 0).sum(-1).float().mean(-1).cpu()
        shares = (slots / len(self.stores)).tolist()
        return [self._use(n, round(held), share / n) for n, share in zip(self.n_valid, shares, strict=True)]

    def _use(self, n_valid: int, held: int, kept: float) -> KVUse:
        tokens, dense = round(kept * n_valid, 6), n_valid * self.geometry.bytes_per_token
        if self.policy is None:
            return KVUse(bytes_dense=dense, bytes_held=held, kept=kept, saves="none", tokens_held=tokens)
        tokens_asked, kept_asked, bytes_asked = self.policy.asked_three_ways(n_valid)
        return KVUse(
            bytes_dense=dense,
            bytes_held=held,
            kept=kept,
            tokens_held=tokens,
            tokens_asked=tokens_asked,
            kept_asked=kept_asked,
            bytes_asked=bytes_asked,
            saves=self.policy.saves,
            asked=self.policy.request,
            notes=self.policy.notes(n_valid),
        )

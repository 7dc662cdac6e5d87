"""Methods against recorded results of their authors' code: kept sets, logits and tokens, row by row.

Knows the schema of recorded rows and what a host does; which options a row means is said by each method's own `oracle`
function. Rows that a file gives per *query* head run in a check mode that repeats keys for every query head; no method
offers that to users.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loom_core.api import (
    AugmentationSpec,
    Budget,
    Catalog,
    Found,
    Json,
    LoomError,
    UsageError,
    installed,
    parse_arms,
    resolve,
)
from loom_kv.picker import Picker
from loom_kv.policy import Policy
from loom_kv.stacking import compose
from loom_kv.testing.host import Batch, Engine, Host, OnHost, installed_host
from loom_kv.testing.oracle_codec import ROUNDED, differs_format, differs_held
from loom_kv.testing.oracle_decode import (
    Drops,
    differs_last_scores,
    differs_merge,
    differs_scores,
    nudged,
    watched,
)
from loom_kv.testing.oracle_folder import OracleFolder, read_record
from loom_kv.views import Allotment, Geometry, LayerView

FIRST16, NORM, MARGIN = 5e-4, 1e-5, 2e-3
"""Absolute tolerance of single logits, relative one of a row's norm, and the margin below which an argmax may flip."""
DETAILS = 5

Kept = list[list[set[int]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleRow:
    """How one recorded method compares. details: the first rows that differ, each with its first difference."""

    method: str
    agree: int
    differ: int
    not_covered: int
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Listed:
    """Options of `_ListedSlots`: kept[layer][head], original positions."""

    kept: Sequence[Sequence[Sequence[int]]]
    budget: Budget = field(default_factory=lambda: Budget(ratio=1.0))


class _ListedSlots(Policy):
    """Keeps exactly the listed slots: for rows that give the sets, and for ties that fell the other way."""

    name = "listed"

    def budget(self, view: LayerView) -> Allotment:
        """As many as are listed, for each head."""
        return Allotment(slots=[[len(head) for head in self.options.kept[view.layer]]])

    def score(self, view: LayerView) -> Tensor:
        """One on the listed slots."""
        heads = self.options.kept[view.layer]
        scores = torch.zeros(1, len(heads), view.columns)
        for head, places in enumerate(heads):
            scores[0, head, list(places)] = 1.0
        return scores


@dataclass(frozen=True)
class Oracle(OnHost):
    """The check on a server's host, as the server's spec names it."""

    def __call__(self, folder: Path, names: Sequence[str] | None = None) -> list[OracleRow]:
        """See `check`."""
        return check(folder, names, host=self.host)


def check(folder: Path, names: Sequence[str] | None = None, *, host: Host | None = None) -> list[OracleRow]:
    """Run every file of `folder/expected` that an installed method claims.

    names: recorded methods ("kvpress_snapkv") or augmentations ("snapkv") to look at; None = all. host: None = the
    installed one. Raises DataError where the folder is not an oracle.
    """
    oracle = OracleFolder(folder, host or installed_host())
    catalog = installed()
    claims = [found for found in catalog.augmentations if found.spec.oracle]
    rows = []
    for path in oracle.files:
        record = read_record(path)
        method, cases = str(record["meta"]["method"]), record["cases"]
        claim = _claim(claims, method, cases)
        owner = "dense" if method in ("dense", "masked_dense") else claim.spec.name if claim else ""
        if names is not None and method not in names and owner not in names:
            continue
        if method in ("dense", "masked_dense"):
            rows.append(_compare(oracle, method, cases, lambda case: None, "kv"))
        elif claim is not None:
            heads = str(record["meta"].get("heads"))
            rows.append(_compare(oracle, method, cases, _maker(catalog, claim, method), heads))
        else:
            rows.append(OracleRow(method=method, agree=0, differ=0, not_covered=len(cases)))
    return rows


def _claim(
    claims: Sequence[Found[AugmentationSpec]], method: str, cases: Sequence[Json]
) -> Found[AugmentationSpec] | None:
    """The augmentation that knows options for this recorded method."""
    for found in claims:
        options = resolve(found.spec.oracle)
        if cases and options(method, cases[0].get("setting", {}), cases[0].get("N", 0)) is not None:
            return found
    return None


def _maker(catalog: Catalog, claim: Found[AugmentationSpec], method: str) -> Callable[[Json], Any]:
    """A function from a case to its policy; None where the method does not cover that setting.

    A method's `oracle` may name a whole arm, for a row of methods that are stacked.
    """
    factory, options = catalog.load(claim), resolve(claim.spec.oracle)

    def make(case: Json) -> Any:
        chosen = options(method, case["setting"], case.get("N", 0))
        if isinstance(chosen, str):
            return _stacked(catalog, chosen)
        if chosen is None:
            return None
        made = factory(chosen)
        return made if isinstance(made, Picker) else compose([made])

    return make


def _stacked(catalog: Catalog, text: str) -> Policy | None:
    """The method of an arm; None where one of its parts is not installed."""
    try:
        arm = parse_arms([text], catalog)[-1]
    except UsageError:
        return None
    return compose([catalog.load(catalog.augmentations.get(part.name))(part.options) for part in arm.parts])


def _compare(
    oracle: OracleFolder,
    method: str,
    cases: Sequence[Json],
    make: Callable[[Json], Any],
    heads: str,
) -> OracleRow:
    """heads: "query" or "kv", of all cases; a case's own `setting.mode` ("query_head") goes before it."""
    agree, uncovered, details = 0, 0, []
    for case in cases:
        policy = make(case)
        if method == "masked_dense":
            policy = _ListedSlots(_Listed(case["kept"]))
        elif policy is None and method != "dense":
            uncovered += 1
            continue
        if isinstance(policy, Picker):
            difference = _differs_picked(oracle, case, policy)
        elif "model" not in case and policy is not None and policy.codec is not None:
            difference = differs_format(oracle.folder, case, policy.codec)
        elif "attn" in case and policy is not None:
            difference = differs_merge(policy, case)
        elif "kept_per_layer_incl_window" in case:
            difference = _differs_budgets(policy, case)
        else:
            mode = case.get("setting", {}).get("mode", heads)
            difference = _run_case(oracle, case, policy, mode in ("query", "query_head"))
        if difference is None:
            agree += 1
        else:
            details.append(f"{case['id']}: {difference}")
    return OracleRow(
        method=method, agree=agree, differ=len(details), not_covered=uncovered, details=tuple(details[:DETAILS])
    )


def _differs_budgets(policy: Policy | None, case: Json) -> str | None:
    """A row without a model: the slots that each of L layers keeps of a prompt of N tokens."""
    assert policy is not None
    layers, n, listed = case["setting"]["L"], case["N"], case["kept_per_layer_incl_window"]
    geometry = Geometry(
        layers=layers,
        query_heads=1,
        kv_heads=1,
        key_dim=1,
        value_dim=1,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    policy.start(geometry)
    k = torch.zeros(1, 1, n, 1)
    own = []
    for layer in range(layers):
        view = LayerView(
            layer=layer,
            k=k,
            v=k,
            n_valid=(n,),
            valid=None,
            queries=None,
            scaling=1.0,
            seeds=(0,),
            geometry=geometry,
        )
        own.append(policy.budget(view).table((n,), 1)[0][0])
    return None if own == listed else f"layers keep {own}, not {listed}"


def _differs_picked(oracle: OracleFolder, case: Json, picker: Picker) -> str | None:
    """The picked positions, then a dense run on the picked tokens."""
    engine, ids = oracle.engine(case["model"]), oracle.prompts[case["prompt"]]
    places = oracle.host.pick(engine, picker, ids)
    if places != case["indices"]:
        return f"picked: {_brief(set(places), set(case['indices']))}"
    picked = [ids[place] for place in places]
    with oracle.host.attached(engine.model):
        batch, logits = _prefill(engine, picked, None, False)
        return _differs_run(engine, picked, batch, logits, case, None)


def _run_case(oracle: OracleFolder, case: Json, policy: Policy | None, per_query_head: bool) -> str | None:
    """The first difference of one row, or None."""
    engine, ids = oracle.engine(case["model"]), oracle.prompts[case["prompt"]]
    with oracle.host.attached(engine.model):
        try:
            scores = watched(policy)
            batch, logits = _prefill(engine, ids, policy, per_query_head)
            if difference := differs_scores(policy, scores, case):
                return difference
            if "kept" in case:
                difference = _differs_kept(_kept(batch, case["kept"]), case["kept"], case.get("tie_pool"))
                if difference:
                    return difference
                if _kept(batch, case["kept"]) != _sets(case["kept"]):
                    later = policy is not None and (policy.steps is not None or policy.codec is not None)
                    listed = nudged(policy, case["kept"]) if policy and later else _ListedSlots(_Listed(case["kept"]))
                    batch, logits = _prefill(engine, ids, listed, per_query_head)
            if difference := differs_held(batch.session.stores, case, "quantised_after_prefill"):
                return difference
            return _differs_run(engine, ids, batch, logits, case, policy)
        except LoomError as error:
            return error.what


def _prefill(engine: Engine, ids: Sequence[int], policy: Policy | None, per_query_head: bool) -> tuple[Batch, Tensor]:
    batch = engine.start([ids], [0], policy, repeat_heads=per_query_head)
    logits, failed = batch.prefill()
    if failed:
        raise failed[0]
    return batch, logits[0]


def _differs_run(
    engine: Engine, ids: Sequence[int], batch: Batch, logits: Tensor, case: Json, policy: Policy | None
) -> str | None:
    """Logits at the end of the prompt, of the greedy steps, and of the teacher-forced rows."""
    if "kept_before_decode" in case and (kept := _stream_kept(batch)) != case["kept_before_decode"]:
        return f"kept before decoding: {_brief(set(kept), set(case['kept_before_decode']))}"
    if "prefill" in case and (difference := _differs_logits(logits, case["prefill"])):
        return f"prefill: {difference}"
    if "steps" in case:
        fed = [case["first_token"], *case["greedy"][:-1]]
        rounds = policy is not None and policy.codec is not None and policy.codec.rounds
        near, drops = ROUNDED if rounds else FIRST16, Drops(batch, case)
        if difference := _differs_steps(batch, fed, case["steps"], "step", near, drops):
            return difference
        if difference := differs_held(batch.session.stores, case, "quantised_at_end"):
            return difference
        if difference := differs_last_scores(batch, case):
            return difference
    if "final_kept" in case:
        final = case["final_kept"]
        if difference := _differs_kept(_kept(batch, final), final, None):
            return f"after the last step, {difference}"
    if "kept_after_decode" in case and (kept := _stream_kept(batch)) != case["kept_after_decode"]:
        return f"kept after decoding: {_brief(set(kept), set(case['kept_after_decode']))}"
    if "rows" in case:
        if "steps" in case:
            batch, _ = _prefill(engine, ids, policy, False)
        return _differs_steps(batch, case["tokens"], case["rows"], "row")
    return None


def _differs_steps(
    batch: Batch,
    tokens: Sequence[int],
    rows: Sequence[Json],
    noun: str,
    near: float = FIRST16,
    drops: Drops | None = None,
) -> str | None:
    for number, (token, row) in enumerate(zip(tokens, rows, strict=False)):
        logits = batch.feed(torch.tensor([[token]], device=batch.device))[0]
        if difference := _differs_logits(logits, row, near):
            return f"{noun} {number}: {difference}"
        if drops is not None and (difference := drops.differs(number)):
            return f"{noun} {number}: {difference}"
    return None


def _differs_logits(logits: Tensor, row: Mapping[str, Json], near: float = FIRST16) -> str | None:
    """logits [V] against first16, norm and argmax of a record. near: the most that a single logit may differ."""
    values = logits.double().cpu()
    if "first16" in row:
        distance = float((values[:16] - torch.tensor(row["first16"], dtype=torch.float64)).abs().max())
        if not distance <= near:
            return f"first16 differs by {distance:.2e} (at most {near:g})"
    if "norm" in row:
        # Where single logits may be off by `near`, the norm may be by as much in every one of them.
        least = NORM if near <= FIRST16 else near * len(values) ** 0.5 / row["norm"]
        distance = abs(float(values.norm()) / row["norm"] - 1)
        if not distance <= least:
            return f"norm differs by {distance:.2e} (at most {least:g})"
    if "argmax" in row and row.get("margin", 1.0) >= max(MARGIN, 2 * near) and int(values.argmax()) != row["argmax"]:
        return f"argmax is {int(values.argmax())}, not {row['argmax']}"
    return None


def _kept(batch: Batch, like: Sequence[Sequence[Any]]) -> Kept:
    """Kept positions [layer][head]; a store that is the same for all heads is shown for each."""
    kept: Kept = []
    for store, heads in zip(batch.session.stores, like, strict=True):
        places = store.positions()[0]
        rows = places.expand(len(heads), -1) if places.shape[0] == 1 else places
        kept.append([{int(p) for p in row.tolist() if p >= 0} for row in rows])
    return kept


def _stream_kept(batch: Batch) -> list[int]:
    return [int(p) for p in batch.session.stores[0].positions()[0, 0].tolist() if p >= 0]


def _sets(kept: Sequence[Sequence[Sequence[int]]]) -> Kept:
    return [[set(head) for head in layer] for layer in kept]


def _differs_kept(own: Kept, listed: Sequence[Sequence[Sequence[int]]], pools: Json) -> str | None:
    """Sets per head; inside a tie pool any member may stand for another."""
    for layer, (own_heads, listed_heads) in enumerate(zip(own, listed, strict=True)):
        if len(own_heads) != len(listed_heads):
            return f"layer {layer}: {len(own_heads)} heads, not {len(listed_heads)}"
        for head, (mine, theirs) in enumerate(zip(own_heads, map(set, listed_heads), strict=True)):
            pool = set(pools[layer][head]) if pools else set()
            if mine - pool != theirs - pool or len(mine) != len(theirs):
                return f"layer {layer} head {head}: kept {_brief(mine, theirs)}"
    return None


def _brief(mine: set[int], theirs: set[int]) -> str:
    lost, extra = sorted(theirs - mine)[:5], sorted(mine - theirs)[:5]
    return f"{len(mine)} of {len(theirs)} slots; not here {lost}, only here {extra}"

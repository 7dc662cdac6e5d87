"""The conformance kit for KV-cache methods: U1 to U9 for any installed one, on toy models and the embedded model.

`loom check` calls it through the spec of a server that hosts such methods. Knows the checks and how a method is made of
its spec; no method and no server.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from loom_kit import NotChecked, Row

from loom_core.api import AugmentationSpec, Budget, Found, LoomError, ModelError, UsageError, build, installed
from loom_kv.picker import Picker
from loom_kv.policy import Policy
from loom_kv.stacking import compose
from loom_kv.testing.checks import CHECKS, u7_groups
from loom_kv.testing.codec_checks import CODEC_CHECKS, CodecSubject, c7_groups
from loom_kv.testing.host import Host, OnHost, installed_host
from loom_kv.testing.picker_checks import check_picker
from loom_kv.testing.sharing_checks import (
    declares_phase,
    declares_query,
    declares_saving,
    u9_context_only,
    u9_prefix,
)
from loom_kv.testing.subject import Subject, toy_prompts

LENGTHS = (97, 150, 64)
BUDGET = 48
"""Prompts and budget of the checks; both are doubled until the method's protected slots fit."""
DOUBLINGS = 3
BEFORE_QUERY = ("U4 batch", "U8 isolation")
"""Rules without which nothing can be said of the question: a method that breaks them keeps other slots each time."""

Check = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Trial:
    """A method as the kit runs it on a host: made of its default options and a budget. scale: of prompts and budget."""

    host: Host
    spec: AugmentationSpec
    make: Callable[[Budget], Policy]
    codec: bool
    scale: int

    @property
    def budget(self) -> Budget:
        """The budget of the checks."""
        return Budget(tokens=BUDGET * self.scale)

    def subject(self, model: Any) -> Subject:
        """The method on a model."""
        vocabulary = int(model.get_input_embeddings().weight.shape[0])
        prompts = toy_prompts([n * self.scale for n in LENGTHS], vocabulary)
        kind = CodecSubject if self.codec else Subject
        return kind(model, self.make, prompts, self.budget, host=self.host)


@dataclass(frozen=True)
class Kit(OnHost):
    """The kit on a server's host, as the server's spec names it."""

    def __call__(self, found: Found[AugmentationSpec]) -> Iterator[Row]:
        """See `check`."""
        return check(found, self.host)


def check(found: Found[AugmentationSpec], host: Host | None = None) -> Iterator[Row]:
    """One row for each rule: it holds if it does on every model that the method does not refuse.

    host: None = the installed one.
    """
    name, host = found.spec.name, host or installed_host()
    try:
        factory = installed().load(found)
        if isinstance(factory, type) and issubclass(factory, Picker):
            made = factory(build(found.spec.options, {"budget": str(BUDGET)}, owner=name))
            yield from check_picker(name, made, kit_models(host), host)
            return
        trial = trial_of(found, host)
    except Exception as error:  # noqa: BLE001 - whatever a method raises is the result of the check
        yield Row(name, "default options make a method", False, reason(error))
        return
    yield Row(name, "default options make a method", True)
    models, subjects, refused = kit_models(host), [], []
    for label, model in models:
        try:
            subject = trial.subject(model)
            subject.run([subject.prompts[0]], subject.make(subject.budget))
            subjects.append((label, subject))
        except ModelError as error:
            refused.append(f"{label}: {error.what}" + (f" ({error.where})" if error.where else ""))
        except Exception as error:  # noqa: BLE001 - as above
            yield Row(name, "runs", False, f"{label}: {reason(error)}")
            return
    yield Row(name, "runs", bool(subjects), "; ".join(f"refused on {text}" for text in refused))
    broken: list[str] = []
    for rule, one in checks_of(trial).items():
        if rule == "declares query_aware" and broken:
            yield Row(
                name, rule, True, f"not before {' and '.join(broken)} holds: it would blame the question", checked=False
            )
            continue
        row = outcome(name, rule, one, subjects)
        if not row.passed and rule in BEFORE_QUERY:
            broken.append(rule)
        yield row
    yield Row(name, "U3 recorded results", True, "loom check --oracle FOLDER", checked=False)


def outcome(name: str, rule: str, one: Check, subjects: list[tuple[str, Subject]]) -> Row:
    """Whether a check holds on all subjects, and where and why not."""
    for label, subject in subjects:
        try:
            one(subject)
        except NotChecked as error:
            return Row(name, rule, True, str(error), checked=False)
        except Exception as error:  # noqa: BLE001 - as above
            return Row(name, rule, False, f"{label}: {reason(error)}")
    return Row(name, rule, True)


def reason(error: Exception) -> str:
    """What went wrong, in one line."""
    if isinstance(error, AssertionError):
        return str(error).partition("\n")[0]
    if isinstance(error, LoomError):
        return str(error).replace("\n", " ")
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def checks_of(trial: Trial) -> dict[str, Check]:
    """The rules of a method, by name, in their order."""
    prompt = toy_prompts((90 * trial.scale,), 128)[0]
    groups = c7_groups if trial.codec else u7_groups
    rules: dict[str, Check] = dict(CODEC_CHECKS if trial.codec else CHECKS)
    if not trial.codec:
        rules["U9 shared prefix"] = u9_prefix
        rules["U9 context-only"] = u9_context_only
    rules["U7 groups"] = own_models(lambda: groups(trial.make, trial.budget, prompt, trial.host))
    for rule, declared in (("query_aware", declares_query), ("saves", declares_saving), ("phase", declares_phase)):
        if rule != "phase" or not trial.codec:
            rules[f"declares {rule}"] = functools.partial(_declared, declared, trial.spec)
    return dict(sorted(rules.items(), key=lambda item: (item[0][0] != "U", item[0])))


def _declared(one: Callable[[Subject, AugmentationSpec], None], spec: AugmentationSpec, subject: Subject) -> None:
    if subject.exact:
        one(subject, spec)


def own_models(one: Callable[[], None]) -> Check:
    """A check that brings its own models: run once, and not tried where the method refuses them."""
    seen: list[Any] = []

    def first(subject: Any) -> None:
        if seen:
            return
        seen.append(subject)
        try:
            one()
        except ModelError as error:
            raise NotChecked(error.what) from error

    return first


def trial_of(found: Found[AugmentationSpec], host: Host) -> Trial:
    """The method with its default options, and prompts and a budget that fit it.

    Raises what the method raises, and UsageError where no budget fits.
    """
    factory, spec = installed().load(found), found.spec
    budgeted = any(field.name == "budget" for field in fields(spec.options))

    def make(budget: Budget) -> Policy:
        given = {"budget": str(budget)} if budgeted else {}
        policy = compose([factory(build(spec.options, given, owner=spec.name))])
        assert policy is not None
        return policy

    problem: LoomError | None = None
    for scale in (2**n for n in range(DOUBLINGS)):
        try:
            policy = make(Budget(tokens=BUDGET * scale))
            if policy.first + policy.last <= BUDGET * scale:
                return Trial(host, spec, make, policy.codec is not None, scale)
            problem = UsageError(f"{policy.first + policy.last} slots are always kept")
        except UsageError as error:
            problem = error
    assert problem is not None
    raise problem


@functools.cache
def kit_models(host: Host) -> tuple[tuple[str, Any], ...]:
    """The toy models, in two number formats, and the embedded models that the host runs."""
    kinds = [(f"toy {kind}", kind, torch.float32) for kind in ("llama", "qwen3", "mha")]
    kinds.append(("toy llama in bfloat16", "llama", torch.bfloat16))
    models = [(label, host.toy_model(kind, dtype, seed=0, query_heads=4)) for label, kind, dtype in kinds]
    return (*models, *host.embedded())

"""Says in `loom list` and `loom info` how a benchmark compares with its authors' own program."""

from __future__ import annotations

from collections.abc import Mapping

from loom_core.contract.errors import PluginError
from loom_core.contract.hookspecs import hookimpl
from loom_core.contract.specs import BenchmarkSpec, Spec
from loom_core.contract.types import Json


@hookimpl
def loom_facts(spec: Spec) -> Mapping[str, Json]:
    """The certificate of a benchmark, in words and whole."""
    if not isinstance(spec, BenchmarkSpec):
        return {}
    from loom_core.registry.plugins import installed
    from loom_parity import certificate

    versions = {found.spec.name: found.spec.version for found in installed().metrics}
    words = certificate.in_words(spec, versions)
    try:
        made = certificate.read(spec)
    except PluginError:  # which the words say
        made = None
    return {"parity": words, "certificate": None if made is None else made.to_json()}

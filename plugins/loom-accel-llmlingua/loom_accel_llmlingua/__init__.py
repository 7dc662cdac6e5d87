"""LLMLingua as a loom plugin. Imports nothing by itself; `plugin` registers."""

__version__ = "0.1.0"

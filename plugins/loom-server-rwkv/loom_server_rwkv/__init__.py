"""RWKV checkpoints as a loom server. Imports nothing by itself; `plugin` registers."""

__version__ = "0.1.0"

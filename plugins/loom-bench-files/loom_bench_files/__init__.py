"""Benchmarks without code, for loom: a TOML description beside JSONL records."""

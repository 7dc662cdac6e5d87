"""A run: its settings, its plan, its folder, its workers, and what is written after it."""

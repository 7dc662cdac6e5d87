"""Pinned files of others: where they lie, how they come here, how they are read."""

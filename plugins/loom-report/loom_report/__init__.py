"""What loom says of a run: scores with intervals, paired differences, the authors' own tables, and cost."""

"""The command `loom parity`: a benchmark beside its authors' own program, case by case."""

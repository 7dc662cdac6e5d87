"""Studies over several systems, anytime evaluation, forecasts and reproduction of runs, for loom."""

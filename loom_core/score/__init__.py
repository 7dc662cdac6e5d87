"""Recorded answers to scores, and judges."""

"""Ratios of speed, size and memory, each against a baseline in the same run."""

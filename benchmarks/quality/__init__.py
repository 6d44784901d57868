"""Scores of whole routes, single stages and their settings."""

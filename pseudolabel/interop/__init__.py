"""Masks to the tools where people correct and use them, and back: one module a format, listed in ``formats``."""

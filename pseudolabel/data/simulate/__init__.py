"""Weak labels simulated from pixel masks, marked oracle: scribbles, points and boxes."""

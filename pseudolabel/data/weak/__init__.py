"""Weak labels beside image tags: scribbles, points and boxes, their file formats, and what they cost to draw."""

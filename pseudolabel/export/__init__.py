"""Masks for people and for other tools: overlays, contact sheets, COCO run lengths."""

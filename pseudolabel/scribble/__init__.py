"""Learning from scribbles, points, boxes and tags, in any mixture: partial losses, and DFR (arXiv 2108.01296).

Letters, everywhere in this package: B images of a batch, C object classes, K = C + 1 with background (index 0), H and W
sides of a training view in pixels, h and w of the network's grid in cells, D channels of the embedding, 255 = nothing
is known. Pure tensor code. docs/scribbles.md has all equations and says where each comes from.
"""

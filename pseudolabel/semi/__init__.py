"""Learning from a few masks and many photographs: consistency losses on what has no mask, and weak labels beside them.

Letters, everywhere in this package: B images of a batch with masks and as many without, V strong views of each of the
latter, C object classes, K = C + 1 with background (index 0), H and W sides of a training view in pixels, h and w of
the network's grid in cells, D channels of its features, 255 = nothing is known. docs/few-masks.md has all equations and
says where each comes from.
"""

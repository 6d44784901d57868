"""CoSA (arXiv 2402.17891): a teacher's maps and masks become what a student's masks and maps learn. Pure tensor code.

Letters, everywhere in this package: B images of a batch, C object classes, K = C + 1 with background (index 0), H and W
sides of a training view in pixels, h and w of the network's grid in cells, 255 = ignore. What comes from the teacher
carries no gradient. docs/cosa.md has all equations and says where each comes from.
"""

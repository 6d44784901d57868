"""Masks and networks for people and for other tools: overlays, contact sheets, COCO run lengths, ``Predictor``."""

from pseudolabel.export.coco_rle import class_runs, write_coco
from pseudolabel.export.pictures import contact_sheet, overlay, paint_heat, paint_labels, sheet

__all__ = ["class_runs", "contact_sheet", "overlay", "paint_heat", "paint_labels", "sheet", "write_coco"]

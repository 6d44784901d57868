"""Masks and networks for people and other programs: overlays, contact sheets, models, ``Predictor``."""

from pseudolabel.export.pictures import contact_sheet, overlay, paint_heat, paint_labels, sheet

__all__ = ["contact_sheet", "overlay", "paint_heat", "paint_labels", "sheet"]

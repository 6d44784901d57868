"""Pictures of masks for people: overlays, contact sheets."""

from pseudolabel.export.pictures import contact_sheet, overlay, paint_heat, paint_labels, sheet

__all__ = ["contact_sheet", "overlay", "paint_heat", "paint_labels", "sheet"]

"""Where and how things compute: devices, parallel maps over images, processes, progress, how values are printed."""

from pseudolabel.runtime.progress import Progress, RichProgress, Silence

__all__ = ["Progress", "RichProgress", "Silence"]

"""Where and how things compute: devices, parallel maps over images, processes, progress, how values are printed."""

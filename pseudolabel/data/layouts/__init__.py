"""The layouts of data sets, each read into the same records: PASCAL VOC, COCO, a plain folder, and a synthetic set."""

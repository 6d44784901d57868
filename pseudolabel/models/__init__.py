"""Networks on timm backbones, their checkpoints, and how they are run over images."""

from pseudolabel.models.backbone import Backbone
from pseudolabel.models.cam import CamNetwork, build_cam_network
from pseudolabel.models.checkpoint import load_network
from pseudolabel.models.segmenter import Segmenter, build_segmenter

__all__ = ["Backbone", "CamNetwork", "Segmenter", "build_cam_network", "build_segmenter", "load_network"]

"""Networks on timm backbones, and their checkpoints."""

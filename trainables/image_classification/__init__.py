"""Fine-tune a pretrained network on images in folders."""

import sys

if "wandb" not in sys.modules:
    sys.modules["wandb"] = None  # type: ignore[assignment]
    try:  # timm would import it, to log to: seconds in every process
        import timm.utils  # noqa: F401
    finally:
        del sys.modules["wandb"]

from trainables.image_classification.classifier import ImageClassifier
from trainables.image_classification.task import ImageClassification

__all__ = ["ImageClassification", "ImageClassifier"]

"""Fine-tune a pretrained network on images in folders."""

import sys

if "wandb" not in sys.modules:
    sys.modules["wandb"] = None  # type: ignore[assignment]
    import timm.utils  # noqa: F401 - to log to it, timm would import it: seconds in every process

    del sys.modules["wandb"]

from trainables.image_classification.classifier import ImageClassifier
from trainables.image_classification.task import ImageClassification

__all__ = ["ImageClassification", "ImageClassifier"]

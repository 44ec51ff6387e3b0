"""Fine-tune a pretrained network on images in folders."""

from trainables.hidden import hidden

with hidden("wandb"):  # timm would import it, to log to
    import timm.utils  # noqa: F401

from trainables.image_classification.classifier import ImageClassifier
from trainables.image_classification.task import ImageClassification

__all__ = ["ImageClassification", "ImageClassifier"]

"""Fine-tune a pretrained network on images in folders."""

from trainables.image_classification.classifier import ImageClassifier
from trainables.image_classification.task import ImageClassification

__all__ = ["ImageClassification", "ImageClassifier"]

"""Train a network on texts, from nothing but the texts."""

from trainables.text_classification.classifier import TextClassifier
from trainables.text_classification.task import TextClassification

__all__ = ["TextClassification", "TextClassifier"]

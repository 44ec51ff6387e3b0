"""What is fed to the part of the network that is trained: images, or features of frozen stages."""

from torch import Tensor, nn

from trainables.classification import Inputs
from trainables.image_classification import backbones, transforms
from trainables.image_classification.config import Settings
from trainables.image_classification.data import ImageData, ImageSet
from trainables.image_classification.features import FeatureStore, cacheable
from trainables.image_classification.splitting import split
from trainables.image_classification.transforms import channels_last
from trainables.network import Classifier
from trainables.task import Context


def open_inputs(
    config: Settings, context: Context, data: ImageData, model: Classifier, frozen_stages: int
) -> Inputs:
    """Features of the frozen stages, where these are the same for all epochs; else the images.

    All ranks call it at once. ``model`` is frozen already, and on its device.
    """
    mean, std = backbones.normalisation(config.backbone)
    train = data.joined() if context.final else data.train
    augment = transforms.training(config, mean, std)
    prepare = transforms.evaluation(config.image_size, mean, std)
    cut = None
    if cacheable(config, frozen_stages):
        cut = split(model.features, frozen_stages, _example(data.val, prepare, context))
        if not context.min(int(cut is not None)):  # what follows, all ranks do or none
            cut = None
    if cut is not None:
        store = FeatureStore(config, context, frozen_stages, cut.frozen, data.entry)
        content = [data.content, "train+val" if context.final else "train"]
        preprocessing, views = transforms.preprocessing_key(config), config.feature_views or 1
        train_features = store.features(train, augment, [*content, preprocessing], views)
        val_features = store.features(data.val, prepare, [data.content, "val"])
        if train_features is not None and val_features is not None:
            network = nn.Sequential(cut.rest, model.head)
            return Inputs(train_features, val_features, nn.Identity(), nn.Identity(), network)
    return Inputs(train, data.val, augment, prepare, model)


def _example(images: ImageSet, prepare: nn.Module, context: Context) -> Tensor:
    """Two images, to try a cut on."""
    pixels, _ = images.batch(range(min(2, len(images))))
    return channels_last(prepare(pixels.to(context.device)))

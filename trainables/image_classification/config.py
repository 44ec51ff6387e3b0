from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    field_validator,
)

from trainables.classification import ClassificationSettings

Probability = Annotated[float, Field(ge=0, le=1)]


class Settings(ClassificationSettings):
    """What an image classification trial can be told: fixed settings and hyperparameters alike.

    A conditional hyperparameter that a trial does not have (``momentum`` beside ``adamw``) keeps
    its default here and is not read.
    """

    data: str = Field(
        min_length=1,
        description="A folder of images: train/, val/ and perhaps test/, each with a sub-folder a "
        "class, or the class sub-folders themselves, split by validation_fraction. A .csv file of "
        "paths and labels. torchvision:NAME, a data set of torchvision. Or digits: scikit-learn's "
        "1,797 scans of handwritten digits, which need no download.",
    )
    data_root: str | None = Field(
        None,
        description="torchvision:NAME: the folder that the data set lies in; it is downloaded "
        "there if it can be. A .csv: what its paths are relative to; null: the file's folder.",
    )
    max_images_per_class: PositiveInt | None = Field(
        None,
        description="Train on this many images of each class, drawn by split_seed; null: on all. "
        "Spares val/.",
    )
    corrupt_images: Literal["refuse", "skip"] = Field(
        "refuse",
        description="What to do about files that are no images: refuse the data and name them, or "
        "leave them out and name them in a warning.",
    )
    backbone: str = Field(
        "efficientnet_lite0",
        description="A classification network of torchvision or timm, by its name there. A name "
        "that both have is torchvision's. efficientnet_lite0 needs no download.",
    )
    weights: str = Field(
        "default",
        min_length=1,
        description="default: pretrained; none: random; else the path of a state dict of the "
        "backbone, .safetensors or a file of torch.save.",
    )
    freeze: Literal["none", "all"] | NonNegativeInt = Field(
        "none",
        description="What keeps its pretrained weights: none, all (only the head is trained), or "
        "so many stages from the input up.",
    )
    unfreeze_every: PositiveInt | None = Field(
        None,
        description="Gradual unfreezing: after every so many epochs, one more of the frozen stages "
        "is trained, from the head down; null: freeze holds to the end.",
    )
    head: Literal["linear", "mlp"] = Field(
        "linear", description="The new head: one linear layer, or two with a ReLU between them."
    )
    head_dropout: float = Field(
        0.0, ge=0, lt=1, description="Dropout before the last layer of the head."
    )

    image_size: int = Field(
        224, ge=8, description="Side of the square that the network sees, in pixels."
    )
    random_crop: bool = Field(
        True,
        description="Cut each training image at a random place out of its stored square, whose "
        "side is 1.15 image sizes; false: out of its centre.",
    )
    crop_padding: NonNegativeInt = Field(
        0, description="Black border around that square before a random crop, in pixels a side."
    )
    resized_crop: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Cut and rescale a random part of each training image, of at least this share "
        "of its area and an aspect ratio of 3/4 to 4/3, in place of random_crop; null: do not.",
    )
    rotation: float = Field(
        0.0, ge=0, le=180, description="Largest random rotation either way, in degrees."
    )
    horizontal_flip: Probability = Field(
        0.0, description="Probability that a training image is mirrored left to right."
    )
    vertical_flip: Probability = Field(
        0.0, description="Probability that a training image is mirrored top to bottom."
    )
    color_jitter: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Brightness, contrast and saturation of a training image change by up to this "
        "share either way.",
    )
    hue_jitter: float = Field(
        0.0, ge=0, le=0.5, description="Its hue turns by up to this share of the circle either way."
    )
    auto_augment: Literal["none", "randaugment", "trivialaugment"] = Field(
        "none",
        description="Random operations drawn for each training image: RandAugment or "
        "TrivialAugment (arXiv 1909.13719, 2103.10158).",
    )
    randaugment_ops: PositiveInt = Field(2, description="Operations that randaugment applies.")
    randaugment_magnitude: int = Field(
        9, ge=0, le=30, description="Strength of randaugment's operations."
    )
    mixup: NonNegativeFloat = Field(
        0.0, description="Alpha of MixUp (arXiv 1710.09412); 0: off. With cutmix, a batch has one."
    )
    cutmix: NonNegativeFloat = Field(0.0, description="Alpha of CutMix (arXiv 1905.04899); 0: off.")
    transforms: str | None = Field(
        None,
        description="package.module:function of your own: given these settings, it returns what is "
        "applied to training images before all else: a callable on uint8 batches (N, 3, S, S), or "
        "an Albumentations transform, which is applied image by image.",
    )
    feature_views: PositiveInt | None = Field(
        None,
        description="Fixed augmented views of each training image. Random transforms are drawn "
        "once a view and not anew each epoch, so that what frozen stages make of them can be "
        "computed once for all trials; null: drawn anew, and computed once only where nothing is. "
        "No effect where nothing is frozen, weights is none, images are mixed, or the cache has no "
        "room: the metric cached_features says.",
    )
    cache_features: bool = Field(
        True,
        description="Compute what frozen stages make of the images once, and keep it for all "
        "trials, where it is the same for them; false: compute it in every epoch.",
    )

    backbone_lr_scale: NonNegativeFloat = Field(
        1.0, description="Learning rate of the backbone, as a multiple of the head's."
    )
    parallel: Literal["ddp", "fsdp", "pipeline", "data_parallel"] = Field(
        "ddp",
        description="How the ranks of a trial share the work. ddp: each has the whole network and "
        "a part of every batch; fsdp: the same, with weights, gradients and the optimizer's state "
        "in slices, one a rank; pipeline: each has a part of the network, and micro-batches (by "
        "default two a rank) go from one to the next; data_parallel: one process over all GPUs "
        "of the trial, for comparison.",
    )
    sync_batchnorm: bool = Field(
        False, description="BatchNorm statistics over all ranks of a trial; on GPUs only."
    )

    @field_validator("data_root")
    @classmethod
    def _absolute_root(cls, value: str | None) -> str | None:
        """It need not exist yet: a data set may be downloaded there."""
        return value and str(Path(value).expanduser().absolute())

    @field_validator("data", "weights")
    @classmethod
    def _absolute(cls, value: str) -> str:
        """A path means the same on every worker, and when the run is resumed from elsewhere."""
        path = Path(value).expanduser()
        return str(path.absolute()) if path.exists() else value

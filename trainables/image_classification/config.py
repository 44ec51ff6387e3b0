from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
)

Probability = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseModel):
    """What an image classification trial can be told: fixed settings and hyperparameters alike.

    A conditional hyperparameter that a trial does not have (``momentum`` beside ``adamw``) keeps
    its default here and is not read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = Field(
        min_length=1,
        description="A folder of images: train/ and val/, each with one sub-folder a class, or the "
        "class sub-folders themselves, split by validation_fraction. Or digits: scikit-learn's "
        "1,797 scans of handwritten digits, which need no download.",
    )
    validation_fraction: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Part of every class held out for validation, where the folder has no val/.",
    )
    split_seed: NonNegativeInt = Field(
        0, description="Seed of that split and of max_images_per_class; the same for all trials."
    )
    max_images_per_class: PositiveInt | None = Field(
        None, description="Train on this many images of each class; null: on all. Spares val/."
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
    rotation: float = Field(
        0.0, ge=0, le=180, description="Largest random rotation either way, in degrees."
    )
    horizontal_flip: Probability = Field(
        0.0, description="Probability that a training image is mirrored left to right."
    )
    vertical_flip: Probability = Field(
        0.0, description="Probability that a training image is mirrored top to bottom."
    )

    optimizer: Literal["sgd", "adamw"] = Field("adamw", description="The optimizer.")
    learning_rate: PositiveFloat = Field(
        1e-3, description="Peak learning rate of the head, after warm-up."
    )
    backbone_lr_scale: NonNegativeFloat = Field(
        1.0, description="Learning rate of the backbone, as a multiple of the head's."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of sgd.")
    weight_decay: NonNegativeFloat = Field(1e-4, description="Weight decay of either optimizer.")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Part of the target spread evenly over all classes."
    )
    batch_size: PositiveInt = Field(
        32, description="Images in one optimizer step, over all ranks together."
    )
    warmup_epochs: NonNegativeFloat = Field(
        0.0, description="Linear warm-up of the learning rate, in epochs; cosine decay follows."
    )

    @field_validator("data", "weights")
    @classmethod
    def _absolute(cls, value: str) -> str:
        """A path means the same on every worker, and when the run is resumed from elsewhere."""
        path = Path(value).expanduser()
        return str(path.absolute()) if path.exists() else value

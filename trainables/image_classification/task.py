from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainables import showing
from trainables.classification import Classification
from trainables.image_classification import backbones, pictures, transforms
from trainables.image_classification.classifier import ImageClassifier, export
from trainables.image_classification.config import Settings
from trainables.image_classification.data import ImageData, load_data
from trainables.image_classification.dividing import blocks, check_parts, divide
from trainables.image_classification.features import cacheable
from trainables.image_classification.freezing import freeze, frozen_at, frozen_count, stages
from trainables.image_classification.inputs import open_inputs
from trainables.image_classification.sources import open_source
from trainables.image_classification.transforms import channels_last
from trainables.network import trained_names
from trainables.optimization import Part
from trainables.parallelism import WAYS, Divisible, arrange
from trainables.task import Context


class ImageClassification(Classification):
    """Fine-tune a pretrained network on images.

    Everything before the freeze boundary keeps its pretrained weights and statistics; the rest and
    a new head are trained with SGD or AdamW, linear warm-up and cosine decay. Where the frozen part
    gives the same features in every epoch, they are computed once and kept for all trials.
    """

    Config = Settings
    unit = "images"
    logs = ("histograms", "images", "confusion_matrix", "pr_curves", "projection", "graph")
    config: Settings
    data: ImageData

    def __init__(self, config: Settings, context: Context) -> None:
        self.data = load_data(config, context.cache_dir, context.cache_bytes, context.threads)
        torch.manual_seed(context.seed)  # the same head on every rank, whatever ran here before
        model = backbones.build(
            config.backbone,
            len(self.data.labels),
            config.weights,
            head=config.head,
            head_dropout=config.head_dropout,
        )
        if config.sync_batchnorm and context.device.type == "cuda" and context.world_size > 1:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        super().__init__(
            config,
            context,
            # Convolutions are faster so: on a CPU, training by a half and more.
            model=model.to(memory_format=torch.channels_last),
            labels=self.data.labels,
            examples=self.data.joined() if context.final else self.data.train,
            parallelism=arrange(config.parallel, context),
        )
        self.mix = transforms.mixing(config, len(self.data.labels))
        self.frozen_stages = -1
        # a state to come is of the epoch before, in which more may have been frozen
        self._freeze(max(context.epoch - 1, 0))

    def _freeze(self, epoch: int) -> None:
        """Freeze what is frozen in ``epoch``, and arrange the rest to be trained."""
        config, context = self.config, self.context
        available = len(stages(self.model.features))
        frozen = frozen_at(config.freeze, available, epoch, config.unfreeze_every)
        if frozen == self.frozen_stages:
            return
        self.frozen_stages = frozen
        freeze(self.model.features, frozen)
        # Random frozen weights cannot be had again from a file, so they are kept like trained ones.
        everything = config.weights == "none"
        kept = set(self.model.state_dict()) if everything else trained_names(self.model)
        parts = {
            "backbone_learning_rate": Part(self.model.features, config.backbone_lr_scale),
            "learning_rate": Part(self.model.head),
        }
        inputs = open_inputs(config, context, self.data, self.model, frozen)
        self._arrange(inputs, kept, parts)

    def _divisible(self) -> Divisible:
        whole, (inputs, _) = super()._divisible(), self._largest(2)
        network = whole.network
        cached = self.frozen_stages if network is not self.model else 0
        example = self._prepared(inputs.to(self.context.device), self.inputs.prepare)
        return replace(
            whole,
            blocks=blocks(self.model.features, network),
            cut=partial(divide, self.model, network, example, cached),
            example=example,
            layout=channels_last,
        )

    def _prepared(self, inputs: Tensor, prepare: nn.Module) -> Tensor:
        return channels_last(super()._prepared(inputs, prepare))

    def _augmented(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        inputs, targets = super()._augmented(inputs, targets)
        if self.mix is not None:
            if self.parallelism.feeds:
                inputs, targets = self.mix(inputs, targets)
            targets = self.parallelism.agreed(targets)
        return channels_last(inputs), targets

    def _memory_kind(self) -> tuple[Any, ...]:
        config = self.config
        chosen = (config.backbone, config.head, config.image_size)
        features = self.inputs.network is not self.model
        return *super()._memory_kind(), *chosen, self.frozen_stages, features

    def _architecture(self) -> str:
        return f"freeze is {self.config.freeze!r} and backbone {self.config.backbone!r}"

    def train_epoch(self) -> Mapping[str, float]:
        """Train for one epoch, with what is frozen in it.

        Raises:
            FloatingPointError: the loss is no finite number. Every rank raises it.

        """
        self._freeze(self.context.epoch)
        metrics = super().train_epoch()
        return {**metrics, "cached_features": int(self.inputs.network is not self.model)}

    def test(self) -> Mapping[str, float]:
        """Evaluate on the images kept for the end, where there are any."""
        if self.data.test is None:
            return {}
        prepare = transforms.evaluation(
            self.config.image_size, *backbones.normalisation(self.config.backbone)
        )
        tally = self._evaluate(self.data.test, prepare, lambda inputs, *_: self.model(inputs))
        return tally.metrics(self.labels, "")

    def _show_examples(self, writer: Any) -> None:
        chosen, predictions = self._most_telling(pictures.IMAGES)
        images, _ = self.data.val.batch(chosen)
        step = self.context.epoch + 1
        pictures.write_predictions(writer, images, predictions, self.labels, step)

    def _show_graph(self, writer: Any) -> None:
        config, size = self.config, self.config.image_size
        example = channels_last(torch.zeros(1, 3, size, size, device=self.context.device))
        key = config.backbone, config.head, config.head_dropout > 0, size, len(self.labels)
        model = self.model
        if self.parallelism.divides:  # another like it: weights are not in a graph
            model = backbones.build(config.backbone, len(self.labels), "none", head=config.head).to(
                example.device
            )
        showing.write_graph(writer, model.eval(), example, key)

    @classmethod
    def check(cls, config: Settings, world_size: int) -> None:
        """Refuse an unknown backbone, unsound data, and numbers that do not fit them.

        Nothing is decoded or trained; a data set of torchvision is downloaded where it is absent.

        Raises:
            ValueError: naming the key, the value, what must hold and what to do.

        """
        backbones.check(config.backbone, config.weights)
        transforms.check_transforms(config)
        way = WAYS[config.parallel]
        way.check(config.parallel, config, world_size)
        if way.cuts or isinstance(config.freeze, int):
            frozen = frozen_count(config.freeze, backbones.stage_count(config.backbone))
            before = frozen if cacheable(config, frozen) else 0
            if way.cuts:
                check_parts(config.backbone, before, world_size)
        open_source(config.data, config.data_root)

    @classmethod
    def one_process(cls, config: Settings, gpus: int) -> bool:
        """Whether ``parallel`` says so.

        Raises:
            ValueError: there are too few GPUs for it.

        """
        way = WAYS[config.parallel]
        way.check_devices(config.parallel, gpus)
        return way.one_process

    @classmethod
    def has_test(cls, config: Settings) -> bool:
        """Whether the data have images kept for the end."""
        return bool(open_source(config.data, config.data_root).test.any())

    @classmethod
    def kept_bytes(cls) -> int:
        """The pretrained weights that are kept for later trials."""
        return backbones.kept_bytes()

    @classmethod
    def export(cls, config: Settings, state: dict[str, Any], directory: Path) -> None:
        """Write the whole trained model into ``directory``; see :func:`classifier.export`."""
        export(config, state, directory)

    @classmethod
    def load(cls, directory: Path) -> ImageClassifier:
        """Load what :meth:`export` wrote."""
        return ImageClassifier.load(directory)

import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from trainables import showing
from trainables.image_classification import backbones, pictures, transforms
from trainables.image_classification.classifier import ImageClassifier, export
from trainables.image_classification.config import Settings
from trainables.image_classification.data import ImageData, ImageSet, load_data
from trainables.image_classification.features import FeatureSet
from trainables.image_classification.freezing import (
    freeze,
    frozen_at,
    frozen_count,
    stages,
    train_mode,
    trained_names,
)
from trainables.image_classification.inputs import open_inputs
from trainables.image_classification.sources import open_source
from trainables.image_classification.transforms import channels_last
from trainables.metrics import Tally
from trainables.optimization import Optimization, Part
from trainables.task import Context, Task


class ImageClassification(Task):
    """Fine-tune a pretrained network on images.

    Everything before the freeze boundary keeps its pretrained weights and statistics; the rest and
    a new head are trained with SGD or AdamW, linear warm-up and cosine decay. Where the frozen part
    gives the same features in every epoch, they are computed once and kept for all trials.
    """

    Config = Settings
    logs = ("histograms", "images", "confusion_matrix", "pr_curves", "projection", "graph")
    config: Settings
    data: ImageData

    def __init__(self, config: Settings, context: Context) -> None:
        super().__init__(config, context)
        self.data = load_data(config, context.cache_dir, context.cache_bytes, context.threads)
        torch.manual_seed(context.seed)  # the same head on every rank, whatever ran here before
        self.model = backbones.build(
            config.backbone,
            len(self.data.labels),
            config.weights,
            head=config.head,
            head_dropout=config.head_dropout,
        )
        if config.sync_batchnorm and context.device.type == "cuda" and context.world_size > 1:
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)  # type: ignore[no-untyped-call]
        # Convolutions are faster so: on a CPU, training by a half and more.
        self.model.to(context.device).to(memory_format=torch.channels_last)
        self.examples = self.data.joined() if context.final else self.data.train
        self.batch_size = context.local_batch_size(config.batch_size)
        self.sampler = context.sampler(self.examples)
        steps = len(self._batches())
        total = steps * context.max_epochs
        warmup = min(round(steps * config.warmup_epochs), total // 2)
        self.optimization = Optimization(config, context.device, total=total, warmup=warmup)
        self.mix = transforms.mixing(config, len(self.data.labels))
        self.class_weights = self._class_weights()
        self.watch = showing.Watch(self.model.head)
        self.graph_shown = False
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
        self.kept = set(self.model.state_dict()) if everything else trained_names(self.model)
        parts = {
            "backbone_learning_rate": Part(self.model.features, config.backbone_lr_scale),
            "learning_rate": Part(self.model.head),
        }
        self.optimization.rearrange(self.model, self.kept, parts)
        self.inputs = open_inputs(config, context, self.data, self.model, frozen)
        if config.compile:
            self.inputs.network.compile()
        self.micro_batch = context.micro_batch(
            min(self.batch_size, config.micro_batch or self.batch_size),
            self._attempt,
            self._memory_kind(),
        )
        self.parallel = context.parallel(
            self.inputs.network, forward_sync_buffers=False, gradient_as_bucket_view=True
        )

    def _attempt(self, count: int) -> None:
        """A forward and a backward pass of ``count`` examples, as in a step; changes nothing."""
        device = self.context.device
        ((inputs, targets),) = self.inputs.val.batches([[0] * count])
        inputs, targets = inputs.to(device), targets.to(device)
        # what a step takes beside: the optimizer's state, gradients by bucket, the batch itself
        batch = 2 * self.batch_size * inputs[0].numel() * 4
        extra = torch.empty(
            self.optimization.extra_bytes() + batch, dtype=torch.uint8, device=device
        )
        before = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        try:
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                train_mode(self.model)
                for module in self.model.modules():
                    if isinstance(module, nn.SyncBatchNorm):  # it would wait for the other ranks
                        module.eval()
                with self.optimization.autocast():
                    logits = self.inputs.network(channels_last(self.inputs.augment(inputs)))
                torch.autograd.backward(functional.cross_entropy(logits.float(), targets))
        finally:
            del extra
            self.model.zero_grad()
            for name, buffer in self.model.named_buffers():
                buffer.copy_(before[name])

    def _memory_kind(self) -> tuple[Any, ...]:
        """What decides how much memory an image takes."""
        config = self.config
        chosen = (config.backbone, config.head, config.image_size, config.precision)
        steps = (config.optimizer, config.ema_decay > 0, config.compile, config.batch_size)
        features = self.inputs.network is not self.model
        return *chosen, *steps, self.frozen_stages, features, self.context.world_size > 1

    def _class_weights(self) -> Tensor | None:
        """Of each class, (classes,); their mean over the training images is 1."""
        if self.config.class_weights == "none":
            return None
        counts = torch.bincount(self.examples.targets, minlength=len(self.data.labels))
        weights = len(self.examples) / (len(counts) * counts.clamp(min=1))
        return weights.to(self.context.device)

    def train_epoch(self) -> Mapping[str, float]:
        """Train for one epoch.

        Raises:
            FloatingPointError: the loss is no finite number. Every rank raises it.

        """
        started = time.perf_counter()
        self._freeze(self.context.epoch)
        train_mode(self.model)
        loss_sum = torch.zeros((), device=self.context.device)
        correct = torch.zeros((), device=self.context.device)
        seen = 0
        for inputs, targets in self.inputs.train.batches(self._batches()):
            loss, found = self._train_step(*self._to_device(inputs, targets))
            # Summed where they are: to read them in every step would make a GPU wait.
            loss_sum += loss * len(targets)
            correct += found
            seen += len(targets)
        train_loss = self.context.mean(loss_sum, seen)
        if not math.isfinite(train_loss):
            raise FloatingPointError(
                f"training loss is {train_loss} after {self.optimization.step} steps: lower "
                f"learning_rate ({self.config.learning_rate:g}) or raise warmup_epochs "
                f"({self.config.warmup_epochs:g})"
            )
        self._average_buffers()
        self.context.log("histograms", self._show_histograms)
        return {
            "train_loss": train_loss,
            "train_accuracy": self.context.mean(correct, seen),
            **self.optimization.learning_rates,
            "cached_features": int(self.inputs.network is not self.model),
            "images_per_second": seen * self.context.world_size / (time.perf_counter() - started),
        }

    def _batches(self) -> list[list[int]]:
        """Cut this rank's share of the epoch into batches.

        A single image left over is not trained on: BatchNorm has no statistics of one value.
        """
        indices = list(self.sampler)
        starts = range(0, len(indices), self.batch_size)
        batches = [indices[start : start + self.batch_size] for start in starts]
        if len(batches) > 1 and len(batches[-1]) == 1 < self.batch_size:
            del batches[-1]
        return batches

    def _to_device(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        device = self.context.device
        if device.type == "cuda":  # only from pinned memory does a copy run beside computation
            inputs, targets = inputs.pin_memory(), targets.pin_memory()
        return inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)

    def _train_step(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the optimizer: the mean loss of the batch, and how many were right."""
        wanted = targets
        inputs = self.inputs.augment(inputs)
        if self.mix is not None:
            inputs, wanted = self.mix(inputs, targets)
        self.optimization.begin()
        count = math.ceil(len(targets) / self.micro_batch)
        parts = [tensor.tensor_split(count) for tensor in (inputs, wanted, targets)]
        loss_sum, correct = torch.zeros_like(targets[0]).float(), torch.zeros_like(targets[0])
        for index, (some, some_wanted, some_targets) in enumerate(zip(*parts, strict=True)):
            with self._synchronised(index == count - 1):
                with self.optimization.autocast():
                    logits = self.parallel(channels_last(some))
                loss = self._loss(logits.float(), some_wanted) * (len(some) / len(targets))
                self.optimization.backward(loss)
            loss_sum += loss.detach()
            correct += (logits.detach().argmax(1) == some_targets).sum()
        self.optimization.end()
        return loss_sum, correct

    def _synchronised(self, last: bool) -> AbstractContextManager[None]:
        """Gradients go between the ranks with the last part of a batch only."""
        if last or not isinstance(self.parallel, DistributedDataParallel):
            return nullcontext()
        unsynchronised: AbstractContextManager[None] = self.parallel.no_sync()
        return unsynchronised

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean loss; targets are classes (n,), or their shares (n, classes) after mixing."""
        losses = functional.cross_entropy(
            logits, targets, reduction="none", label_smoothing=self.config.label_smoothing
        )
        if self.class_weights is not None:
            soft = targets.is_floating_point()
            losses *= targets @ self.class_weights if soft else self.class_weights[targets]
        return losses.mean()

    def _average_buffers(self) -> None:
        """Give every rank the mean of all ranks' running statistics.

        All then evaluate the same network, which is also the one that rank 0 saves.
        """
        buffers = {name for name, _ in self.model.named_buffers()} & self.kept
        floats = [t for t in self.optimization.tensors(buffers) if t.is_floating_point()]
        if self.context.world_size == 1 or not floats:
            return
        summed = self.context.sum(torch.cat([buffer.flatten() for buffer in floats]))
        means = (summed / self.context.world_size).split_with_sizes([b.numel() for b in floats])
        for buffer, mean in zip(floats, means, strict=True):
            buffer.copy_(mean.view_as(buffer))

    def evaluate(self) -> Mapping[str, float]:
        """Evaluate on the whole validation set; each image counts once, whatever the world size."""
        inputs, context = self.inputs, self.context
        if context.wants("projection"):
            self.watch.start(len(self._shard(inputs.val)))
        shown = context.wants("images")
        tally = self._evaluate(inputs.val, inputs.network, inputs.prepare, watch=shown)
        self.watch.stop()
        self._show_evaluation(tally)
        self.watch.forget()
        return tally.metrics(self.data.labels, "val_")

    def test(self) -> Mapping[str, float]:
        """Evaluate on the images kept for the end, where there are any."""
        if self.data.test is None:
            return {}
        prepare = transforms.evaluation(
            self.config.image_size, *backbones.normalisation(self.config.backbone)
        )
        return self._evaluate(self.data.test, self.model, prepare).metrics(self.data.labels, "")

    @torch.inference_mode()
    def _evaluate(
        self,
        images: ImageSet | FeatureSet,
        network: nn.Module,
        prepare: nn.Module,
        *,
        watch: bool = False,
    ) -> Tally:
        """What all ranks count; ``watch``: this one keeps its predictions too."""
        self.model.eval()
        tally = Tally(len(self.data.labels), self.context.device)
        mine = self._shard(images)
        starts = range(0, len(mine), self.micro_batch)
        batches = [mine[start : start + self.micro_batch] for start in starts]
        with self.optimization.averaged(), self.optimization.autocast():
            for inputs, targets in images.batches(batches):
                some, classes = self._to_device(inputs, targets)
                # Not through DDP, whose ranks would have to take the same number of batches.
                logits = network(channels_last(prepare(some)))
                tally.add(logits, classes)
                if watch:
                    self.watch.add(logits)
        tally.reduce(self.context)
        return tally

    def _shard(self, images: ImageSet | FeatureSet) -> list[int]:
        """The indices that this rank evaluates."""
        return list(self.context.shard(len(images)))

    # -- for TensorBoard ------------------------------------------------------------------------

    def _show_histograms(self, writer: Any) -> None:
        """Of the weights, and of the gradients of the epoch's last step."""
        trained = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        showing.write_histograms(writer, trained, self.context.epoch + 1)

    def _show_evaluation(self, tally: Tally) -> None:
        """Show what all ranks have counted, and what this one has kept of it."""
        context, labels, step = self.context, self.data.labels, self.context.epoch + 1
        context.log("images", self._show_images)
        if (counts := tally.confusion) is not None and len(labels) <= showing.CLASSES_DRAWN:
            context.log(
                "confusion_matrix", lambda w: showing.write_confusion(w, counts, labels, step)
            )
        if tally.has_pr_curves:
            context.log("pr_curves", lambda w: showing.write_pr_curves(w, tally, labels, step))
        context.log("projection", self._show_projection)
        if not self.graph_shown:
            context.log("graph", self._show_graph)

    def _show_images(self, writer: Any) -> None:
        val, labels, shard = self.data.val, self.data.labels, self._shard(self.data.val)
        predictions = self.watch.predictions(val.targets[shard])
        chosen = predictions.most_telling(pictures.IMAGES)
        images, _ = val.batch([shard[i] for i in chosen.tolist()])
        step = self.context.epoch + 1
        pictures.write_predictions(writer, images, predictions.at(chosen), labels, step)

    def _show_projection(self, writer: Any) -> None:
        features = torch.cat(self.watch.features)
        true = self.data.val.targets[self._shard(self.data.val)][:: self.watch.every]
        step = self.context.epoch + 1
        showing.write_projection(writer, features, true, self.data.labels, step)

    def _show_graph(self, writer: Any) -> None:
        config, size = self.config, self.config.image_size
        self.graph_shown = True  # if it cannot be, that is said once
        example = channels_last(torch.zeros(1, 3, size, size, device=self.context.device))
        key = config.backbone, config.head, config.head_dropout > 0, size, len(self.data.labels)
        showing.write_graph(writer, self.model, example, key)

    def state_dict(self) -> dict[str, Any]:
        """What training changed, copied.

        Frozen weights are not in it: they are read from their source again. The optimizer's state
        goes by the names of the parameters.
        """
        state = self.model.state_dict()
        return {
            "model": {name: state[name].clone() for name in sorted(self.kept)},
            **self.optimization.state_dict(),
            "labels": list(self.data.labels),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`, exactly.

        Raises:
            ValueError: the state is of other classes or of another network.

        """
        if state["labels"] != self.data.labels:
            raise ValueError(
                f"data is {self.config.data!r}, whose classes are {self.data.labels}, but the "
                f"checkpoint's are {state['labels']}: resume on the data it was trained on"
            )
        if state["model"].keys() != self.kept:
            raise ValueError(
                f"freeze is {self.config.freeze!r} and backbone {self.config.backbone!r}, but the "
                f"checkpoint was trained with others: resume with the settings it was trained with"
            )
        backbones.fill(self.model, state["model"])
        self.optimization.load_state_dict(state)

    @classmethod
    def check(cls, config: Settings, world_size: int) -> None:
        """Refuse an unknown backbone, unsound data, and numbers that do not fit them.

        Nothing is decoded or trained; a data set of torchvision is downloaded where it is absent.

        Raises:
            ValueError: naming the key, the value, what must hold and what to do.

        """
        backbones.check(config.backbone, config.weights)
        transforms.check_transforms(config)
        Context(world_size=world_size).local_batch_size(config.batch_size)
        if isinstance(config.freeze, int):
            frozen_count(config.freeze, backbones.stage_count(config.backbone))
        open_source(config.data, config.data_root)

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

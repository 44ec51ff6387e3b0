import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.image_classification import backbones, transforms
from trainables.image_classification.classifier import ImageClassifier, export
from trainables.image_classification.config import Settings
from trainables.image_classification.data import load_data
from trainables.image_classification.freezing import freeze, frozen_count, train_mode, trained_names
from trainables.image_classification.sources import open_source
from trainables.task import Context, Task


class ImageClassification(Task):
    """Fine-tune a pretrained network on folders of images.

    Everything before the freeze boundary keeps its pretrained weights and statistics; the rest and
    a new head are trained with SGD or AdamW, linear warm-up and cosine decay.
    """

    Config = Settings
    config: Settings

    def __init__(self, config: Settings, context: Context) -> None:
        super().__init__(config, context)
        self.data = load_data(config, context.cache_dir)
        torch.manual_seed(context.seed)  # the same head on every rank, whatever ran here before
        self.model = backbones.build(config.backbone, len(self.data.labels), config.weights)
        freeze(self.model.features, config.freeze)
        # Convolutions are faster so: on a CPU, training by a half and more.
        self.model.to(memory_format=torch.channels_last)
        self.parallel = context.parallel(
            self.model, forward_sync_buffers=False, gradient_as_bucket_view=True
        )
        # Random frozen weights cannot be had again from a file, so they are kept like trained ones.
        everything = config.weights == "none"
        self.kept = set(self.model.state_dict()) if everything else trained_names(self.model)
        self.optimizer = self._optimizer()
        self.step = 0
        self.batch_size = context.local_batch_size(config.batch_size)
        self.sampler = context.sampler(self.data.train)
        self.steps_per_epoch = sum(1 for _ in self._batches())
        mean, std = backbones.normalisation(config.backbone)
        self.augment = transforms.training(config, mean, std)
        self.prepare = transforms.evaluation(config.image_size, mean, std)

    def _optimizer(self) -> torch.optim.Optimizer:
        """Two groups of parameters, each with its own peak learning rate."""
        config = self.config
        backbone = [p for p in self.model.features.parameters() if p.requires_grad]
        groups = [
            {"params": backbone, "peak": config.learning_rate * config.backbone_lr_scale},
            {"params": list(self.model.head.parameters()), "peak": config.learning_rate},
        ]
        groups = [group for group in groups if group["params"]]
        if config.optimizer == "sgd":
            return torch.optim.SGD(
                groups, momentum=config.momentum, weight_decay=config.weight_decay
            )
        return torch.optim.AdamW(groups, weight_decay=config.weight_decay)

    def train_epoch(self) -> Mapping[str, float]:
        """Train for one epoch.

        Raises:
            FloatingPointError: the loss is no finite number. Every rank raises it.

        """
        started = time.perf_counter()
        train_mode(self.model)
        loss_sum = torch.zeros((), device=self.context.device)
        correct = torch.zeros((), device=self.context.device)
        seen = 0
        for indices in self._batches():
            images, targets = self._to_device(*self.data.train.batch(indices))
            loss, logits = self._train_step(self.augment(images), targets)
            # Summed where they are: to read them in every step would make a GPU wait.
            loss_sum += loss * len(indices)
            correct += (logits.argmax(1) == targets).sum()
            seen += len(indices)
        train_loss = self.context.mean(loss_sum, seen)
        if not math.isfinite(train_loss):
            raise FloatingPointError(
                f"training loss is {train_loss} after {self.step} steps: lower learning_rate "
                f"({self.config.learning_rate:g}) or raise warmup_epochs "
                f"({self.config.warmup_epochs:g})"
            )
        self._average_buffers()
        return {
            "train_loss": train_loss,
            "train_accuracy": self.context.mean(correct, seen),
            "learning_rate": self.optimizer.param_groups[-1]["lr"],
            "images_per_second": seen * self.context.world_size / (time.perf_counter() - started),
        }

    def _batches(self) -> Iterator[list[int]]:
        """Cut this rank's share of the epoch into batches.

        A single image left over is not trained on: BatchNorm has no statistics of one value.
        """
        indices = list(self.sampler)
        for start in range(0, len(indices), self.batch_size):
            batch = indices[start : start + self.batch_size]
            if len(batch) > 1 or start == 0 or self.batch_size == 1:
                yield batch

    def _to_device(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        device = self.context.device
        if device.type == "cuda":  # only from pinned memory does a copy run beside computation
            images, targets = images.pin_memory(), targets.pin_memory()
        return images.to(device, non_blocking=True), targets.to(device, non_blocking=True)

    def _train_step(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        total = self.steps_per_epoch * self.context.max_epochs
        warmup = round(self.steps_per_epoch * self.config.warmup_epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * schedule(self.step, total, warmup)
        logits = self.parallel(images.contiguous(memory_format=torch.channels_last))
        loss = functional.cross_entropy(
            logits, targets, label_smoothing=self.config.label_smoothing
        )
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.step += 1
        return loss.detach(), logits.detach()

    def _average_buffers(self) -> None:
        """Give every rank the mean of all ranks' running statistics.

        All then evaluate the same network, which is also the one that rank 0 saves.
        """
        state = self.model.state_dict()
        buffers = [name for name, _ in self.model.named_buffers() if name in self.kept]
        floats = [state[name] for name in buffers if state[name].is_floating_point()]
        if self.context.world_size == 1 or not floats:
            return
        summed = self.context.sum(torch.cat([buffer.flatten() for buffer in floats]))
        means = (summed / self.context.world_size).split_with_sizes([b.numel() for b in floats])
        for buffer, mean in zip(floats, means, strict=True):
            buffer.copy_(mean.view_as(buffer))

    @torch.inference_mode()
    def evaluate(self) -> Mapping[str, float]:
        """Evaluate on the whole validation set; each image counts once, whatever the world size."""
        self.model.eval()
        val, count = self.data.val, len(self.data.labels)
        mine = list(self.context.shard(len(val)))
        loss_sum = torch.zeros((), device=self.context.device)
        confusion = torch.zeros(count * count, dtype=torch.int64, device=self.context.device)
        for start in range(0, len(mine), self.batch_size):
            images, targets = self._to_device(*val.batch(mine[start : start + self.batch_size]))
            # Not through DDP, whose ranks would have to take the same number of batches.
            logits = self.model(self.prepare(images).contiguous(memory_format=torch.channels_last))
            loss_sum += functional.cross_entropy(logits, targets, reduction="sum")
            confusion += torch.bincount(targets * count + logits.argmax(1), minlength=count * count)
        confusion = self.context.sum(confusion).view(count, count).cpu()
        return {
            "val_loss": self.context.mean(loss_sum, len(mine)),
            "val_accuracy": confusion.trace().item() / len(val),
            "val_macro_f1": macro_f1(confusion),
        }

    def state_dict(self) -> dict[str, Any]:
        """What training changed, copied.

        Frozen weights are not in it: they are read from their source again. The optimizer's state
        goes by the names of the parameters; its learning rates follow from the step.
        """
        state = self.model.state_dict()
        parameters = self.model.named_parameters()
        return {
            "model": {name: state[name].clone() for name in sorted(self.kept)},
            "optimizer": {
                name: {key: value.clone() for key, value in self.optimizer.state[p].items()}
                for name, p in parameters
                if p in self.optimizer.state
            },
            "step": self.step,
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
        self.optimizer.state.clear()
        for name, parameter in self.model.named_parameters():
            if name in state["optimizer"]:
                self.optimizer.state[parameter] = {
                    key: _like(parameter, key, value)
                    for key, value in state["optimizer"][name].items()
                }
        self.step = state["step"]

    @classmethod
    def check(cls, config: Settings, world_size: int) -> None:
        """Refuse an unknown backbone, unsound data, and numbers that do not fit them.

        Nothing is decoded, downloaded or trained.

        Raises:
            ValueError: naming the key, the value, what must hold and what to do.

        """
        backbones.check(config.backbone, config.weights)
        Context(world_size=world_size).local_batch_size(config.batch_size)
        if isinstance(config.freeze, int):
            frozen_count(config.freeze, backbones.stage_count(config.backbone))
        open_source(config.data)

    @classmethod
    def export(cls, config: Settings, state: dict[str, Any], directory: Path) -> None:
        """Write the whole trained model into ``directory``; see :func:`classifier.export`."""
        export(config, state, directory)

    @classmethod
    def load(cls, directory: Path) -> ImageClassifier:
        """Load what :meth:`export` wrote."""
        return ImageClassifier.load(directory)


def schedule(step: int, total: int, warmup: int) -> float:
    """The share of its peak that the learning rate has at ``step`` (from 0) of ``total``.

    It rises evenly over ``warmup`` steps, then falls along half a cosine to 0 at ``total``.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(total - warmup, 1)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1)))


def macro_f1(confusion: Tensor) -> float:
    """The mean F1 over the classes that occur, as a label or as a prediction.

    ``confusion`` is (classes, classes): rows are labels, columns predictions.
    """
    occurring = confusion.sum(0) + confusion.sum(1)
    scores = 2 * confusion.diagonal() / occurring
    return float(scores[occurring > 0].double().mean())


def _like(parameter: nn.Parameter, key: str, value: Tensor) -> Tensor:
    """A copy of an optimizer's ``value``, where and laid out in memory as the optimizer has it."""
    if key == "step":  # the optimizers count on the CPU
        return value.clone()
    return torch.empty_like(parameter).copy_(value)

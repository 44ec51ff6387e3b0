"""Training a network to tell classes apart, whatever it is shown: the loop, and its state."""

import math
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from trainables import showing
from trainables.metrics import Tally
from trainables.network import Classifier, train_mode
from trainables.optimization import Optimization, OptimizationSettings, Part
from trainables.parallelism import Ddp, Divisible, Parallelism
from trainables.task import Context, Task


class ClassificationSettings(OptimizationSettings):
    """What a trial can be told, whatever is classified."""

    data: str = Field(min_length=1, description="Where the examples are.")
    validation_fraction: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Part of every class held out for validation, where the data name none.",
    )
    split_seed: NonNegativeInt = Field(
        0, description="Seed of that split; the same for all trials."
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none",
        description="balanced: in the training loss, an example counts in inverse proportion to "
        "the number of examples of its class.",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Part of the target spread evenly over all classes."
    )
    batch_size: PositiveInt = Field(
        32, description="Examples in one optimizer step, over all ranks together."
    )
    micro_batch: PositiveInt | None = Field(
        None,
        description="Examples that go through the network at once on a rank; gradients add up to "
        "batch_size. null: as many as fit into the GPU's memory.",
    )
    compile: bool = Field(
        False, description="Compile the network with torch.compile: slow to start, then faster."
    )


class Examples(Protocol):
    """A number of examples with their classes."""

    targets: Tensor
    """The class of each: (N,) int64."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...

    def batches(self, batches: Sequence[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """For each list of indices, what the network is fed (n, ...) and classes (n,) int64."""


@dataclass(frozen=True)
class Inputs:
    """Where batches come from and what they go through."""

    train: Examples
    val: Examples
    augment: nn.Module
    """What a training batch goes through, on the device."""
    prepare: nn.Module
    """The same for validation: it draws nothing."""
    network: nn.Module
    """From there to logits; its modules are the model's."""


class Classification(Task):
    """Train a :class:`Classifier` with SGD or AdamW, linear warm-up and cosine decay.

    A subclass builds it and calls ``super().__init__``, then :meth:`_arrange`.

    Args:
        config: the trial's settings.
        context: where it runs.
        model: the network, with the same weights on every rank.
        labels: the classes' names, in the order of the logits.
        examples: what is trained on.
        parallelism: how the ranks share the work; None: by DDP.

    """

    unit: ClassVar[str] = "examples"
    """What is classified, in the plural: the kind of log that shows some of them, too."""
    config: ClassificationSettings
    inputs: Inputs

    def __init__(
        self,
        config: ClassificationSettings,
        context: Context,
        *,
        model: Classifier,
        labels: list[str],
        examples: Examples,
        parallelism: Parallelism | None = None,
    ) -> None:
        super().__init__(config, context)
        self.parallelism = parallelism or Ddp(context)
        self.model = model.to(context.device)
        self.labels = labels
        self.examples = examples
        _, shares = share = self.parallelism.share
        whole = config.batch_size
        self.batch_size = context.local_batch_size(whole) if shares > 1 else whole
        """Examples of a batch that are this rank's."""
        self.sampler = context.sampler(examples, share=share)  # type: ignore[arg-type] # counts only
        steps = len(self._batches())
        total = steps * context.max_epochs
        warmup = min(round(steps * config.warmup_epochs), total // 2)
        self.optimization = Optimization(
            config,
            context.device,
            total=total,
            warmup=warmup,
            clip=self.parallelism.clip,
            place=self.parallelism.place,
        )
        self.class_weights = self._class_weights()
        self.watch = showing.Watch(self.model.head)
        self.graph_shown = False
        self.kept: set[str] = set()
        """What training changes in ``model.state_dict()``."""

    def _arrange(self, inputs: Inputs, kept: set[str], parts: Mapping[str, Part]) -> None:
        """From now on, train what has ``requires_grad``, fed with ``inputs``.

        Args:
            inputs: what the network is fed.
            kept: the names of what training changes in ``model.state_dict()``.
            parts: what the model is made of; see :meth:`Optimization.rearrange`.

        """
        self.kept, self.inputs, parallelism = kept, inputs, self.parallelism
        parallelism.divide(self._divisible())
        self.optimization.rearrange(self.model, kept, parts)
        if self.config.compile:
            parallelism.network.compile()
        self.micro_batch = self.context.micro_batch(
            parallelism.micro_batch(self.batch_size, self.config.micro_batch),
            self._attempt if parallelism.probes else None,
            self._memory_kind(),
        )
        parallelism.connect()

    # -- what a subclass says -------------------------------------------------------------------

    def _divisible(self) -> Divisible:
        """What is trained, as the ranks may share it."""
        return Divisible(self.model, self.inputs.network, autocast=self.optimization.autocast)

    def _prepared(self, inputs: Tensor, prepare: nn.Module) -> Tensor:
        """What the network is fed, of a batch on the device."""
        prepared: Tensor = prepare(inputs)
        return prepared

    def _augmented(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """What it is fed in training, and the targets (n,), or their shares (n, classes).

        On a rank that feeds; the targets are needed on the others too.
        """
        if self.parallelism.feeds:
            inputs = self._prepared(inputs, self.inputs.augment)
        return inputs, targets

    def _largest(self, count: int) -> tuple[Tensor, Tensor]:
        """A batch of ``count`` examples that takes as much memory as any."""
        return next(self.inputs.val.batches([[0] * count]))

    def _memory_kind(self) -> tuple[Any, ...]:
        """What decides how much memory an example takes."""
        config = self.config
        steps = (config.precision, config.optimizer, config.ema_decay > 0, config.compile)
        ranks = type(self.parallelism), self.context.world_size, self.context.devices
        return type(self), *steps, config.batch_size, *ranks

    @abstractmethod
    def _architecture(self) -> str:
        """The settings that decide which weights there are, as ``key is value``."""

    @abstractmethod
    def _show_examples(self, writer: Any) -> None:
        """Of what ``watch`` has kept, show what the most telling examples were taken for."""

    @abstractmethod
    def _show_graph(self, writer: Any) -> None:
        """Show the network's graph."""

    # -- an epoch -------------------------------------------------------------------------------

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
        for inputs, targets in self._fed(self.inputs.train, self._batches()):
            loss, hits = self._train_step(*self._to_device(inputs, targets))
            # Summed where they are: to read them in every step would make a GPU wait.
            loss_sum += loss * len(hits)
            correct += hits.sum()
            seen += len(hits)
        train_loss = self.context.mean(loss_sum, seen)
        if not math.isfinite(train_loss):
            raise FloatingPointError(
                f"training loss is {train_loss} after {self.optimization.step} steps: lower "
                f"learning_rate ({self.config.learning_rate:g}) or raise warmup_epochs "
                f"({self.config.warmup_epochs:g})"
            )
        self._average_buffers()
        self.context.log("histograms", self._show_histograms)
        seconds = time.perf_counter() - started
        return {
            "train_loss": train_loss,
            "train_accuracy": self.context.mean(correct, seen),
            **self.optimization.learning_rates,
            f"{self.unit}_per_second": seen * self.parallelism.share[1] / seconds,
        }

    def _batches(self) -> list[list[int]]:
        """Cut this rank's share of the epoch into batches.

        A single example left over is not trained on: BatchNorm has no statistics of one value.
        """
        indices = list(self.sampler)
        starts = range(0, len(indices), self.batch_size)
        batches = [indices[start : start + self.batch_size] for start in starts]
        if len(batches) > 1 and len(batches[-1]) == 1 < self.batch_size:
            del batches[-1]
        return batches

    def _fed(
        self, examples: Examples, batches: Sequence[Sequence[int]]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """What this rank has of each batch: inputs and classes, or the classes alone."""
        if self.parallelism.feeds:
            return examples.batches(batches)
        return ((torch.empty(0), examples.targets[list(batch)]) for batch in batches)

    def _to_device(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        device = self.context.device
        if device.type == "cuda":  # only from pinned memory does a copy run beside computation
            inputs, targets = inputs.pin_memory(), targets.pin_memory()
        return inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)

    def _train_step(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the optimizer: the mean loss of what is judged here, and which were right."""
        inputs, wanted = self._augmented(inputs, targets)
        self.optimization.begin()
        loss, logits = self.parallelism.step(
            inputs, wanted, self.micro_batch, self._losses, self.optimization.backward
        )
        self.optimization.end()
        return loss, logits.argmax(1) == targets[: len(logits)]

    def _class_weights(self) -> Tensor | None:
        """Of each class, (classes,); their mean over the training examples is 1."""
        if self.config.class_weights == "none":
            return None
        counts = torch.bincount(self.examples.targets, minlength=len(self.labels))
        weights = len(self.examples) / (len(counts) * counts.clamp(min=1))
        return weights.to(self.context.device)

    def _losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of each example, (n,); targets are classes (n,), or their shares (n, classes)."""
        losses = functional.cross_entropy(
            logits, targets, reduction="none", label_smoothing=self.config.label_smoothing
        )
        if self.class_weights is not None:
            soft = targets.is_floating_point()
            losses *= targets @ self.class_weights if soft else self.class_weights[targets]
        return losses

    def _average_buffers(self) -> None:
        """Give every rank the mean of all ranks' running statistics, where each has its own.

        All then evaluate the same network, which is also the one that rank 0 saves.
        """
        _, shares = self.parallelism.share
        if shares == 1:
            return
        buffers = {name for name, _ in self.model.named_buffers()} & self.kept
        floats = [t for t in self.optimization.tensors(buffers) if t.is_floating_point()]
        if not floats:
            return
        summed = self.context.sum(torch.cat([buffer.flatten() for buffer in floats]))
        means = (summed / shares).split_with_sizes([b.numel() for b in floats])
        for buffer, mean in zip(floats, means, strict=True):
            buffer.copy_(mean.view_as(buffer))

    def _attempt(self, count: int) -> None:
        """A forward and a backward pass of ``count`` examples, as in a step; changes nothing."""
        device = self.context.device
        inputs, targets = (tensor.to(device) for tensor in self._largest(count))
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
                    logits = self.parallelism.network(self._prepared(inputs, self.inputs.augment))
                torch.autograd.backward(functional.cross_entropy(logits.float(), targets))
        finally:
            del extra
            self.model.zero_grad()
            for name, buffer in self.model.named_buffers():
                buffer.copy_(before[name])

    # -- what it is judged by -------------------------------------------------------------------

    def evaluate(self) -> Mapping[str, float]:
        """Evaluate on the whole validation set; each example counts once, however many ranks."""
        inputs, context = self.inputs, self.context
        if context.wants("projection"):
            self.watch.start(len(self._shard(inputs.val)))
        shown = context.wants(self.unit)
        tally = self._evaluate(inputs.val, inputs.prepare, self.parallelism.forward, watch=shown)
        self.watch.stop()
        self._show_evaluation(tally)
        self.watch.forget()
        return tally.metrics(self.labels, "val_")

    @torch.inference_mode()
    def _evaluate(
        self,
        examples: Examples,
        prepare: nn.Module,
        forward: Callable[[Tensor, int, int], Tensor],
        *,
        watch: bool = False,
    ) -> Tally:
        """What all ranks count; ``watch``: this one keeps its predictions too."""
        self.model.eval()
        tally = Tally(len(self.labels), self.context.device)
        mine = self._shard(examples)
        size = self.parallelism.evaluated_at_once(self.micro_batch)
        batches = [mine[start : start + size] for start in range(0, len(mine), size)]
        fed = self._fed(examples, self.parallelism.even(batches))
        with self.optimization.averaged(), self.optimization.autocast():
            for number, (inputs, targets) in enumerate(fed):
                some, classes = self._to_device(inputs, targets)
                if self.parallelism.feeds:
                    some = self._prepared(some, prepare)
                logits = forward(some, len(classes), self.micro_batch)
                if not len(logits) or number >= len(batches):  # judged elsewhere, or not at all
                    continue
                tally.add(logits, classes)
                if watch:
                    self.watch.add(logits)
        tally.reduce(self.context)
        return tally

    def _shard(self, examples: Examples) -> list[int]:
        """The indices that this rank evaluates, perhaps with others."""
        index, shares = self.parallelism.share
        return list(range(index, len(examples), shares))

    # -- for TensorBoard ------------------------------------------------------------------------

    def _show_histograms(self, writer: Any) -> None:
        """Of the weights, and of the gradients of the epoch's last step."""
        showing.write_histograms(writer, self.optimization.parameters, self.context.epoch + 1)

    def _show_evaluation(self, tally: Tally) -> None:
        """Show what all ranks have counted, and what this one has kept of it."""
        context, labels, step = self.context, self.labels, self.context.epoch + 1
        context.log(self.unit, self._show_examples)
        if (counts := tally.confusion) is not None and len(labels) <= showing.CLASSES_DRAWN:
            context.log(
                "confusion_matrix", lambda w: showing.write_confusion(w, counts, labels, step)
            )
        if tally.has_pr_curves:
            context.log("pr_curves", lambda w: showing.write_pr_curves(w, tally, labels, step))
        context.log("projection", self._show_projection)
        if not self.graph_shown:
            context.log("graph", self._try_graph)

    def _most_telling(self, count: int) -> tuple[list[int], showing.Predictions]:
        """Indices of validation examples to look at, mistakes first, and what they were taken for.

        Of those that this rank has evaluated, at most ``count``.
        """
        shard = self._shard(self.inputs.val)
        predictions = self.watch.predictions(self.inputs.val.targets[shard])
        chosen = predictions.most_telling(count)
        return [shard[i] for i in chosen.tolist()], predictions.at(chosen)

    def _show_projection(self, writer: Any) -> None:
        true = self.inputs.val.targets[self._shard(self.inputs.val)][:: self.watch.every]
        features = torch.cat(self.watch.features)[: len(true)]  # what fills a batch up comes last
        showing.write_projection(writer, features, true, self.labels, self.context.epoch + 1)

    def _try_graph(self, writer: Any) -> None:
        self.graph_shown = True  # if it cannot be, that is said once
        self._show_graph(writer)

    # -- checkpoints ----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What training changed, copied; the same whatever the ranks have each of it.

        Frozen weights are not in it: they are read from their source again. The optimizer's state
        goes by the names of the parameters.
        """
        own = {name: t for name, t in self.model.state_dict().items() if not t.is_meta}
        return self.parallelism.gather(
            {
                "model": {name: own[name].clone() for name in sorted(self.kept & own.keys())},
                **self.optimization.state_dict(),
                "labels": list(self.labels),
            }
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`, exactly.

        Raises:
            ValueError: the state is of other classes or of another network.

        """
        if state["labels"] != self.labels:
            raise ValueError(
                f"data is {self.config.data!r}, whose classes are {self.labels}, but the "
                f"checkpoint's are {state['labels']}: resume on the data it was trained on"
            )
        if state["model"].keys() != self.kept:
            raise ValueError(
                f"{self._architecture()}, but the checkpoint was trained with others: resume with "
                f"the settings it was trained with"
            )
        self.optimization.fill(state["model"])
        self.optimization.load_state_dict(state)

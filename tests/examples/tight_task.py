"""An image classifier for which only so many images at once fit into memory, on one rank.

Or that fails on it otherwise.
"""

import torch

from trainables.image_classification import ImageClassification
from trainables.image_classification.config import Settings

FITTING = {"roomy": 1000, "in the probe": 3, "in mid-epoch": 3, "broken": 1000}


class TightSettings(Settings):
    case: str = "roomy"
    on_rank: int = 1


class Tight(ImageClassification):
    Config = TightSettings

    def __init__(self, config, context):
        context.probes = config.case in ("in the probe", "hopeless")  # as on a GPU
        super().__init__(config, context)

    def _freeze(self, epoch):
        super()._freeze(epoch)
        self.parallelism.network.register_forward_pre_hook(lambda _, inputs: self._take(*inputs))

    def _attempt(self, count):
        self._check(count)
        super()._attempt(count)

    def _memory_kind(self):
        return self.config.case, *super()._memory_kind()

    def _take(self, images):
        """In the second epoch, memory runs out after some steps, or something else fails."""
        if self.model.training and self.optimization.step == 7:
            self._check(len(images))
            if self.config.case == "broken" and self.context.rank == self.config.on_rank:
                raise ValueError("it is broken")

    def _check(self, count):
        if self.context.rank == self.config.on_rank and count > FITTING.get(self.config.case, 0):
            raise torch.OutOfMemoryError(f"{count} images are too many")

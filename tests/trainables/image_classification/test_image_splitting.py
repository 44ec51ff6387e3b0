import copy
from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.image_classification import backbones
from trainables.image_classification.freezing import freeze, stages
from trainables.image_classification.splitting import Split, split
from trainables.network import train_mode

torch.set_num_threads(1)  # threads that wait for each other stall on a busy machine

# A name, the side of its images, how many stages are frozen, and what crosses the boundary.
CUTS = [
    ("efficientnet_lite0", 64, 6, (112, 4, 4)),
    ("test_efficientnet", 64, 2, (16, 32, 32)),
    ("resnet18", 64, 1, (64, 16, 16)),  # after its pooling, which has no parameters
    ("mobilenet_v3_small", 64, 13, (576,)),
    ("densenet121", 64, 5, (256, 4, 4)),
    ("convnext_tiny", 64, 5, (384, 4, 4)),
    ("swin_t", 64, 3, (8, 8, 192)),
    ("swin_tiny_patch4_window7_224", 224, 4, (14, 14, 384)),
    ("googlenet", 64, 4, (256, 8, 8)),
    ("regnetx_002", 64, 3, (56, 8, 8)),
    ("hrnet_w18_small", 64, 3, (128, 16, 16)),
    ("mixer_s32_224", 224, 7, (49, 512)),
    ("deit_tiny_patch16_224", 224, 11, (197, 192)),
    ("test_nfnet", 64, 3, (64, 8, 8)),
    ("test_convnext", 64, 2, (24, 16, 16)),
    ("test_vit", 160, 4, (101, 64)),  # interpolates its position embeddings
    ("test_vit3", 160, 5, (101, 96)),  # has an attention mask as an argument
    ("test_maxvit", 160, 3, (64, 20, 20)),
]


def frozen_features(backbone: str, count: int):
    torch.manual_seed(0)
    model = backbones.build(backbone, 2, "none", head_dropout=0.3)
    freeze(model.features, count)
    return model


def cut(features: nn.Module, count: int, size: int) -> Split:
    parts = split(features, count, torch.rand(2, 3, size, size))
    assert parts is not None
    return parts


@pytest.mark.parametrize(("backbone", "size", "count", "shape"), CUTS)
def test_the_parts_do_what_the_whole_does(
    backbone: str, size: int, count: int, shape: tuple[int, ...]
):
    features = frozen_features(backbone, count).features.eval()
    images = torch.rand(3, 3, size, size)

    parts = cut(features, count, size)

    with torch.no_grad():
        boundary = parts.frozen(images)
        assert tuple(boundary.shape) == (3, *shape)
        assert torch.equal(parts.rest(boundary), features(images))


@pytest.mark.parametrize(("backbone", "size", "count", "_shape"), CUTS)
def test_each_part_has_the_parameters_of_its_side_and_they_are_the_networks_own(
    backbone: str, size: int, count: int, _shape: tuple[int, ...]
):
    features = frozen_features(backbone, count).features
    found = stages(features)

    parts = cut(features, count, size)

    for part, own in ((parts.frozen, found[:count]), (parts.rest, found[count:])):
        ids = {id(parameter) for stage in own for parameter in stage.parameters}
        assert {id(parameter) for parameter in part.parameters()} == ids
    buffers = {id(buffer) for buffer in features.buffers()}
    assert {id(b) for b in (*parts.frozen.buffers(), *parts.rest.buffers())} <= buffers


@pytest.mark.parametrize(("backbone", "size", "count", "_shape"), CUTS)
def test_a_training_step_is_the_same_with_the_parts_and_with_the_whole(
    backbone: str, size: int, count: int, _shape: tuple[int, ...]
):
    model = frozen_features(backbone, count)
    before, twin = copy.deepcopy(model), copy.deepcopy(model)
    images = torch.rand(2, 3, size, size)
    parts = cut(model.features, count, size)
    with torch.no_grad():
        boundary = parts.frozen.eval()(images)

    train(model, lambda: parts.rest(boundary))
    train(twin, lambda: twin.features(images))

    trained, expected = model.state_dict(), twin.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in trained.items())
    moved = {n for n, p in before.named_parameters() if not torch.equal(p, trained[n])}
    assert any(name.startswith("features.") for name in moved)


def train(model: backbones.Classifier, run: Callable[[], Tensor]):
    """One step, with the dropout and stochastic depth of the same random numbers."""
    torch.manual_seed(7)
    train_mode(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    loss = functional.cross_entropy(model.head(run()), torch.tensor([0, 1]))
    torch.autograd.backward(loss)
    optimizer.step()


def test_stochastic_depth_is_drawn_anew_in_training_only():
    features = frozen_features("convnext_tiny", 3).features
    rest = cut(features, 3, 64).rest
    boundary = torch.rand(2, 192, 8, 8)
    with torch.no_grad():
        for module in features.modules():
            if hasattr(module, "layer_scale"):
                module.layer_scale.fill_(1)  # at 1e-6, what is dropped would hardly be missed

        train_mode(features)
        in_training = [rest(boundary) for _ in range(2)]
        features.eval()
        in_evaluation = [rest(boundary) for _ in range(2)]

    assert not torch.allclose(*in_training)
    assert torch.equal(*in_evaluation)


def test_all_stages_frozen_leave_nothing_to_the_rest():
    features = frozen_features("mobilenet_v2", 19).features

    parts = cut(features, 19, 32)

    assert parts.frozen is features
    assert isinstance(parts.rest, nn.Identity)


def test_trying_the_parts_leaves_the_network_and_the_random_state_as_they_were():
    model = frozen_features("test_efficientnet", 2)
    model.features.blocks[1].eval()
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = torch.rand(2, 3, 32, 32)
    random = torch.get_rng_state()

    assert split(model.features, 2, images) is not None

    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize(
    ("backbone", "size", "count"),
    [
        ("mobilenet_v2", 32, 0),  # nothing is frozen
        ("hrnet_w18_small", 64, 6),  # three resolutions cross
        ("mvitv2_tiny", 224, 3),  # the grid's height and width cross
        ("ghostnet_050", 64, 3),  # its own forward pass asks whether it is in training
        ("cait_xxs24_224", 224, 9),  # the class token of the first stage joins after the last
        ("twins_svt_small", 224, 3),  # its forward pass cannot be traced
    ],
)
def test_there_is_no_cut_where_one_tensor_does_not_part_frozen_from_trained(
    backbone: str, size: int, count: int
):
    features = frozen_features(backbone, count).features

    assert split(features, count, torch.rand(2, 3, size, size)) is None


def test_there_is_no_cut_before_it_is_frozen():
    features = timm.create_model("test_efficientnet", num_classes=0)

    assert split(features, 2, torch.rand(2, 3, 32, 32)) is None


class Odd(nn.Module):
    """Two stages, and something odd between them."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Linear(4, 2)
        self.between = between

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.between(self.first(images)).mean((-2, -1)))


@pytest.mark.parametrize(
    ("between", "found"),
    [
        (lambda x: x.relu(), True),
        (nn.Dropout(0.5), False),  # has no parameters, so that it is not frozen
        (nn.Dropout(0.0), True),
        (nn.BatchNorm2d(4, affine=False), False),  # likewise, and its statistics would move
        (lambda x: x if x.sum() > 0 else -x, False),  # depends on the values: cannot be traced
        (lambda x: x + x.sum(0), False),  # no image for itself
        (lambda x: x.transpose(0, 1), False),  # no batch dimension in front
        (lambda x: x.mean((-2, -1), keepdim=True), True),
    ],
)
def test_what_comes_between_stages_decides_whether_there_is_a_cut(
    between: Callable[[Tensor], Tensor], found: bool
):
    features = Odd(between)
    freeze(features, 1)
    before = copy.deepcopy(features.state_dict())

    parts = split(features, 1, torch.rand(2, 3, 8, 8))

    assert (parts is not None) == found
    assert all(torch.equal(tensor, before[name]) for name, tensor in features.state_dict().items())

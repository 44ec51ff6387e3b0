import pytest
import torch
from torch import nn

from trainables.image_classification import backbones
from trainables.image_classification.freezing import (
    Freeze,
    freeze,
    frozen_at,
    stages,
    units,
)
from trainables.network import train_mode, trained_names

torch.set_num_threads(1)  # threads that wait for each other stall on a busy machine

TORCHVISION = [
    ("resnet18", 5, "conv1", "layer4"),
    ("resnext50_32x4d", 5, "conv1", "layer4"),
    ("wide_resnet50_2", 5, "conv1", "layer4"),
    ("densenet121", 8, "features.conv0", "features.denseblock4"),
    ("vgg11_bn", 9, "features.0", "classifier"),
    ("alexnet", 6, "features.0", "classifier"),
    ("mobilenet_v2", 19, "features.0", "features.18"),
    ("mobilenet_v3_small", 14, "features.0", "classifier"),
    ("efficientnet_b0", 9, "features.0", "features.8"),
    ("convnext_tiny", 8, "features.0", "features.7"),
    ("swin_t", 8, "features.0", "features.7"),
    ("vit_b_16", 13, "conv_proj", "encoder.layers.encoder_layer_11"),
    ("maxvit_t", 6, "stem", "classifier"),
    ("regnet_x_400mf", 5, "stem", "trunk_output.block4"),
    ("shufflenet_v2_x0_5", 5, "conv1", "conv5"),
    ("squeezenet1_1", 9, "features.0", "features.12"),
    ("mnasnet0_5", 10, "layers.0", "layers.14"),
    ("inception_v3", 16, "Conv2d_1a_3x3", "Mixed_7c"),
    ("googlenet", 12, "conv1", "inception5b"),
]
TIMM = [
    ("efficientnet_lite0", 9, "conv_stem", "conv_head"),
    ("test_efficientnet", 7, "conv_stem", "conv_head"),
    ("mobilenetv3_small_050", 8, "conv_stem", "conv_head"),
    ("test_resnet", 5, "conv1", "layer4"),
    ("resnetv2_18", 5, "stem", "stages.3"),
    ("regnetx_002", 5, "stem", "s4"),
    ("tresnet_m", 5, "body.conv1", "body.layer4"),
    ("test_nfnet", 6, "stem", "final_conv"),
    ("test_convnext", 5, "stem", "stages.3"),
    ("swin_tiny_patch4_window7_224", 5, "patch_embed", "layers.3"),
    ("test_vit", 7, "patch_embed", "blocks.5"),
    ("deit_tiny_patch16_224", 13, "patch_embed", "blocks.11"),
    ("beit_base_patch16_224", 13, "patch_embed", "blocks.11"),
    ("eva02_tiny_patch14_224", 13, "patch_embed", "blocks.11"),
    ("mixer_s32_224", 9, "stem", "blocks.7"),
    ("resmlp_12_224", 13, "stem", "blocks.11"),
    ("test_maxvit", 5, "stem", "stages.3"),
    ("test_coatnet", 5, "stem", "stages.3"),
    ("mobilevit_xxs", 7, "stem", "final_conv"),
    ("nest_tiny", 4, "patch_embed", "levels.2"),
    ("pit_ti_224", 4, "patch_embed", "transformers.2"),
    ("hrnet_w18_small", 12, "conv1", "final_layer"),
]


def features_of(backbone: str):
    """The network without its head; where its construction allows it, without its tensors."""
    with torch.device("cpu" if backbone.startswith("regnet_") else "meta"):
        return backbones.build(backbone, 2, "none").features


@pytest.mark.parametrize(("backbone", "count", "first", "last"), TORCHVISION + TIMM)
def test_the_stages_of_every_family_hold_each_parameter_once(
    backbone: str, count: int, first: str, last: str
):
    features = features_of(backbone)

    found = stages(features)

    assert (len(found), found[0].name, found[-1].name) == (count, first, last)
    held = [id(parameter) for stage in found for parameter in stage.parameters]
    assert sorted(held) == sorted(id(parameter) for parameter in features.parameters())
    assert backbones.stage_count(backbone) == count


@pytest.mark.parametrize("backbone", [row[0] for row in TORCHVISION + TIMM])
def test_an_image_passes_the_stages_from_the_first_to_the_last(backbone: str):
    features = features_of(backbone).eval()
    passed: dict[str, None] = {}
    for path, module in units(features):
        for inner in module.modules():  # timm calls some of a head's modules past the head
            inner.register_forward_pre_hook(lambda *_, path=path: passed.setdefault(path))
    device = next(features.parameters()).device
    size = 160 if backbone.startswith("test_") else 224

    features(torch.zeros(1, 3, size, size, device=device))

    assert list(passed) == [path for path, _ in units(features)]


@pytest.mark.parametrize("backbone", [row[0] for row in TORCHVISION + TIMM])
def test_so_many_stages_are_frozen_and_the_later_ones_trained(backbone: str):
    features = features_of(backbone)
    found = stages(features)

    for count in range(len(found) + 1):
        assert freeze(features, count) == [stage.name for stage in found[:count]]

        later = {id(parameter) for stage in found[count:] for parameter in stage.parameters}
        assert later == {id(p) for p in features.parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("how", "frozen"),
    [
        ("none", []),
        (0, []),
        (2, ["conv_stem", "blocks.0"]),
        ("all", ["conv_stem", *(f"blocks.{i}" for i in range(5)), "conv_head"]),
    ],
)
def test_freeze_stops_the_gradients_of_the_first_stages(how: Freeze, frozen: list[str]):
    model = backbones.build("test_efficientnet", 2, "none")

    assert freeze(model.features, how) == frozen

    stopped = {n for n, p in model.features.named_parameters() if not p.requires_grad}
    prefixes = tuple(f"{name}." for name in [*frozen, *(["bn1"] * bool(frozen))])
    prefixes += ("bn2.",) * (how == "all")
    assert stopped == {n for n, _ in model.features.named_parameters() if n.startswith(prefixes)}
    assert model.head.weight.requires_grad


def test_a_class_token_is_frozen_with_the_first_stage():
    model = backbones.build("test_vit", 2, "none")

    freeze(model.features, 1)

    assert not model.features.cls_token.requires_grad
    assert not model.features.pos_embed.requires_grad


def test_more_stages_than_there_are_is_refused_with_the_count():
    model = backbones.build("test_efficientnet", 2, "none")

    with pytest.raises(ValueError, match="freeze is 8, but the backbone has 7 stages: give 0 to 7"):
        freeze(model.features, 8)


@pytest.mark.parametrize(
    ("backbone", "frozen", "trained"),
    [
        ("test_efficientnet", ("conv_stem.", "bn1.", "blocks.0."), "blocks.1.0.bn1.running_mean"),
        ("resnet18", ("conv1.", "bn1.", "layer1."), "layer2.0.bn1.running_mean"),
        (
            "densenet121",
            ("features.conv0.", "features.norm0.", "features.denseblock1."),
            "features.transition1.norm.running_mean",
        ),
    ],
)
def test_a_training_step_changes_nothing_that_is_frozen(
    backbone: str, frozen: tuple[str, ...], trained: str
):
    model = backbones.build(backbone, 2, "none")
    freeze(model.features, 2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train_mode(model)
    # With decay, a frozen weight that an optimizer saw a gradient of would change for sure.
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)

    torch.autograd.backward(model(torch.rand(4, 3, 32, 32)).square().sum())
    optimizer.step()

    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert any(norm.training for norm in norms)
    for norm in norms:
        assert norm.training == norm.weight.requires_grad
    prefixes = tuple(f"features.{prefix}" for prefix in frozen)
    assert all(
        (parameter.grad is None) == name.startswith(prefixes)
        for name, parameter in model.named_parameters()
    )
    changed = {n for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])}
    assert not any(name.startswith(prefixes) for name in changed)
    assert f"features.{trained}" in changed
    assert changed <= trained_names(model)


def test_a_wholly_frozen_backbone_drops_nothing_out():
    model = backbones.build("mobilenet_v3_small", 2, "none")  # dropout before its old head
    freeze(model.features, "all")
    train_mode(model)
    images = torch.rand(2, 3, 32, 32)

    assert torch.equal(model.features(images), model.features(images))
    assert trained_names(model) == {"head.weight", "head.bias"}


def test_fewer_stages_can_be_frozen_later():
    features = backbones.build("test_efficientnet", 2, "none").features
    freeze(features, "all")

    assert freeze(features, 2) == ["conv_stem", "blocks.0"]

    trained = {name for name, p in features.named_parameters() if p.requires_grad}
    assert trained == {
        name
        for name, _ in features.named_parameters()
        if not name.startswith(("conv_stem.", "bn1.", "blocks.0."))
    }


def test_what_a_network_never_trains_stays_so():
    features = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    features[0].bias.requires_grad = False

    freeze(features, "none")

    assert not features[0].bias.requires_grad
    assert features[0].weight.requires_grad


@pytest.mark.parametrize(
    ("how", "unfreeze_every", "frozen"),
    [
        ("none", None, [0, 0, 0, 0, 0, 0, 0]),
        ("none", 1, [0, 0, 0, 0, 0, 0, 0]),
        (2, None, [2, 2, 2, 2, 2, 2, 2]),
        (2, 1, [2, 1, 0, 0, 0, 0, 0]),
        (2, 3, [2, 2, 2, 1, 1, 1, 0]),
        ("all", 2, [5, 5, 4, 4, 3, 3, 2]),
    ],
)
def test_one_more_stage_is_trained_after_so_many_epochs(
    how: Freeze, unfreeze_every: int | None, frozen: list[int]
):
    assert [frozen_at(how, 5, epoch, unfreeze_every) for epoch in range(7)] == frozen


def test_more_stages_to_unfreeze_than_there_are_is_refused():
    with pytest.raises(ValueError, match="freeze is 6, but the backbone has 5 stages"):
        frozen_at(6, 5, 4, 1)

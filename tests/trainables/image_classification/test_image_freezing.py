import pytest
import torch

from trainables.image_classification import backbones
from trainables.image_classification.freezing import (
    Freeze,
    freeze,
    stages,
    train_mode,
    trained_names,
)


@pytest.mark.parametrize(
    ("backbone", "count", "first", "last"),
    [
        ("efficientnet_lite0", 9, "conv_stem", "conv_head"),
        ("resnet18", 5, "conv1", "layer4"),
        ("mobilenet_v3_small", 14, "features.0", "classifier"),
        ("densenet121", 8, "features.conv0", "features.denseblock4"),
        ("vgg11_bn", 9, "features.0", "classifier"),
        ("convnext_tiny", 9, "features.0", "classifier"),
        ("swin_t", 8, "features.0", "features.7"),
        ("vit_b_16", 13, "conv_proj", "encoder.layers.encoder_layer_11"),
        ("test_vit", 7, "patch_embed", "blocks.5"),
        ("regnet_x_400mf", 5, "stem", "trunk_output.block4"),
        ("mobilevit_xxs", 7, "stem", "final_conv"),
    ],
)
def test_stages_run_from_the_input_up_and_hold_every_parameter(
    backbone: str, count: int, first: str, last: str
):
    device = "cpu" if backbone.startswith("regnet") else "meta"
    with torch.device(device):
        features = backbones.build(backbone, 2, "none").features

    found = stages(features)

    assert (len(found), found[0].name, found[-1].name) == (count, first, last)
    held = [id(parameter) for stage in found for parameter in stage.parameters]
    assert sorted(held) == sorted(id(parameter) for parameter in features.parameters())
    assert backbones.stage_count(backbone) == count


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


def test_frozen_batchnorm_keeps_its_statistics_and_the_rest_does_not():
    model = backbones.build("test_efficientnet", 2, "none")
    freeze(model.features, 2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train_mode(model)

    model(torch.rand(4, 3, 32, 32))

    changed = {n for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])}
    assert not any(n.startswith(("features.bn1", "features.blocks.0.")) for n in changed)
    assert "features.blocks.1.0.bn1.running_mean" in changed
    assert changed <= trained_names(model)


def test_a_wholly_frozen_backbone_drops_nothing_out():
    model = backbones.build("mobilenet_v3_small", 2, "none")  # dropout before its old head
    freeze(model.features, "all")
    train_mode(model)
    images = torch.rand(2, 3, 32, 32)

    assert torch.equal(model.features(images), model.features(images))
    assert trained_names(model) == {"head.weight", "head.bias"}

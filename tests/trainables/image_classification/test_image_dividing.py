import pytest
import torch

from trainables.image_classification import backbones
from trainables.image_classification.dividing import balanced, blocks, check_parts, divide
from trainables.image_classification.freezing import freeze, stages
from trainables.image_classification.splitting import split
from trainables.network import Classifier

torch.set_num_threads(1)  # threads that wait for each other stall on a busy machine


def model_of(backbone: str) -> Classifier:
    torch.manual_seed(0)
    return backbones.build(backbone, 2, "none", head="mlp")


@pytest.mark.parametrize(
    ("backbone", "size", "count"),
    [
        ("test_efficientnet", 32, 2),
        ("test_efficientnet", 32, 5),
        ("test_convnext", 32, 3),
        ("test_vit", 160, 3),
        ("resnet18", 32, 3),
        ("densenet121", 32, 2),
    ],
)
def test_the_parts_do_what_the_network_does_and_share_it_out(
    backbone: str, size: int, count: int
) -> None:
    model = model_of(backbone)
    images = torch.rand(3, 3, size, size)

    parts = divide(model, model, images[:2], 0, count)

    through = images
    with torch.no_grad():
        for part in parts:
            through = part(through)
        torch.testing.assert_close(through, model(images))
    owned = [{id(p) for p in part.parameters()} for part in parts]
    assert len(owned) == count
    assert all(owned)
    assert sum(map(len, owned)) == len(set().union(*owned)), "none is in two parts"
    assert set().union(*owned) == {id(p) for p in model.parameters()}


def test_what_is_computed_once_is_in_no_part() -> None:
    model = model_of("test_efficientnet")
    freeze(model.eval().features, 3)
    images = torch.rand(2, 3, 32, 32)
    cut = split(model.features, 3, images)
    assert cut is not None
    network = torch.nn.Sequential(cut.rest, model.head)
    with torch.no_grad():
        features = cut.frozen(images)

    parts = divide(model, network, features, 3, 2)

    with torch.no_grad():
        torch.testing.assert_close(parts[1](parts[0](features)), model(images))
    trained = {id(p) for part in parts for p in part.parameters()}
    assert trained == {id(p) for p in model.parameters() if p.requires_grad}
    assert len(blocks(model.features, network)) == len(stages(model.features)) - 3


@pytest.mark.parametrize(
    ("work", "places", "count", "first", "chosen"),
    [
        ([4, 1, 1, 1, 1], [1, 2, 3, 4], 2, 0, [1]),
        ([1, 1, 1, 1, 4], [1, 2, 3, 4], 2, 0, [4]),
        ([2, 2, 2, 2, 2, 2], [1, 2, 3, 4, 5], 3, 0, [2, 4]),
        ([2, 2, 2, 2, 2, 2], [1, 3, 5], 3, 0, [1, 3]),
        ([9, 1, 1, 1], [2, 3], 2, 1, [2]),
        ([1, 1, 1], [1, 2], 3, 0, [1, 2]),
    ],
)
def test_the_part_with_most_work_has_as_little_as_can_be(
    work: list[float], places: list[int], count: int, first: int, chosen: list[int]
) -> None:
    assert balanced(work, places, count, first) == chosen


def test_a_frozen_stage_counts_a_third() -> None:
    model = model_of("test_efficientnet")
    images = torch.rand(2, 3, 32, 32)
    whole, _ = divide(model, model, images, 0, 2)
    freeze(model.features, 2)
    cheaper, _ = divide(model, model, images, 0, 2)

    assert len(list(cheaper.parameters())) > len(list(whole.parameters())), "more fits in"


def test_what_cannot_be_cut_is_refused() -> None:
    check_parts("test_efficientnet", 0, 7)
    with pytest.raises(ValueError, match=r"'pipeline' on 8 ranks, but .* into 7 parts at most"):
        check_parts("test_efficientnet", 0, 8)
    with pytest.raises(ValueError, match=r"on 2 ranks, but .* into 1 parts at most: give"):
        check_parts("test_efficientnet", 7, 2)

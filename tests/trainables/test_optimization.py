import copy
from typing import Any

import pytest
import torch
from torch import nn

from trainables.network import Classifier
from trainables.optimization import Optimization, OptimizationSettings, Part, schedule

CPU = torch.device("cpu")


def make(scale: float = 1.0, **more: Any) -> tuple[Classifier, Optimization]:
    torch.manual_seed(0)
    model = Classifier(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)), nn.Linear(8, 3))
    optimization = Optimization(OptimizationSettings(**more), CPU, total=100, warmup=0)
    optimization.rearrange(model, set(model.state_dict()), parts(model, scale))
    return model, optimization


def parts(model: Classifier, scale: float = 1.0) -> dict[str, Part]:
    return {
        "backbone_learning_rate": Part(model.features, scale),
        "learning_rate": Part(model.head),
    }


def step(model: Classifier, optimization: Optimization, parts: int = 1, seed: int = 0) -> None:
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed))
    optimization.begin()
    for part in inputs.tensor_split(parts):
        with optimization.autocast():
            loss = model(part).float().square().mean() * len(part) / len(inputs)
        optimization.backward(loss)
    optimization.end()


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_the_learning_rate_rises_then_falls() -> None:
    assert [schedule(step, 10, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1]
    assert schedule(4, 10, 4) == 1
    assert schedule(7, 10, 4) == pytest.approx(0.5)
    assert schedule(10, 10, 4) == schedule(99, 10, 4) == 0
    assert schedule(0, 10, 0) == 1


def test_the_gradients_of_parts_add_up_to_those_of_the_batch() -> None:
    whole, parts = make(), make()
    for model, _ in (whole, parts):
        model.eval()  # BatchNorm's statistics would be of a part
    step(*whole)
    step(*parts, parts=3)

    torch.testing.assert_close(weights(parts[0]), weights(whole[0]))


def test_the_gradient_is_clipped() -> None:
    plain = {"optimizer": "sgd", "momentum": 0, "weight_decay": 0, "learning_rate": 1.0}
    free, clipped = make(**plain), make(**plain, clip_norm=0.01)
    before = weights(free[0])
    step(*free)
    step(*clipped)

    def moved(model: nn.Module) -> float:
        pairs = [(p, before[name]) for name, p in model.named_parameters()]
        return float(sum((p - old).detach().square().sum() for p, old in pairs).sqrt())

    assert moved(free[0]) > 0.1
    assert moved(clipped[0]) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_goes_the_same_way(precision: str) -> None:
    full, half = make(optimizer="sgd"), make(optimizer="sgd", precision=precision)
    for seed in range(5):
        step(*full, seed=seed)
        step(*half, seed=seed)
    own = weights(half[0])
    with half[1].autocast():
        seen = half[0](torch.randn(4, 4)).dtype

    assert seen is {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert ("scaler" in half[1].state_dict()) == (precision == "fp16")
    torch.testing.assert_close(own, weights(full[0]), rtol=0, atol=0.02)


def test_the_average_follows_and_is_in_the_model_for_evaluation_only() -> None:
    model, optimization = make(ema_decay=0.9, optimizer="sgd", learning_rate=0.1)
    expected = weights(model)
    for number in range(1, 6):
        step(model, optimization, seed=number)
        decay = min(0.9, (1 + number) / (10 + number))
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * tensor
            else:
                expected[name] = tensor.clone()
    own = weights(model)
    with optimization.averaged():
        inside = weights(model)

    torch.testing.assert_close(inside, expected)
    torch.testing.assert_close(weights(model), own, rtol=0, atol=0)
    assert not torch.equal(inside["head.weight"], own["head.weight"])


def test_without_an_average_evaluation_sees_the_weights() -> None:
    model, optimization = make()
    step(model, optimization)
    own = weights(model)
    with optimization.averaged():
        torch.testing.assert_close(weights(model), own, rtol=0, atol=0)
    assert "ema" not in optimization.state_dict()


@pytest.mark.parametrize(
    "more", [{}, {"optimizer": "sgd"}, {"ema_decay": 0.9}, {"precision": "fp16", "clip_norm": 1.0}]
)
def test_a_state_goes_on_exactly(more: dict[str, Any]) -> None:
    model, optimization = make(**more)
    for seed in range(3):
        step(model, optimization, seed=seed)
    other, resumed = make(**more)
    other.load_state_dict(weights(model))
    resumed.load_state_dict(copy.deepcopy(optimization.state_dict()))
    for seed in range(3, 6):
        step(model, optimization, seed=seed)
        step(other, resumed, seed=seed)

    torch.testing.assert_close(weights(other), weights(model), rtol=0, atol=0)
    with optimization.averaged(), resumed.averaged():
        torch.testing.assert_close(weights(other), weights(model), rtol=0, atol=0)


def test_what_is_trained_later_joins_and_the_rest_keeps_its_state() -> None:
    model, optimization = make()
    model.features.requires_grad_(False)
    optimization.rearrange(model, {"head.weight", "head.bias"}, parts(model))
    step(model, optimization)
    before = optimization.state_dict()["optimizer"]
    model.features.requires_grad_(True)
    optimization.rearrange(model, set(model.state_dict()), parts(model))

    after = optimization.state_dict()["optimizer"]
    assert before.keys() == after.keys() == {"head.weight", "head.bias"}
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    step(model, optimization)
    assert "features.0.weight" in optimization.state_dict()["optimizer"]


def test_learning_rates_differ_between_backbone_and_head() -> None:
    model, optimization = make(scale=0.1, learning_rate=0.01)
    step(model, optimization)
    backbone, head = optimization._optimizer.param_groups
    assert (backbone["lr"], head["lr"]) == pytest.approx((0.001, 0.01))
    assert optimization.learning_rates == {
        "learning_rate": head["lr"],
        "backbone_learning_rate": backbone["lr"],
    }


def test_where_there_is_one_learning_rate_it_alone_is_told() -> None:
    model, optimization = make(learning_rate=0.01)
    step(model, optimization)
    assert optimization.learning_rates == {"learning_rate": 0.01}


def test_after_a_step_the_gradients_are_the_loss_own_whatever_it_was_scaled_by() -> None:
    (plain, unscaled), (half, scaled) = make(), make(precision="fp16")
    step(plain, unscaled)
    step(half, scaled)
    assert scaled.scaler.get_scale() > 1000
    for ours, theirs in zip(half.parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0.1, atol=1e-3)

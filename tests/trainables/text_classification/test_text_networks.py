import pytest
import torch

from trainables.text_classification.networks import NETWORKS, Sizes, build

SIZES = Sizes(ids=300, max_tokens=20, embedding_dim=16, layers=2, heads=4, dropout=0.1)


@pytest.mark.parametrize("network", NETWORKS)
@torch.inference_mode()
def test_a_text_has_the_same_logits_whatever_is_beside_it(network: str) -> None:
    torch.manual_seed(0)
    model = build(network, 3, SIZES).eval()
    ids = torch.randint(1, 300, (4, 20))
    ids[0, 7:] = 0

    logits = model(ids)

    assert logits.shape == (4, 3)
    torch.testing.assert_close(model(ids[:1, :7]), logits[:1])
    torch.testing.assert_close(model(ids[1:]), logits[1:])


@torch.inference_mode()
def test_the_order_of_the_tokens_matters_to_the_transformer_alone() -> None:
    ids = torch.arange(1, 21)[None]
    differ = {}
    for network in NETWORKS:
        model = build(network, 3, SIZES).eval()
        differ[network] = not torch.allclose(model(ids), model(ids.flip(1)), atol=1e-5)

    assert differ == {"embedding_bag": False, "transformer": True}

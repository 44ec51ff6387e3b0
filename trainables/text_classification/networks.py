"""Networks that read ids of tokens."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.network import Classifier
from trainables.text_classification.vocabulary import PADDING

_STD = 0.02
"""Of a transformer's random embeddings, as BERT's."""


@dataclass(frozen=True)
class Sizes:
    """How large a network is, as the settings say; ``ids`` counts the vocabulary's, and padding."""

    ids: int
    max_tokens: int
    embedding_dim: int
    layers: int
    heads: int
    dropout: float


class EmbeddingBag(nn.Module):
    """The mean of the embeddings of a text's tokens (Joulin et al. 2017, arXiv 1607.01759)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(
            sizes.ids, sizes.embedding_dim, mode="mean", padding_idx=PADDING
        )
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, ids: Tensor) -> Tensor:
        """From (N, L) ids to (N, dim) features."""
        features: Tensor = self.dropout(self.embedding(ids))
        return features


class Transformer(nn.Module):
    """A small encoder (Vaswani et al. 2017, arXiv 1706.03762), each layer's norms before it.

    A text's features are the mean over its tokens.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        dim = sizes.embedding_dim
        self.embedding = nn.Embedding(sizes.ids, dim, padding_idx=PADDING)
        self.position = nn.Parameter(torch.randn(sizes.max_tokens, dim) * _STD)
        layer = nn.TransformerEncoderLayer(
            dim,
            sizes.heads,
            4 * dim,
            sizes.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        # nested tensors would be of another shape: the longest text of the batch decides it
        self.encoder = nn.TransformerEncoder(
            layer, sizes.layers, norm=nn.LayerNorm(dim), enable_nested_tensor=False
        )
        self.dropout = nn.Dropout(sizes.dropout)
        nn.init.normal_(self.embedding.weight, std=_STD)

    def forward(self, ids: Tensor) -> Tensor:
        """From (N, L) ids, of which each text has at least one, to (N, dim) features."""
        padding = ids == PADDING
        embedded = self.dropout(self.embedding(ids) + self.position[: ids.shape[1]])
        encoded = self.encoder(embedded, src_key_padding_mask=padding)
        kept = (~padding).unsqueeze(-1).to(encoded.dtype)
        features: Tensor = self.dropout((encoded * kept).sum(1) / kept.sum(1))
        return features


NETWORKS: dict[str, type[EmbeddingBag | Transformer]] = {
    "embedding_bag": EmbeddingBag,
    "transformer": Transformer,
}


def build(network: str, num_classes: int, sizes: Sizes) -> Classifier:
    """The network of that name with random weights, and a linear head for ``num_classes``."""
    return Classifier(NETWORKS[network](sizes), nn.Linear(sizes.embedding_dim, num_classes))

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from trainables.classification import ClassificationSettings
from trainables.text_classification.docstrings import DOCSTRINGS
from trainables.text_classification.vocabulary import BYTES


class Settings(ClassificationSettings):
    """What a text classification trial can be told: fixed settings and hyperparameters alike.

    A conditional hyperparameter that a trial does not have (``layers`` beside ``embedding_bag``)
    keeps its default here and is not read.
    """

    data: str = Field(
        DOCSTRINGS,
        min_length=1,
        description="A .csv file of text and label, and perhaps split (train, val or test). A "
        "folder with train.csv, val.csv and perhaps test.csv. Or docstrings: those of Python's "
        "standard library by what they are about, which need no download.",
    )

    vocabulary_size: int = Field(
        8000,
        ge=BYTES,
        description="Tokens at most: the 256 bytes, and what is most often beside each other in "
        "the training texts.",
    )
    max_tokens: PositiveInt = Field(
        128, description="Of a text, the network sees so many tokens from the beginning."
    )
    network: Literal["embedding_bag", "transformer"] = Field(
        "embedding_bag",
        description="embedding_bag: the mean of the tokens' embeddings, whatever their order; "
        "transformer: an encoder of layers that attend to all tokens.",
    )
    embedding_dim: PositiveInt = Field(
        128, description="Numbers that stand for a token; of a transformer a multiple of heads."
    )
    layers: PositiveInt = Field(2, description="Layers of a transformer.")
    heads: PositiveInt = Field(4, description="Attention heads of each of its layers.")
    dropout: float = Field(
        0.1, ge=0, lt=1, description="Dropout before the last layer, and in a transformer's layers."
    )

    @field_validator("data")
    @classmethod
    def _absolute(cls, value: str) -> str:
        """A path means the same on every worker, and when the run is resumed from elsewhere."""
        path = Path(value).expanduser()
        return str(path.absolute()) if path.exists() else value

    @model_validator(mode="after")
    def _heads_divide(self) -> "Settings":
        if self.network == "transformer" and self.embedding_dim % self.heads:
            raise ValueError(
                f"embedding_dim is {self.embedding_dim} and heads {self.heads}: a transformer's "
                f"embedding_dim must be a multiple of its heads"
            )
        return self

from collections.abc import Sequence
from pathlib import Path

from tuner.errors import UserError
from tuner.results import load_model


def predict(best: str, images: Sequence[Path]) -> None:
    """Print path, label and probability of each image, a line each, with tabs in between.

    Raises:
        UserError: the model does not classify images, or a file is no image.

    """
    model = load_model(best)
    if not hasattr(model, "predict"):
        raise UserError(
            f"{best} holds a {type(model).__name__}, which has no predict(); use it in Python, "
            "through tuner.load_model"
        )
    try:
        predictions = model.predict(images)
    except ValueError as error:
        raise UserError(str(error)) from error
    for prediction in predictions:
        print(f"{prediction.path}\t{prediction.label}\t{prediction.probability:.4f}")

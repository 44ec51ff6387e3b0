import re
from collections.abc import Sequence

from tuner.errors import UserError
from tuner.results import load_model
from tuner.text import one_line


def predict(best: str, words: Sequence[str]) -> None:
    """Print input, label and probability of each input, a line each, with tabs in between.

    What ``words`` of the command line stand for the model says by a method ``read_inputs(words)``
    that returns what its ``predict`` takes; without one, they are taken as they are.

    Raises:
        UserError: the model does not classify, or cannot take one of them.

    """
    model = load_model(best)
    if not hasattr(model, "predict"):
        raise UserError(
            f"{best} holds a {type(model).__name__}, which has no predict(); use it in Python, "
            "through tuner.load_model"
        )
    try:
        read = getattr(model, "read_inputs", list)
        predictions = model.predict(read(words))
    except ValueError as error:
        raise UserError(str(error)) from error
    for prediction in predictions:
        line = one_line(re.sub(r"[\t\r\n]", " ", prediction.input))
        label = one_line(str(prediction.label))
        print(f"{line}\t{label}\t{prediction.probability:.4f}")

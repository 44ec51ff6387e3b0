"""The epochs at which trials are compared."""


def rungs(max_epochs: int, reduction_factor: int) -> list[int]:
    """Ascending epochs round(max_epochs / eta^k), distinct, from at least 1 up to max_epochs.

    They end at ``max_epochs`` for every pair, where the paper's bottom-up rungs miss it.

    >>> rungs(100, 3)
    [1, 4, 11, 33, 100]
    """
    found = [max_epochs]
    scale = reduction_factor
    while found[-1] > 1:
        rung = max(1, round(max_epochs / scale))
        if rung < found[-1]:
            found.append(rung)
        scale *= reduction_factor
    return found[::-1]

"""A search as its events tell it: to be looked at, not to go on with."""

from collections.abc import Iterable

from tuner.search.journal import Event, MemoryJournal
from tuner.search.rules.run_all import RunAll
from tuner.search.samplers.blank import BlankSampler
from tuner.search.search import Search
from tuner.search.settings import SearchSettings
from tuner.search.trial import Status


def replay(events: Iterable[Event], settings: SearchSettings, name: str = "the journal") -> Search:
    """The trials, results and counts that ``events`` add up to.

    It needs neither the space nor the model: what they and the rule decided is in the events. So
    the search knows what was, but not what would come next.

    Args:
        events: of a journal.
        settings: of the search.
        name: what errors call the journal.

    Raises:
        UserError: an event does not follow from those before it.

    """
    events = list(events)
    num_trials = settings.num_trials
    for event in events:  # a grid has its own number, and a resumed run may have been given another
        num_trials = event.get("num_trials", num_trials)
    return Search(
        BlankSampler(),
        RunAll(settings.max_epochs),
        MemoryJournal(events, name),
        num_trials=num_trials,
        max_epochs=settings.max_epochs,
        metric=settings.metric,
        mode=settings.mode,
    )


def has_ended(search: Search) -> bool:
    """Whether a replayed search came to its end: nothing runs, waits, or is still to be started."""
    if search.active or any(trial.status is Status.PAUSED for trial in search.trials):
        return False
    return search.halted is not None or len(search.trials) >= search.num_trials

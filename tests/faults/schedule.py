"""What befalls a run, and when: drawn from one number, so that it can be repeated."""

from dataclasses import dataclass
from random import Random
from typing import NamedTuple

FAULTS_A_RUN = 5

ENDS_DRIVER = ("kill_driver", "garble", "full_disk", "ctrl_c")
"""After these, the run must be resumed."""

RAISED = ("oom", "nan")
"""What the Task does by itself, at a place that is known: it befalls the unbroken run, too."""


class Variant(NamedTuple):
    """A search, as far as the runs differ."""

    algorithm: str
    ranks: int
    slots: int
    raises: bool = False
    ending: str = ""
    """What ends or follows it: a ``target``, a ``time_budget`` that suffices, a ``final`` fit."""

    @property
    def max_epochs(self) -> int:
        return 4 if self.algorithm == "random" else 9

    @property
    def fates(self) -> dict[int, str]:
        """Trial -> what it raises in its second epoch. All that are named come so far."""
        return dict(zip((0, 2), RAISED, strict=True)) if self.raises else {}


TRIALS = 6
FINAL_EPOCHS = 8
VARIANTS = (
    Variant("bohb", 2, 1),
    Variant("random", 2, 1, raises=True),
    Variant("asha", 1, 1),
    Variant("bohb", 2, 1, ending="final"),
    Variant("random", 2, 2),
    Variant("bohb", 2, 1, ending="target"),
    Variant("asha", 2, 1, ending="time_budget"),
    Variant("random", 1, 1, ending="final"),
)
"""With one slot, what a search finds rests on its seed alone, whatever befalls it."""


@dataclass(frozen=True)
class Fault:
    """``kind`` strikes ``delay`` seconds after the journal has so many results."""

    kind: str
    results: int
    delay: float
    draw: int
    """What the fault itself draws from."""


@dataclass(frozen=True)
class Schedule:
    """The faults of one run."""

    seed: int
    variant: Variant
    faults: tuple[Fault, ...]

    @property
    def raised(self) -> int:
        """How many faults the Task itself raises."""
        return len(self.variant.fates)


def draw_schedule(seed: int, results: dict[Variant, int], kinds: tuple[str, ...]) -> Schedule:
    """The schedule of ``seed``.

    Args:
        seed: of this run alone.
        results: how many results each variant has when nothing befalls it.
        kinds: those that can be done here.

    """
    random, variant = Random(seed), VARIANTS[seed % len(VARIANTS)]
    apt = [kind for kind in kinds if variant.ranks > 1 or kind not in ("kill_peer", "drop_network")]
    chosen = random.choices(("kill_driver", "garble"), (2, 1), k=1)
    chosen += random.choices(apt, k=FAULTS_A_RUN - len(chosen) - len(variant.fates))
    random.shuffle(chosen)
    latest = max(2, results[variant] - 4)
    moments = sorted(random.randrange(latest) for _ in chosen)
    faults, before = [], 0
    for kind, moment in zip(chosen, moments, strict=True):
        # at the same moment as the last one: while the run is about to recover from it
        delay = random.uniform(0, 8 if moment == before else 0.4)
        faults.append(Fault(kind, moment, delay, random.getrandbits(32)))
        before = moment
    return Schedule(seed, variant, tuple(faults))

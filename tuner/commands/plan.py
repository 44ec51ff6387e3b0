import math
from collections.abc import Sequence

from search_spaces import grid_size
from tuner.commands.arguments import read_experiment
from tuner.commands.table import print_table
from tuner.errors import UserError
from tuner.experiment import Experiment
from tuner.plan import Costs, disk_bytes, find_slots, forecast, probe
from tuner.text import duration
from tuner.trainable import validate


def plan(
    file: str,
    data: str | None,
    overrides: Sequence[str],
    seconds_per_epoch: float | None,
    address: str | None,
) -> None:
    """Print what a run would take: epochs, time, devices, disk.

    Raises:
        UserError: the experiment cannot run.

    """
    if seconds_per_epoch is not None and not 0 < seconds_per_epoch < math.inf:
        raise UserError(f"--seconds-per-epoch is {seconds_per_epoch:g}: it must be above 0")
    experiment, folder = read_experiment(file, data, overrides)
    trainable, space = validate(experiment, folder)
    trials = experiment.search.num_trials
    if experiment.search.algorithm == "grid":
        trials = grid_size(space)
    if seconds_per_epoch is None:
        print("timing two epochs of the default configuration ...", flush=True)
        costs = probe(experiment, address, folder)
    else:
        costs = Costs(find_slots(experiment, trainable, address), seconds_per_epoch)
    _print_plan(experiment, trainable.bundles(experiment.resources), trials, costs)


def _print_plan(
    experiment: Experiment, bundles: list[dict[str, float]], trials: int, costs: Costs
) -> None:
    search = experiment.search
    kind = "GPU" if experiment.resources.gpus_per_trial else "CPU"
    devices = sum(bundle[kind] for bundle in bundles)
    print(
        f"{experiment.name}: {search.algorithm}, {trials} trials of up to {search.max_epochs} "
        f"epochs, {costs.slots} at once, each on {devices:g} {kind}{'s' * (devices != 1)} "
        f"({len(bundles)} rank{'s' * (len(bundles) != 1)})"
    )
    amounts = forecast(search, trials, costs, experiment.final)
    both = (amounts.expected, amounts.most)
    hours = [amount.epochs * costs.epoch_seconds * devices / 3600 for amount in both]
    rows = [
        ("epochs", *(f"{amount.epochs:.0f}" for amount in both)),
        ("wall time", *(duration(amount.seconds) for amount in both)),
        (f"{kind}-hours", *(f"{amount:,.2f}" for amount in hours)),
    ]
    if costs.checkpoint_bytes:
        disk = disk_bytes(search, trials, costs)
        rows.append(("disk", *(f"{amount / 1e6:,.0f} MB" for amount in disk)))
    print_table(["", "expected", "at most"], rows)
    _print_basis(experiment, costs, amounts.expected.seconds)


def _print_basis(experiment: Experiment, costs: Costs, seconds: float) -> None:
    if costs.startup_seconds:
        alone = f"; {costs.slots} at once may be slower" if costs.slots > 1 else ""
        print(
            f"timed, with the default configuration: {costs.epoch_seconds:.3g} s an epoch, "
            f"{costs.startup_seconds:.3g} s to start and end a run, "
            f"{costs.checkpoint_bytes / 1e6:.3g} MB a checkpoint{alone}"
        )
    budget = experiment.stop.time_budget
    if budget and budget < seconds:
        print(f"stop.time_budget ends the search after {duration(budget)}, sooner than expected")

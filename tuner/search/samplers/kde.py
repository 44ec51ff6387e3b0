"""BOHB's model: hpbandster's kernel densities (Falkner et al. 2018, arXiv 1807.01774)."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
from ConfigSpace import Configuration, ConfigurationSpace
from ConfigSpace.exceptions import ForbiddenValueError
from hpbandster.optimizers.config_generators.bohb import BOHB

from search_spaces import plain, sample, to_configuration
from tuner.search.samplers.engine_space import EngineSpace
from tuner.search.samplers.sampler import SpaceSampler, seed_of


class KDESampler(SpaceSampler):
    """Asks hpbandster, in an encoding it can take, with its random state under control.

    It catches exceptions, and then draws at random; ``swallowed`` counts them.
    """

    def __init__(self, space: ConfigurationSpace, seed: int) -> None:
        super().__init__(space, seed)
        self._heard = 0
        self._encoding = EngineSpace(space)
        self._engine = BOHB(self._encoding.space, logger=self._logger()) if self._learns else None

    def _pick(self, seed: int) -> tuple[dict[str, Any], str]:
        """The model's pick, or a random one where it has none yet or explores."""
        if self._engine is None:
            return sample(self.space, seed), "random"
        with self._seeded(seed):
            for _ in range(100):  # redraw what a forbidden clause refuses
                values, info = self._engine.get_config(budget=1)
                if (configuration := self._decode(values)) is not None:
                    origin = "model" if info["model_based_pick"] else "random"
                    return plain(configuration), origin
        return sample(self.space, seed), "random"

    def learn(self, config: Mapping[str, Any], budget: int, loss: float) -> None:
        """Pass one result on to the model of its budget."""
        if self._engine is not None:
            values = self._encoding.encode(to_configuration(self.space, dict(config)))
            job = SimpleNamespace(
                id=None,
                kwargs={"budget": budget, "config": values},
                result={"loss": loss},
                exception=None,
            )
            with self._seeded(seed_of(self.seed, 2**31, self._heard)):
                self._engine.new_result(job)
            self._heard += 1

    @property
    def _learns(self) -> bool:
        return len(self._encoding.space) > 0

    def _decode(self, values: Mapping[str, Any]) -> Configuration | None:
        try:
            return self._encoding.decode(values)
        except ForbiddenValueError:
            return None

    def _logger(self) -> logging.Logger:
        logger = logging.Logger("hpbandster")  # noqa: LOG001 - one of its own, to be counted
        handler = logging.Handler(logging.WARNING)
        handler.emit = self._swallow  # type: ignore[method-assign]
        logger.addHandler(handler)
        return logger

    def _swallow(self, record: logging.LogRecord) -> None:
        message = record.getMessage()  # it also warns of infinite densities, which it handles
        self.swallowed += "failed" in message or message.startswith("Error")

    @contextmanager
    def _seeded(self, seed: int) -> Iterator[None]:
        """Hpbandster draws from numpy's global state: seed it, and give it back as it was."""
        state = np.random.get_state()  # noqa: NPY002
        np.random.seed(seed)  # noqa: NPY002
        self._encoding.space.seed(seed)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it calls ConfigSpace by names now deprecated
                yield
        finally:
            np.random.set_state(state)  # noqa: NPY002

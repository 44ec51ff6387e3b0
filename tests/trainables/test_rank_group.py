"""The ranks of a trial as one; on real ranks: test_distributed.py."""

from concurrent.futures import ThreadPoolExecutor

import torch

from trainables.rank_group import RankGroup


def test_the_threads_of_rank_0_are_its_own() -> None:
    """In a thread that has not used torch yet, as that of an actor has not."""

    def use() -> tuple[int, int]:
        group = RankGroup({"CPU": 3.0})
        assert not group.call("close").failure
        torch.zeros(1_000_000).exp()
        return group._thread.submit(torch.get_num_threads).result(), torch.get_num_threads()

    before = torch.get_num_threads()
    with ThreadPoolExecutor(1) as actor:
        of_rank, of_actor = actor.submit(use).result()
    torch.set_num_threads(before)
    assert (of_rank, of_actor) == (3, 1)

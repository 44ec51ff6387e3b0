"""Measurements against peers, run by hand: they take minutes and assert nothing."""

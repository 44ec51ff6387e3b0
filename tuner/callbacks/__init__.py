"""Observers of a search: each is told of every event, and none asks about another."""

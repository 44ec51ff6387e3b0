"""Rules: who goes on. One a file; :class:`tuner.search.search.Rule` is what they have in common."""

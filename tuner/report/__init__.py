"""The page that shows a run, or compares several: one file, to be opened offline."""

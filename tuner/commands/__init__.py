"""Commands: one a file, each a function of plain arguments that prints to standard output."""

"""One stage = one file = one function = one command."""

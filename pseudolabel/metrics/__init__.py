"""How good masks are: what is counted, what is not, and how sure the number is. Pure functions of arrays."""

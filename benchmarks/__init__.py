"""What the toolkit is worth and how fast it is, each figure by a script that anyone can run."""

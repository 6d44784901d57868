"""What ``compare`` and ``report`` show: tables of text, and one self-contained page. Nothing here imports torch."""

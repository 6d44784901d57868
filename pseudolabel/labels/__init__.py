"""From class activation maps to label maps: the assignment rule, thresholds and how they are found, box constraints."""

"""Training a slim model: from the original's answers, from labels, or both; on one processor or many."""

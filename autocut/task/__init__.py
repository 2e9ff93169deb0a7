"""The user's part: a model, its data splits, its loss and metric; and the checks that find its faults."""

"""Attribution: which knob of a recipe bought what. `explanation.py` is the front door; see `ladder.py` for the idea."""

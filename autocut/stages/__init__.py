"""The steps that a recipe runs: prune, train, quantize, compile. No stage modifies the model that it receives."""

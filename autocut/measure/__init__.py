"""How a model is measured: latency, accuracy, footprint and energy, alone on a machine that is described with every number."""

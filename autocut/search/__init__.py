"""The search: what decides. It knows no torch, no Ray and no process.

`state` holds everything that a search has learned, `settings` what stays fixed. Small policies read both and return decisions:
what runs without being proposed (`opening`), which ideas of the sampler run (`proposing`, `acquisition`), and judgements about
recipes (`lowerings`, `estimates`, `early_stopping`, `finalists`). `agent` asks the policies in order; `results` tells
the study, the sampler and the user how each recipe ended.
"""

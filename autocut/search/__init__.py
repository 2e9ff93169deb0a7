"""The search: an agent decides, Optuna proposes, Ray Tune runs, and the study database is the only truth.

`agent` has every decision and no Ray, no torch and no clock of its own; `proposals` is the only room that talks to Optuna's
samplers, `workplace` and `runner` the only ones that import Ray, `worker` what runs in each worker process, `run` joins them for
one `autocut search`.
"""

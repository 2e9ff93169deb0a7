"""Threads that wait in a loop after a call hold a core, and slow down the model that is timed next.

Measured with two threads on two cores of an AMD EPYC (`studies/timing/order.py` has the figures): after a call, the threads of
OpenMP spun for about 7 ms, those of ONNX Runtime 1.32 for about 45 ms. OpenVINO's call next took 1.5 times as long meanwhile. So
OpenMP spins for a shorter time here, but long enough for the gaps inside a call: a model in a loop of its own is as fast as before.
ONNX Runtime stops at the end of a call (`session.force_spinning_stop`), which costs a loop of its own about 3%.
"""

ENVIRONMENT = {"GOMP_SPINCOUNT": "5000", "KMP_BLOCKTIME": "1"}
"""For processes that time: read once, when OpenMP starts. GNU counts rounds (5,000 are about 0.1 ms), Intel milliseconds."""

"""Is the traffic unlike the photos that the model was calibrated on? docs/DRIFT.md says what is tested, and why.

`columns.py`: what is compared. `comparison.py`: the tests, and what they found in words. `accuracy.py`: how good the
answers are, without labels and with. `references.py`: the model's reference, or your own. `window.py`: all of that for
one window. `reports.py`: what is kept. `model_monitor.py`: when a model's predictions are compared. `monitor.py`: all
models. `service.py`: the BentoML service around it. `__main__.py`: the command line.
"""

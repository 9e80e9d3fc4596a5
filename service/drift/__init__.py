"""Is the traffic unlike the photos that the model was calibrated on? docs/DRIFT.md says what is tested, and why.

`columns.py`: what is compared. `comparison.py`: Evidently's tests, and what they mean in words. `accuracy.py`: how good
the answers are, without labels and with. `references.py`: the model's reference, or your own. `look.py`: all of that
for one window. `reports.py`: what is kept. `monitor.py`: when to look. `__main__.py`: the command line.
"""

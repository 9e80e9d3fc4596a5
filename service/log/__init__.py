"""The prediction log: one row for each prediction, what moderators said of it, and never an image.

`tables.py`: what is kept. `migrations.py`: how a log of an earlier version is brought up to date. `database.py`: opens
the database. `writer.py`: the queue and the thread that writes. `prediction_log.py`: the whole, with its queries.
"""

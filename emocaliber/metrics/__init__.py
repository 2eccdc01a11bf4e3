"""Numbers out of arrays: accuracy, calibration, selective prediction, and how sure they are.

Nothing here knows records, tasks by name or files. Every score is a function of counts, so no number depends
on the order of the rows.
"""

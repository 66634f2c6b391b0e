"""Run a bundle: schedules, noise, the chain of network calls, tasks and backends.

Modules import numpy at the top, and other libraries only in functions that need them.
"""

"""From a bundle to images: schedules, noise, the chain, tasks and backends.

Modules import numpy at the top, and other libraries only in functions that need them.
"""

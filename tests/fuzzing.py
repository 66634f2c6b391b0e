"""Settings of the hypothesis tests that damage files."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

fuzzed = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

"""No test asserts wall-clock time. Hypothesis would, on a busy machine, unless it is told not to."""

from hypothesis import HealthCheck, settings

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

import pytest

from engine.tensorrt.key import DeviceFacts, mismatches, portable_environment

ORIN = DeviceFacts("Orin", "8.7", 16, 32_000_000_000, True)
NANO = DeviceFacts("Orin", "8.7", 8, 8_000_000_000, True)


def test_a_plan_fits_the_device_it_was_compiled_on() -> None:
    key = {**ORIN.environment("tensorrt", "10.3.0.30"), "graph_sha256": "00", "max_batch": "4"}
    assert mismatches(key, ORIN.environment("tensorrt", "10.3.0.30")) == []


def test_modules_of_one_compute_capability_differ_in_sm_count() -> None:
    key = ORIN.environment("tensorrt", "10.3.0.30")
    assert mismatches(key, NANO.environment("tensorrt", "10.3.0.30")) == [
        "sm_count: the plan has 16, needed is 8",
        "memory_bytes: the plan has 32000000000, needed is 8000000000",
    ]


def test_another_library_version_is_another_plan() -> None:
    key = ORIN.environment("tensorrt", "10.3.0.30")
    (told,) = mismatches(key, ORIN.environment("tensorrt", "10.3.0.26"))
    assert told == "runtime_version: the plan has 10.3.0.30, needed is 10.3.0.26"


def test_portable_plans_fit_the_compute_capabilities_they_name() -> None:
    device = DeviceFacts("RTX 4090", "8.9", 128, 24_000_000_000, False).environment("tensorrt-rtx", "1.7.1")
    assert mismatches(portable_environment("tensorrt-rtx", "1.7.1", ()), device) == []
    assert mismatches(portable_environment("tensorrt-rtx", "1.7.1", ("8.6", "8.9")), device) == []
    assert mismatches(portable_environment("tensorrt-rtx", "1.7.1", ("8.6", "12.0")), device) == [
        "compute_capability: the plan has 12.0,8.6, needed is 8.9"
    ]


def test_a_device_name_with_a_comma_is_one_name() -> None:
    key = {**ORIN.environment("tensorrt", "10.3"), "device_name": "Orin,Nano"}
    assert mismatches(key, {"device_name": "Nano"}) == ["device_name: the plan has Orin,Nano, needed is Nano"]


@pytest.mark.parametrize("fact", ["runtime", "sm_count", "graph_sha256"])
def test_a_fact_that_was_not_recorded_does_not_match(fact: str) -> None:
    assert mismatches({}, {fact: "any"}) == [f"{fact}: the plan has no value, needed is any"]

"""What every test has: the short and the long run, and what the header of a run says.

Owns the two hypothesis profiles and the markers' effects. Fixtures of one suite live beside it.
"""

import os
import signal
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

from tests import reference
from tests.processes import Broker

SOAK = os.environ.get("OTTLA_SOAK") == "1"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell without job control starts a run in the background so, and all that the run starts
    # would have it from there: tests of Ctrl-C would wait in vain.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A failure prints the blob that repeats it: CONTRIBUTING.md says how. No deadline: two cores of a
# busy machine make one, and it would find nothing but the machine.
settings.register_profile(
    "ci", print_blob=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("soak", settings.get_profile("ci"), max_examples=2_000)
settings.load_profile("soak" if SOAK else "ci")


def pytest_report_header() -> list[str]:
    reason = reference.missing()
    lines = [f"reference: {reason or f'Apache Kafka {reference.version()}'}"]
    if os.environ.get("OTTLA_PORTABLE") == "1":
        lines.append("every portable fallback is forced (OTTLA_PORTABLE=1)")
    if SOAK:
        lines.append("the long run (OTTLA_SOAK=1)")
    return lines


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("soak") and not SOAK:
            item.add_marker(pytest.mark.skip(reason="takes minutes: make soak"))
        if item.get_closest_marker("reference") and (reason := reference.missing()):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what the brokers among its fixtures said."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for name, value in item.funcargs.items():
            broker = getattr(value, "broker", value)
            if isinstance(broker, Broker):
                report.sections.append((f"what the broker of {name!r} said", broker.said()))
    return report

"""What every test of the bridge leaves behind as it found it."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def scheduling_is_given_back():
    """Vendors' clients take real-time priority for the thread that calls them (libfranka: 99, for good); a test process that kept it
    would starve the twins of all later tests.
    """
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    yield
    if os.sched_getscheduler(0) != before[0] or os.sched_getparam(0) != before[1]:
        os.sched_setscheduler(0, *before)

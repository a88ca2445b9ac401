"""What is set for the whole process is put back after every test."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _own_matmul_setting():
    """The command line chooses torch's float32 product (`dynamics.matmul`); the next test begins with torch's default again."""
    before = torch.backends.mkldnn.matmul.fp32_precision
    yield
    torch.backends.mkldnn.matmul.fp32_precision = before

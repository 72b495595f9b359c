"""Verification: whether the results are still what the jobs wrote."""

from mammoflow.verify.check import verify

__all__ = ["verify"]

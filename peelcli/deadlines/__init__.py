"""Budgets of latency: predicted from measured layers, met by plans, measured again on what came out."""

from peelcli.deadlines.meet import settle_in_time

__all__ = ["settle_in_time"]

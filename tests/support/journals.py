"""Logs that are built from what other logs say they took."""

from __future__ import annotations

import json

import metering_core as mc
from metering_core.journal import Change


def through_text(change):
    """Return a change after it was kept as a text."""
    return Change.from_dict(json.loads(json.dumps(change.to_dict())))


def empty_like(log):
    """Return a log that was built alike, and took nothing yet."""
    if isinstance(log, mc.UsageLog):
        return mc.UsageLog(policy=log.policy)
    return mc.MeterLog(policy=log.policy, customers=None if log.known_customers is None else ())


def follow(follower, log):
    """Have a log take what another took since, each change as it was stored."""
    for change in log.changes(since=follower.last_change):
        assert follower.apply(through_text(change))


def text_of(log):
    """Return a log's snapshot as text."""
    return json.dumps(mc.snapshot(log))


def twin_of(log):
    """Return a log that took all changes of another."""
    twin = empty_like(log)
    follow(twin, log)
    return twin


def check_same(log, twin):
    """Check that two logs are the same, to the byte, and say the same of what they took."""
    assert twin == log
    assert text_of(twin) == text_of(log)
    assert twin.changes() == log.changes()
    assert twin.last_change == log.last_change == len(log.changes())
    assert [change.number for change in log.changes()] == [*range(1, len(log.changes()) + 1)]

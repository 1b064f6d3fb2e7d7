"""Damaging snapshots: what is written in one is changed, as it may be where it is kept."""

from __future__ import annotations

from metering_core.snapshots.document import _checksum


def changed(*path, value):
    """Return a change of a snapshot's content that leaves its checksum right, so that only the
    content can betray it.
    """

    def change(data):
        place = data["content"]
        for key in path[:-1]:
            place = place[key]
        if value is KeyError:
            del place[path[-1]]
        else:
            place[path[-1]] = value(place[path[-1]]) if callable(value) else value
        data["checksum"] = _checksum(data["content"])

    return change


def sealed(data, content):
    """Return a snapshot with another content and the checksum of that, so that only the content can
    betray it.
    """
    return {**data, "content": content, "checksum": _checksum(content)}


def replaced(**values):
    return lambda data: data.update(values)

"""One subscription as it runs, without sockets and clocks: what is to be told next, and when to look again.

What waits to be told is kept by path, and its value is looked up only when it leaves: a subscriber that reads slowly
gets each path's latest value, with the number of those that it missed (`duplicates`). A deletion waits only where
the subscriber has been told what is deleted. So nothing here grows beyond the tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from keyhaul.agents.gnmi import data, paths
from keyhaul.agents.gnmi.changes import Changes, Deletion
from keyhaul.agents.gnmi.paths import Path, Step
from keyhaul.agents.gnmi.schema import Node, Schema
from keyhaul.agents.gnmi.subscribing import Mode, Part, Subscriptions

AT_ONCE = 128
"""Updates or deletions in one notification, at most."""

_SYNC: Path = (Step("sync_response"),)
"""Stands among what waits where the subscriber is in step; no path of a schema looks like it."""


class Told(NamedTuple):
    """One update."""

    path: Path
    node: Node
    value: Any
    duplicates: int


class Notification(NamedTuple):
    """What is told together; deletions come before updates."""

    deletes: tuple[Path, ...]
    updates: tuple[Told, ...]


Message = Notification | Literal["sync"]


@dataclass(slots=True)
class _Timer:
    part: Part
    period: float
    heartbeat: bool
    next: float


class Session:
    """What one subscriber has been told and is still to be told."""

    def __init__(self, schema: Schema, subscriptions: Subscriptions, snapshot: Any, now: float) -> None:
        """Begin with all that is there (ONCE, STREAM); POLL waits for the first poll.

        Args:
            schema: what there can be.
            subscriptions: what the subscriber asked for.
            snapshot: what there is.
            now: seconds of any clock that does not go back.
        """
        self._schema = schema
        self._subscriptions = subscriptions
        self._known: dict[Path, Any] = {}
        """What the subscriber has, by the paths of updates; None: it was told of a part that is gone since."""
        self._waiting: dict[Path, int] = {}
        """Updates to be told, oldest first, with how many were told in vain."""
        self._deletes: dict[Path, None] = {}
        self._timers: list[_Timer] = []
        if subscriptions.mode is not Mode.POLL:
            self._everything(snapshot)
        if subscriptions.mode is Mode.STREAM:
            self._timers = [timer for part in subscriptions.parts for timer in _timers(part, now)]

    @property
    def wants_changes(self) -> bool:
        """Whether something is to be told as soon as it changes."""
        return self._subscriptions.mode is Mode.STREAM and any(
            part.sample is None for part in self._subscriptions.parts
        )

    @property
    def waiting(self) -> int:
        """How many updates and deletions wait."""
        return len(self._waiting) + len(self._deletes)

    @property
    def deadline(self) -> float | None:
        """When `due` has something to do, if nothing happens before."""
        return min((timer.next for timer in self._timers), default=None)

    def poll(self, snapshot: Any) -> None:
        """Tell all that is there (POLL)."""
        self._everything(snapshot)

    def changed(self, changes: Changes) -> None:
        """Take note of changes in the tree."""
        if self._subscriptions.mode is not Mode.STREAM:
            return
        marks: dict[Path, None] = {}
        for deletion in changes.deleted:
            for part in self._subscriptions.parts:
                marks.update(dict.fromkeys(self._deleted(part, deletion)))
        for place in changes.updated:
            for part in self._subscriptions.parts:
                if part.sample is None and paths.covers(part.pattern, place.path):
                    told = place.told_as(len(part.pattern))
                    if self._concerns(part, told):
                        marks[told] = None
        for told in marks:
            self._mark(told)

    def due(self, now: float, snapshot: Any) -> None:
        """Take samples and heartbeats whose time has come; what was missed meanwhile is not made up for."""
        for timer in self._timers:
            if timer.next <= now:
                timer.next += timer.period * (1 + (now - timer.next) // timer.period)
                self._look(timer.part, snapshot, redundant=timer.heartbeat or not timer.part.suppress)

    def take(self, snapshot: Any) -> Message | None:
        """Return what is to be told next, None if nothing waits.

        Args:
            snapshot: the tree as it is; nothing may have changed in it that `changed` has not been told.
        """
        deletes = tuple(path for path, _ in zip(self._deletes, range(AT_ONCE), strict=False))
        for path in deletes:
            del self._deletes[path]
        updates: list[Told] = []
        while self._waiting and not self._deletes and len(updates) < AT_ONCE:
            path = next(iter(self._waiting))
            if path is _SYNC and (updates or deletes):
                break
            duplicates = self._waiting.pop(path)
            if path is _SYNC:
                return "sync"
            value, node = data.at(snapshot, path), self._schema.node(paths.names(path))
            if value is not None and node is not None:
                self._known[path] = value
                updates.append(Told(path, node, value, duplicates))
        return Notification(deletes, tuple(updates)) if deletes or updates else None

    def _everything(self, snapshot: Any) -> None:
        for part in self._subscriptions.parts:
            self._look(part, snapshot, redundant=True, known=self._subscriptions.updates_only)
        self._waiting.pop(_SYNC, None)
        self._waiting[_SYNC] = 0

    def _look(self, part: Part, snapshot: Any, *, redundant: bool, known: bool = False) -> None:
        for found in data.matching(self._schema.root, snapshot, part.pattern):
            for path, _, value in data.told(found):
                if not self._concerns(part, path):
                    continue
                if known:
                    self._known[path] = value
                elif redundant or path not in self._known or self._known[path] != value:
                    self._mark(path)

    def _concerns(self, part: Part, path: Path) -> bool:
        if part.sampled is None:
            return True
        node = self._schema.node(paths.names(path))
        return node is not None and node.sampled is part.sampled

    def _mark(self, path: Path) -> None:
        waiting = self._waiting.get(path)
        self._waiting[path] = 0 if waiting is None else waiting + 1

    def _deleted(self, part: Part, deletion: Deletion) -> Iterator[Path]:
        """Have a deletion told; return what must be told anew because part of it is gone."""
        top = deletion.top
        for place in deletion.leaves:
            if not paths.covers(part.pattern, place.path):
                continue
            told = place.told_as(len(part.pattern))
            if len(told) >= len(top):
                self._waiting.pop(told, None)
                if told in self._known:
                    del self._known[told]
                    self._deletes[top if len(part.pattern) <= len(top) else told] = None
            elif told in self._known:
                self._deletes[top] = None
                self._known[told] = None
                if part.sample is None:
                    yield told


def _timers(part: Part, now: float) -> list[_Timer]:
    timers = []
    if part.sample is not None:
        timers.append(_Timer(part, part.sample, heartbeat=False, next=now + part.sample))
    if part.heartbeat is not None and (part.sample is None or part.suppress):
        timers.append(_Timer(part, part.heartbeat, heartbeat=True, next=now + part.heartbeat))
    return timers

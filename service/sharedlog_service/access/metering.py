"""How much who has asked for lately, or has at work, counted in this process alone; and no for who
asks too much.

For each user and each device, and each of three measures, one number is kept: until when what was
used would take at the rate that is allowed. A minute's worth may be used at once. What a request
costs is added after it was let in, so that one of any size gets through, and is paid for later.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from math import ceil
from threading import Lock
from typing import NamedTuple, Self

from sharedlog_service.access.answers import Answers
from sharedlog_service.access.auth import Access
from sharedlog_service.errors import Code, Refused
from sharedlog_service.grants import Scope
from sharedlog_service.settings import MINUTE_MS, Clock, Rates
from sharedlog_service.store.store import Store

KEPT_MAX = 20_000
"""How many numbers are kept at most. The one that was not used for longest goes first; if it still
meant anything, its owner gets another minute's worth."""

DEVICE_SHARE = 0.5
"""How much of what a user may ask for one device may: one that runs wild must leave some for the
others."""

BODY_BYTES = 1024 * 1024
"""So much of a large body counts as a request: to unfold and to parse it takes as long."""

BODY_RETRY_MS = 1_000
"""When to send a body again for which others left no room. They are answered soon, as a rule."""

LOOKED_UP_EVERY_MS = 1_000
"""So long may who is refused for asking too much not hear that their token ended meanwhile."""

DEVICE_CHARS_MAX = 200
"""No device has a longer id; whoever makes one up need not fill the memory with it."""


class Use(NamedTuple):
    """What a request takes, by measure."""

    requests: float = 0
    entries: int = 0
    bytes: int = 0


Key = tuple[str, str | None, str]
"""Whose, and of which measure."""


class Asking(NamedTuple):
    """By which token a request is made, and whose it says that it is."""

    token: str
    user: str
    device: str | None


class Meter:
    """Counts what users and devices take. May be used from several threads.

    `steady` tells how many milliseconds went by since some moment, and never goes back.
    """

    def __init__(self, rates: Rates, steady: Clock, kept_max: int = KEPT_MAX) -> None:
        self._steady = steady
        self._kept_max = kept_max
        self._paid: OrderedDict[Key, float] = OrderedDict()
        self._lock = Lock()
        self._ms_each = {
            measure: MINUTE_MS / rate for measure, rate in rates._asdict().items() if rate
        }

    def ask(self, user: str, device: str | None = None) -> None:
        """Let a request of this user in, or of this device of theirs; RATE_LIMITED if there were
        too many, or if what was written has not been paid for yet. Who is refused pays nothing."""
        with self._lock:
            self._check(user, device)
            self._add(user, device, Use(requests=1))

    def check(self, user: str) -> None:
        """Refuse if a request of this user would be refused now."""
        with self._lock:
            self._check(user, None)

    def took(self, user: str, bytes: int) -> None:
        """Count a large body of this user, whatever becomes of it."""
        with self._lock:
            self._add(user, None, Use(requests=bytes / BODY_BYTES))

    def wrote(self, user: str, device: str, entries: int, bytes: int) -> None:
        with self._lock:
            self._add(user, device, Use(entries=entries, bytes=bytes))

    def __len__(self) -> int:
        return len(self._paid)

    def _check(self, user: str, device: str | None) -> None:
        now = self._steady()
        keys = [(user, who, measure) for who in {None, device} for measure in self._ms_each]
        wait = max((self._paid.get(key, now) for key in keys), default=now) - now - MINUTE_MS
        if wait > 0:
            raise rate_limited(ceil(wait))

    def _add(self, user: str, device: str | None, use: Use) -> None:
        now = self._steady()
        for measure, ms_each in self._ms_each.items():
            for who in {None, device}:
                key, share = (user, who, measure), 1 if who is None else DEVICE_SHARE
                cost = getattr(use, measure) * ms_each / share
                if cost:
                    self._paid[key] = max(self._paid.get(key, now), now) + cost
                    self._paid.move_to_end(key)
        while len(self._paid) > self._kept_max:
            self._paid.popitem(last=False)


def rate_limited(wait_ms: int) -> Refused:
    return Refused(
        Code.RATE_LIMITED,
        f"Too much at once: ask again in {ceil(wait_ms / 1000)} s. Nothing was done.",
        retryAfterMs=wait_ms,
    )


class Refusals:
    """Who was refused a moment ago, by their token and as which device. Until they have waited, a
    second at most, they are refused again without looking them up: else who asks fifty times as
    often as they may would keep the database busy. May be used from several threads."""

    def __init__(self, steady: Clock, kept_max: int = KEPT_MAX) -> None:
        self._steady = steady
        self._kept_max = kept_max
        self._until: OrderedDict[Asking, tuple[int, int]] = OrderedDict()
        self._lock = Lock()

    def note(self, asking: Asking, wait_ms: int) -> None:
        now = self._steady()
        with self._lock:
            self._until[asking] = now + min(wait_ms, LOOKED_UP_EVERY_MS), now + wait_ms
            self._until.move_to_end(asking)
            if len(self._until) > self._kept_max:
                self._until.popitem(last=False)

    def check(self, asking: Asking) -> None:
        """Refuse who has not waited yet."""
        now = self._steady()
        with self._lock:
            look_up_at, until = self._until.get(asking, (now, now))
            if look_up_at <= now:
                self._until.pop(asking, None)
                return
        raise rate_limited(until - now)


class Bodies:
    """How many bytes of large bodies each user has at work. Of one thread: the event loop's."""

    def __init__(self, meter: Meter, bytes_max: int) -> None:
        self._meter = meter
        self._bytes_max = bytes_max
        self._held: Counter[str] = Counter()

    def admit(self, user: str) -> LargeBody:
        """Let a large body of this user in, unless they have asked for too much already."""
        self._meter.check(user)
        return LargeBody(self, user)

    def hold(self, user: str, before: int, size: int) -> None:
        """Hold a body of this size that was held up to `before`."""
        others = self._held[user] - before
        if others and others + size > self._bytes_max:
            raise rate_limited(BODY_RETRY_MS)
        self._held[user] = others + size

    def release(self, user: str, size: int) -> None:
        self._held[user] -= size
        if not self._held[user]:
            del self._held[user]

    def took(self, user: str, size: int) -> None:
        self._meter.took(user, size)

    def __len__(self) -> int:
        return len(self._held)


class LargeBody:
    """A body of a user that is not short, held until its request is answered. Used once, as a
    context."""

    def __init__(self, bodies: Bodies, user: str) -> None:
        self._bodies = bodies
        self._user = user
        self._size = 0

    def hold(self, size: int) -> None:
        """Hold so much of it in all; RATE_LIMITED if the user's others leave no room."""
        if size > self._size:
            self._bodies.hold(self._user, self._size, size)
            self._size = size

    def count(self, size: int) -> None:
        """Count it, whatever becomes of it: so much was read."""
        self._bodies.took(self._user, size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bodies.release(self._user, self._size)


class MeteredAccess(Access):
    """What somebody may do in one request, or on one socket, as often as they may. Who has no
    access to a log uses up nothing of what its user may ask for."""

    user_asked: str | None = None
    """Whose request it was that was counted last."""

    def __init__(self, access: Access, meter: Meter, refusals: Refusals, answers: Answers) -> None:
        self._access = access
        self._meter = meter
        self._refusals = refusals
        self._answers = answers
        self._pages = 0
        self.makes_users, self.token = access.makes_users, access.token

    def check(self, store: Store, claimed: str, scope: Scope, device: str | None) -> None:
        self._access.check(store, claimed, scope, device)

    def asked(self, user: str, device: str | None) -> None:
        try:
            self._meter.ask(user, None if device is None else device[:DEVICE_CHARS_MAX])
        except Refused as refused:
            if self.token is not None and len(device or "") <= DEVICE_CHARS_MAX:
                wait_ms = refused.details["retryAfterMs"]
                assert isinstance(wait_ms, int)
                self._refusals.note(Asking(self.token, user, device), wait_ms)
            raise
        self.user_asked = user

    def wrote(self, user: str, device: str, entries: int, bytes: int) -> None:
        self._meter.wrote(user, device, entries, bytes)

    def viewer(self, store: Store) -> str | None:
        user = self._access.viewer(store)
        if user is not None:
            self._meter.ask(user)
            self.user_asked = user
        return user

    def room(self) -> int | None:
        self._pages += 1
        return self._answers.room(self.user_asked, self._pages)

    def may_explore(self, store: Store) -> bool:
        return self._access.may_explore(store)

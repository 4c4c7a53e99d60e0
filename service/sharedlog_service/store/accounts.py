"""Users, the lives of their logs, and tokens: who there is, and who may ask."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import orjson

from sharedlog_service.engines.database import Database
from sharedlog_service.engines.tables import Log, Token, User
from sharedlog_service.grants import EVERYTHING, Grant, scopes_of
from sharedlog_service.settings import DAY_MS, Clock, IdSource
from sharedlog_service.store.places import log_of

LATELY_MS = DAY_MS
"""Devices that were not heard of for longer are not behind, but away."""

VALID = "revoked_at IS NULL AND coalesce(expires_at, ?) > ?"
"""Which tokens allow anything, with a moment after now, and now, as parameters."""


class UserSummary(NamedTuple):
    """A user, and how much there is of him. Times are in milliseconds."""

    user: str
    created_at: int
    entries: int
    bytes: int
    devices: int
    last_shared_on: int | None


class Totals(NamedTuple):
    """All logs together: where they end, and up to where deletions are forgotten, added up; and how
    many entries the device is behind that is farthest behind of those heard of lately."""

    head: int
    horizon: int
    lag: int


class Accounts:
    """The part of the store that knows people and tokens."""

    def __init__(self, database: Database, now: Clock, new_id: IdSource) -> None:
        self._database = database
        self._now = now
        self._new_id = new_id

    def create_user(self, user: str) -> bool:
        """Make a user with an empty log. Returns False if there was one already."""
        with self._database.transaction() as db:
            sql = "INSERT INTO users VALUES (?, ?) ON CONFLICT DO NOTHING RETURNING id"
            if not db.rows(sql, user, self._now()):
                return False
            Log.insert(user=user, epoch=self._new_id()).execute(db)
            return True

    def users(self) -> list[str]:
        with self._database.snapshot() as db:
            return [user.id for user in User.select().order_by(User.created_at).execute(db)]

    def summaries(self) -> list[UserSummary]:
        """Return all users with their numbers, oldest first, in one query."""
        with self._database.snapshot() as db:
            sql = """
                SELECT users.id, created_at, head - dropped, bytes,
                    (SELECT count(*) FROM devices WHERE log = logs.id), nullif(shared_on, 0)
                FROM users JOIN logs ON logs."user" = users.id ORDER BY created_at, users.id
            """
            return [UserSummary(*row) for row in db.rows(sql)]

    def totals(self) -> Totals:
        """Return all logs in three numbers. Reads each log and each device once."""
        with self._database.snapshot() as db:
            sql = """
                SELECT coalesce(sum(head), 0), coalesce(sum(horizon), 0), (
                    SELECT coalesce(max(head - cursor), 0) FROM devices JOIN logs ON log = logs.id
                    WHERE revoked_at IS NULL AND last_seen > ?
                ) FROM logs
            """
            [found] = db.rows(sql, self._now() - LATELY_MS)
            return Totals(*map(int, found))

    def owner_of(self, device_id: str) -> str | None:
        """Return whose device this is."""
        with self._database.snapshot() as db:
            sql = 'SELECT "user" FROM logs JOIN devices ON log = logs.id WHERE devices.id = ?'
            found: str | None = db.scalar(sql, device_id)
            return found

    def renew_epoch(self, user: str) -> str:
        """Begin a new life of a log, as after restoring a backup: every device offers all of its
        own entries again, so that whatever the backup lacked comes back."""
        with self._database.transaction() as db:
            log, epoch = log_of(db, user, writing=True), self._new_id()
            Log.update(epoch=epoch).where(Log.id == log.id).execute(db)
            return epoch

    def renew_epochs(self) -> int:
        """Begin a new life of every log; returns how many there are."""
        with self._database.transaction():
            users = self.users()
            for user in users:
                self.renew_epoch(user)
            return len(users)

    def add_token(self, digest: str, name: str, grant: Grant) -> None:
        """Let whoever shows what has this digest do what the grant says."""
        with self._database.transaction() as db:
            Token.insert(
                hash=digest,
                user=grant.user,
                name=name,
                created_at=self._now(),
                scopes=" ".join(sorted(scope.value for scope in grant.scopes)),
                device=grant.device,
                expires_at=grant.expires_at,
            ).execute(db)

    def grant(self, digest: str) -> Grant | None:
        """Return what this token allows; None if it is nobody's, revoked or expired."""
        with self._database.snapshot() as db:
            sql = (
                f'SELECT "user", scopes, device, expires_at FROM tokens WHERE hash = ? AND {VALID}'
            )
            now = self._now()
            for user, scopes, device, expires_at in db.rows(sql, digest, now + 1, now):
                named = EVERYTHING if scopes is None else scopes_of(scopes.split())
                return Grant(user, named, device, expires_at)
            return None

    def valid_tokens(self, digests: Iterable[str]) -> set[str]:
        """Return those of these that allow anything now, in one query."""
        with self._database.snapshot() as db:
            sql = f"SELECT hash FROM tokens WHERE hash IN {db.texts} AND {VALID}"
            now = self._now()
            asked = orjson.dumps([*digests]).decode()
            return {digest for (digest,) in db.rows(sql, asked, now + 1, now)}

    def tokens(self) -> list[Token]:
        with self._database.snapshot() as db:
            return list(Token.select().order_by(Token.created_at, Token.hash).execute(db))

    def revoke_tokens(self, digest_prefix: str) -> int:
        """Revoke the tokens whose digest begins so; returns how many there were."""
        with self._database.transaction() as db:
            chosen = Token.revoked_at.is_null() & Token.hash.startswith(digest_prefix)
            count: int = Token.update(revoked_at=self._now()).where(chosen).execute(db)
            return count

    def replace_token(self, digest_prefix: str, digest: str, expires_at: int) -> int:
        """Make another token that allows the same; the one whose digest begins so is good until
        then at most. Returns how many there were: nothing happens unless it is one."""
        with self._database.transaction() as db:
            chosen = Token.revoked_at.is_null() & Token.hash.startswith(digest_prefix)
            found = list(Token.select().where(chosen).execute(db))
            if len(found) != 1:
                return len(found)
            (old,) = found
            until = min(expires_at, old.expires_at or expires_at)
            Token.update(expires_at=until).where(Token.hash == old.hash).execute(db)
            same = {name: getattr(old, name) for name in ("name", "scopes", "device", "expires_at")}
            now = self._now()
            Token.insert(hash=digest, user=old.user, created_at=now, **same).execute(db)
            return 1

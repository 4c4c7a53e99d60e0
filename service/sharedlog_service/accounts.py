"""Users, the lives of their logs, and tokens: who there is, and who may ask."""

from __future__ import annotations

from sharedlog_service.database import Database
from sharedlog_service.places import log_of
from sharedlog_service.settings import Clock, IdSource
from sharedlog_service.tables import Log, Token, User


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

    def add_token(self, user: str, name: str, digest: str) -> None:
        with self._database.transaction() as db:
            Token.insert(hash=digest, user=user, name=name, created_at=self._now()).execute(db)

    def token_user(self, digest: str) -> str | None:
        """Return whose token this is, None if it is nobody's or revoked."""
        with self._database.snapshot() as db:
            sql = 'SELECT "user" FROM tokens WHERE hash = ? AND revoked_at IS NULL'
            found: str | None = db.scalar(sql, digest)
            return found

    def tokens(self) -> list[Token]:
        with self._database.snapshot() as db:
            return list(Token.select().order_by(Token.created_at, Token.hash).execute(db))

    def revoke_tokens(self, digest_prefix: str) -> int:
        """Revoke the tokens whose digest begins so; returns how many there were."""
        with self._database.transaction() as db:
            alive = Token.revoked_at.is_null() & Token.hash.startswith(digest_prefix)
            count: int = Token.update(revoked_at=self._now()).where(alive).execute(db)
            return count

"""A device of a user whom an identity provider knows: the real service, told by its options."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
import peewee
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from sharedlog import GraphQLSharedLog, HttpTransport, Sync, SyncModel, Unauthorized
from sharedlog.cli import main
from tests.system.service_process import ServiceProcess

ISSUER = "https://login.example"


class Note(SyncModel):
    title = peewee.TextField()


def test_a_device_syncs_with_tokens_of_a_provider(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    jwk: dict[str, Any] = json.loads(RSAAlgorithm.to_jwk(key.public_key()))
    keys = tmp_path / "jwks.json"
    keys.write_text(json.dumps({"keys": [{**jwk, "kid": "1"}]}))
    options = ["--jwt-issuer", ISSUER, "--jwt-audience", "sharedlog", "--jwt-jwks", str(keys)]
    options += ["--jwt-scope", "log:read", "--jwt-scope", "log:append"]
    lifetimes = [600]

    def token() -> str:
        until = int(time.time()) + lifetimes[0]
        claims = {"iss": ISSUER, "aud": "sharedlog", "sub": "ada", "exp": until}
        return jwt.encode(claims, key, "RS256", headers={"kid": "1"})

    database = peewee.SqliteDatabase(str(tmp_path / "ada.db"))
    with (
        ServiceProcess(tmp_path / "service.db", *options) as service,
        database.bind_ctx([Note]),
        Sync(database, [Note], url=service.url, token=token) as sync,
    ):
        database.create_tables([Note])
        Note.create(title="a")
        assert sync.sync().sent == 1
        lifetimes[0] = -90
        with pytest.raises(Unauthorized):
            sync.sync()
        lifetimes[0] = 600
        sync.sync()
        # The service's own tokens are good beside, and each opens its user's log.
        for token_of, user in ((token(), "ada"), (service.token, "me")):
            log = GraphQLSharedLog(HttpTransport(service.url, token_of))
            assert log.about().owner == user
            log.close()
    database.close()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--jwt-issuer", ISSUER], "go together"),
        (["--jwt-issuer", ISSUER, "--jwt-audience", "x", "--jwt-jwks", "http://a.b/"], "https"),
        (["--jwt-issuer", ISSUER, "--jwt-audience", "x", "--jwt-jwks", "none.json"], "none.json"),
    ],
)
def test_options_that_let_in_the_wrong_ones_are_refused(
    tmp_path: Path, options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    database = tmp_path / "log.db"
    assert main(["serve", "--db", str(database), *options]) == 2
    assert told in capsys.readouterr().err
    assert not database.exists()

"""The real client and the real service, in gzip both ways."""

from __future__ import annotations

from pathlib import Path

import peewee
import pytest

from sharedlog import GraphQLSharedLog, HttpTransport, Sync, SyncModel
from tests.system.service_process import ServiceProcess


class Page(SyncModel):
    text = peewee.TextField()


@pytest.mark.parametrize("compress", [True, False])
def test_a_sync_in_gzip_is_a_sync(service: ServiceProcess, tmp_path: Path, compress: bool) -> None:
    texts = []
    for name in ("one", "two"):
        database = peewee.SqliteDatabase(str(tmp_path / f"{name}.db"), pragmas={"foreign_keys": 1})
        with database.bind_ctx([Page]):
            database.create_tables([Page])
            transport = HttpTransport(service.url, service.token, compress=compress)
            with Sync(database, [Page], shared_log=GraphQLSharedLog(transport)) as sync:
                sync.setup()
                if name == "one":
                    Page.insert_many([{"text": f"{n} " * 100} for n in range(3000)]).execute()
                sync.sync()
                texts.append(sorted(page.text for page in Page.select()))
            assert transport._takes_gzip is compress
        database.close()
    assert len(texts[0]) == 3000
    assert texts[0] == texts[1]

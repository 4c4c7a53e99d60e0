"""No input breaks the service: mutated bodies and documents get an answer of ours, never a 5xx.

The seed is fixed, so that a failure comes again; SHAREDLOG_FUZZ sets another number of requests.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable

from sharedlog_service.errors import Code
from tests.service.support import CREATE_DEVICE, READ, WRITE, Asker

REQUESTS = int(os.environ.get("SHAREDLOG_FUZZ", "600"))

PIECES = [
    *("{", "}", "[", "(", ")", "$", "...", "@skip(if: true)", "@include(if: $x)", "#", '"', '"""'),
    *(
        "\\u0000",
        "\\ud800",
        "\u2028",
        "\U0001d4b3",
        "9" * 400,
        "1e999",
        "-",
        "{a}",
        "query B {a}",
        "!",
        ":",
    ),
    *("fragment f on Query {...f}", "...f", "__schema {types {name}}", "__typename", "null", "_"),
    *("subscription S {a}", "mutation", "userId", 'userId: "ada"', "[[1,0,1]]", "a: ", ","),
]


def mutated(text: str, rng: random.Random) -> str:
    for _ in range(rng.randrange(1, 6)):
        at, length = rng.randrange(len(text) + 1), rng.randrange(12)
        choice = rng.randrange(4)
        if choice == 0:
            text = text[:at] + rng.choice(PIECES) + text[at:]
        elif choice == 1:
            text = text[:at] + text[at + length :]
        elif choice == 2:
            text = text[:at] + text[at : at + length] * 3 + text[at + length :]
        else:
            text = text[:at] + rng.choice(PIECES) + text[at + length :]
    return text


def test_no_mutated_request_breaks_the_service(serve: Callable[..., Asker]) -> None:
    asker = serve(no_auth=True)
    device = asker.ask(CREATE_DEVICE, {"user": "ada"})["createDeviceId"]
    variables = {"user": "ada", "device": device, "packed": [[1024, 0, "x"]]}
    rng = random.Random(20261123)
    codes: Counter[str] = Counter()
    for _ in range(REQUESTS):
        document = rng.choice([READ, WRITE, CREATE_DEVICE, "{sharedSyncLog {viewer}}"])
        if rng.random() < 0.7:
            body = json.dumps({"query": mutated(document, rng), "variables": variables})
        else:
            body = mutated(json.dumps({"query": document, "variables": variables}), rng)
        response = asker.client.post(
            "/graphql", content=body.encode(), headers={"content-type": "application/json"}
        )
        assert response.status_code < 500, body
        for error in response.json().get("errors", [{"extensions": {"code": "none"}}]):
            code = error["extensions"]["code"]
            assert code == "none" or (code in Code.__members__ and code != "INTERNAL"), body
            codes[code] += 1
    # The fuzzer must get past the door, and must hit it too.
    assert codes["none"] > REQUESTS / 100
    assert codes["GRAPHQL_VALIDATION_FAILED"] > REQUESTS / 100
    assert codes["GRAPHQL_PARSE_FAILED"] > REQUESTS / 100
    assert codes["BAD_REQUEST"] > REQUESTS / 100

"""Run the blocks of one page as one program, in this process, which a test starts for it.

Reads {"page", "names", "blocks": [{"line", "text"}]} as JSON from standard input; writes what each
block printed, and the traceback of one that failed, as JSON to standard output.
"""

from __future__ import annotations

import io
import json
import sys
import traceback
from contextlib import redirect_stdout


def main() -> None:
    task = json.load(sys.stdin)
    namespace = {"__name__": "__main__", **task["names"]}
    outputs = []
    error = None
    for block in task["blocks"]:
        printed = io.StringIO()
        try:
            # Blank lines in front, so that a traceback tells the line of the page.
            source = "\n" * (block["line"] - 1) + block["text"]
            with redirect_stdout(printed):
                exec(compile(source, task["page"], "exec", dont_inherit=True), namespace)
        except BaseException:
            error = traceback.format_exc()
            break
        finally:
            outputs.append(printed.getvalue())
    json.dump({"outputs": outputs, "error": error}, sys.stdout)


if __name__ == "__main__":
    main()

"""``python -m servers fetch|start|stop|status [NAME…] [--folder F]``; see the package."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from servers import SERVERS, ServerFailed, server_class
from servers.shared import default_folder, keep, running, shared_url, stop


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["keep"]:  # what shared_url begins in the background
        keep(arguments[1], Path(arguments[2]), int(arguments[3]))
        return 0
    parser = argparse.ArgumentParser(prog="python -m servers", description="Real database servers to develop against.")
    parser.add_argument("what", choices=["fetch", "start", "stop", "status"])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SERVERS)}; all without any")
    parser.add_argument("--folder", type=Path, default=default_folder(), help="of data and state (%(default)s)")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.names) - set(SERVERS))
    if unknown:
        parser.error(f"no server {', '.join(unknown)}; there are {', '.join(SERVERS)}")
    failed = False
    for name in given.names or SERVERS:
        if given.what == "stop":
            print(f"{name:12} {'stopped' if stop(name, given.folder) else 'was not running'}")
            continue
        if given.what == "fetch":
            try:
                server_class(name).fetch()
            except ServerFailed as error:
                failed = True
                print(f"{name:12} {error}")
            continue
        if given.what == "status":
            print(f"{name:12} {running(name, given.folder) or 'not running'}")
            continue
        reason = server_class(name).unavailable_reason()
        if reason is None:
            try:
                print(f"{name:12} {shared_url(name, given.folder)}")
                continue
            except ServerFailed as error:
                reason = str(error)
        failed |= name in given.names
        print(f"{name:12} cannot be had: {reason}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""``python leash.py PARENT SIGNAL USER COMMAND…``: become a command that gets SIGNAL when its parent dies (Linux).

PARENT  process id that must still be the parent, or the command is not begun.
USER    name to become when this is root; "" to stay.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(parent: int, signal: int, user: str, command: list[str]) -> None:
    if user and os.geteuid() == 0:
        import pwd

        entry = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)  # before prctl: a change of user unties it
        os.environ["HOME"] = "/nonexistent"
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal)
        if os.getppid() != parent:
            sys.exit("the parent died before the server began")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])

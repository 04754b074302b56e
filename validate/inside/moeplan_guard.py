"""Stop a process group when the owner of our standard input is gone.

    python moeplan_guard.py GROUP

The owner holds the write end of the pipe and dismisses us with one byte once the group is stopped.
End of file without that byte means that the owner died: the group is told to end, then killed.
"""

import os
import signal
import sys
import time

GRACE_S = 20.0


def main() -> None:
    """Wait for the owner's word or death; in the latter case end the group named in argv[1]."""
    group = int(sys.argv[1])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if os.read(0, 1):
        return
    end = time.monotonic() + GRACE_S
    try:
        os.killpg(group, signal.SIGTERM)
        while time.monotonic() < end:
            time.sleep(0.2)
            os.killpg(group, 0)
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    main()

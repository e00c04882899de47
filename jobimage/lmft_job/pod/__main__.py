"""Entry of the job's container: the run file in, a result in the termination message out.

Everything heavy is imported after the SIGTERM handler is installed: Python as PID 1 ignores the signal until then, and
importing torch takes seconds.
"""

import os
import sys

from lmft_api.reasons import ExitCode
from lmft_job.process.signals import Interrupt
from lmft_job.process.streams import use_resilient_streams


def main() -> None:
    """Run and exit with the code of the ending."""
    interrupt = Interrupt()
    try:
        use_resilient_streams()
        interrupt.install()
        from lmft_job.pod.attempt import run_attempt

        code = run_attempt(sys.argv[1:], interrupt)
    except BaseException:
        # Stopped before there was anything to conclude; an import may have wrapped the stop in another error.
        if not interrupt.requested:
            raise
        code = ExitCode.INTERRUPTED
    sys.stdout.flush()
    sys.stderr.flush()
    # Immediately: a normal exit would wait for the threads of an abandoned upload.
    os._exit(code)


if __name__ == "__main__":
    main()

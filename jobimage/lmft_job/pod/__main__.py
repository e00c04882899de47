"""Entry of the job's container: the run file in, a result in the termination message out.

Everything heavy is imported after the SIGTERM handler is installed: Python as PID 1 ignores the signal until then, and
importing torch takes seconds.
"""

import os
import sys

from lmft_api.reasons import ExitCode
from lmft_api.wire.ranks import is_rank
from lmft_job.process.signals import Interrupt
from lmft_job.process.streams import use_resilient_streams


def main() -> None:
    """Run and exit with the code of the ending."""
    interrupt = Interrupt()
    try:
        use_resilient_streams()
        interrupt.install()
        code = _run(sys.argv[1:], interrupt)
    except BaseException:
        # Stopped before there was anything to conclude; an import may have wrapped the stop in another error.
        if not interrupt.requested:
            raise
        code = ExitCode.INTERRUPTED
    sys.stdout.flush()
    sys.stderr.flush()
    # Immediately: a normal exit would wait for the threads of an abandoned upload.
    os._exit(code)


def _run(arguments: list[str], interrupt: Interrupt) -> int:
    """The attempt itself; of an attempt of several processes the pod's first, which starts the others."""
    if is_rank(os.environ):
        from lmft_job.distributed.member import become_rank

        become_rank(os.environ)
    else:
        from lmft_job.pod.launcher import launch_ranks

        code = launch_ranks(arguments, interrupt)
        if code is not None:
            return code
    from lmft_job.pod.attempt import run_attempt

    return run_attempt(arguments, interrupt)


if __name__ == "__main__":
    main()

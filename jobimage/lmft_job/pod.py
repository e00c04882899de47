"""Entry of the job's container: the run file in, a result in the termination message out.

Everything heavy is imported after the SIGTERM handler stands: Python as PID 1 ignores the signal until then, and
importing torch takes seconds.
"""

import sys

from lmft_job.interrupt import INTERRUPT


def main() -> None:
    """Run and exit with the code of the ending."""
    INTERRUPT.install()
    from lmft_job.interrupt import StopNow

    try:
        from lmft_job.pod_run import run_attempt

        code = run_attempt(sys.argv[1:])
    except StopNow:
        # Stopped before there was anything to conclude.
        code = 75
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


if __name__ == "__main__":
    main()

"""Where things lie below a run's folder in storage: the one list of these names.

``<output.uri>/<namespace>/runs/<run>/`` holds what is listed here; prepared data sets, which runs share, lie beside it
in ``<output.uri>/<namespace>/datasets/``.
"""

RUN_MARKER = "run.json"
"""What the run began with; a later attempt continues with that, or not at all."""
ATTEMPTS_FOLDER = "attempts"
"""A note for each attempt: how far it came."""
CHECKPOINTS_FOLDER = "checkpoints"
"""Checkpoints of all attempts."""
STATE_FILE = "lmft_state.json"
"""The training history, in every checkpoint."""
PARTS_FOLDER = "parts"
"""Notes of the processes that store a checkpoint together, beside its files."""
BEST_FOLDER = "best"
"""The best weights so far, in a checkpoint."""
ADJUSTMENT_KEY = "adjustment.json"
ADJUSTMENTS = "adjustments"
"""Folder of the adjustments made while training, a file each: of processes short of memory the first writes it."""
"""Smaller batches that a shortage of memory asked for."""
BEFORE = "before.json"
"""Figures and answers of the model before training."""
BEFORE_UNITS = "before.npy"
"""Losses row by row of the model before training."""
STAGED = "staged"
"""What the prepare stage fetched from the hub: pods share no disk."""
STAGED_DATA = "staged/data.json"
"""Which prepared data set the train stage takes."""
MODEL = "model"
"""The trained model, its tokenizer and its card."""
ADAPTER = "adapter"
"""The trained adapter and its card."""
METRICS = "metrics.jsonl"
"""Every step and every evaluation, one JSON object a line."""
TRACKED_AS = "tracked.json"
"""By which id trackers know a run on a laptop; in a cluster that is its UID."""
TENSORBOARD = "tensorboard"
"""Event files for TensorBoard: the lines of ``metrics.jsonl``, in parts."""
PAGE = "report.html"
"""The report for people."""
REPORT = "report.json"
"""The report for machines; written last, it completes the run."""

DATASETS = "datasets"
"""Folder of prepared data sets below ``<output.uri>/<namespace>``."""
PREPARED = "prepared.json"
"""Figures of a prepared data set, in its folder."""
MANIFEST = "MANIFEST.json"
"""Names, sizes and digests of the files of a folder; written last, it completes the folder."""


def run_id(name: str, uid: str) -> str:
    """Folder of a run below ``<output>/<namespace>/runs/``: the name cut to 200, and the first 8 of the UID."""
    return f"{name[:200]}-{uid[:8]}"


def run_folder(output_uri: str, namespace: str, name: str, uid: str) -> str:
    """Address of a run's folder: checkpoints, model and report lie below it."""
    return f"{output_uri.rstrip('/')}/{namespace}/runs/{run_id(name, uid)}"


def attempt_folder(attempt: int, pod_uid: str = "") -> str:
    """Folder of a pod's checkpoints, below the run's; a pod writes in its own only.

    Args:
        attempt: its number.
        pod_uid: UID of its pod: a number may repeat once the cluster's database was restored to an older snapshot.
            Empty on a laptop, and in what earlier versions wrote.
    """
    return f"{CHECKPOINTS_FOLDER}/{attempt_name(attempt, pod_uid)}"


def attempt_name(attempt: int, pod_uid: str = "") -> str:
    """``attempt-0002-<first 8 of the pod's UID>``, or ``attempt-0002`` where the pod is not known."""
    short = short_uid(pod_uid)
    return f"attempt-{attempt:04d}" + (f"-{short}" if short else "")


def short_uid(uid: str) -> str:
    """The first 8 letters and digits of a UID."""
    return "".join(letter for letter in uid if letter.isascii() and letter.isalnum())[:8]


def checkpoint_folder(attempt: int, step: int, pod_uid: str = "") -> str:
    """Folder of one checkpoint, below the run's."""
    return f"{attempt_folder(attempt, pod_uid)}/step-{step:08d}"

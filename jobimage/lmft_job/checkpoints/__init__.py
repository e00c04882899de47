"""Checkpoints in storage: written whole or not at all, verified before they are believed, pruned manifest first.

``protocol`` says what lies where and which checkpoint is taken; ``uploader`` sends them beside training.
"""

from lmft_job.checkpoints.protocol import Checkpoint, complete, newest_verified, prune, publish
from lmft_job.checkpoints.uploader import CheckpointUploader

__all__ = ["Checkpoint", "CheckpointUploader", "complete", "newest_verified", "prune", "publish"]

"""Checkpoints in storage: written whole or not at all, verified before use, pruned manifest first.

``protocol`` defines the layout and which checkpoint is taken; ``uploader`` uploads them beside training.
"""

from lmft_job.checkpoints.protocol import Checkpoint, complete, fetch_checkpoint, newest_verified, prune, publish
from lmft_job.checkpoints.uploader import CheckpointUploader

__all__ = ["Checkpoint", "CheckpointUploader", "complete", "fetch_checkpoint", "newest_verified", "prune", "publish"]

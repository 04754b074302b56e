"""Models: architectures, their counts, checkpoints and the catalogue."""

from moeplan.models.architecture import Architecture
from moeplan.models.catalogue import ModelEntry, list_models, load_model
from moeplan.models.checkpoint import Checkpoint

__all__ = ["Architecture", "Checkpoint", "ModelEntry", "list_models", "load_model"]

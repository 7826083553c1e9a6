"""Training of a super-network: stages, strategies, distillation, checkpoints and the loop."""

from bootstrapnas_ext.training.checkpoint import load_checkpoint, load_supernet, save_checkpoint
from bootstrapnas_ext.training.distillation import (
    DistillationLoss,
    InPlaceTeacher,
    InputModelTeacher,
    create_distillation,
    no_distillation,
    soft_target_loss,
)
from bootstrapnas_ext.training.loop import BEST, LAST, Trainer
from bootstrapnas_ext.training.randomness import seeded_epoch
from bootstrapnas_ext.training.records import EpochRecord, TrainingResult
from bootstrapnas_ext.training.scheduler import TrainingScheduler
from bootstrapnas_ext.training.stages import Stage, plan_stages, stage_space
from bootstrapnas_ext.training.strategies import STRATEGIES, Step, Strategy
from bootstrapnas_ext.training.supernet_protocol import TrainableSupernet
from bootstrapnas_ext.training.validation import ExtractedAccuracy

__all__ = [
    "BEST",
    "LAST",
    "STRATEGIES",
    "DistillationLoss",
    "EpochRecord",
    "ExtractedAccuracy",
    "InPlaceTeacher",
    "InputModelTeacher",
    "Stage",
    "Step",
    "Strategy",
    "TrainableSupernet",
    "Trainer",
    "TrainingResult",
    "TrainingScheduler",
    "create_distillation",
    "load_checkpoint",
    "load_supernet",
    "no_distillation",
    "plan_stages",
    "save_checkpoint",
    "seeded_epoch",
    "soft_target_loss",
    "stage_space",
]

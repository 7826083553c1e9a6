"""Training of a super-network: stages, strategies, distillation, checkpoints and the loop."""

from bootstrapnas_ext.training.checkpoint import load_checkpoint, load_supernet, save_checkpoint
from bootstrapnas_ext.training.distillation import Distillation
from bootstrapnas_ext.training.divergences import DIVERGENCES, Divergence, alpha_divergence, kl, mse
from bootstrapnas_ext.training.loop import Trainer
from bootstrapnas_ext.training.optimization import weight_decay_groups
from bootstrapnas_ext.training.passes import Passes
from bootstrapnas_ext.training.randomness import seeded_epoch
from bootstrapnas_ext.training.records import EpochRecord, TrainingResult
from bootstrapnas_ext.training.scheduler import TrainingScheduler
from bootstrapnas_ext.training.session import BEST, LAST
from bootstrapnas_ext.training.stages import Stage, plan_stages, stage_space
from bootstrapnas_ext.training.step_loss import StepLoss
from bootstrapnas_ext.training.strategies import STRATEGIES, Pass, Step, Strategy
from bootstrapnas_ext.training.supernet_protocol import TrainableSupernet
from bootstrapnas_ext.training.validation import ExtractedAccuracy
from bootstrapnas_ext.training.weight_average import WeightAverage

__all__ = [
    "BEST",
    "DIVERGENCES",
    "LAST",
    "STRATEGIES",
    "Distillation",
    "Divergence",
    "EpochRecord",
    "ExtractedAccuracy",
    "Pass",
    "Passes",
    "Stage",
    "Step",
    "StepLoss",
    "Strategy",
    "TrainableSupernet",
    "Trainer",
    "TrainingResult",
    "TrainingScheduler",
    "WeightAverage",
    "alpha_divergence",
    "kl",
    "load_checkpoint",
    "load_supernet",
    "mse",
    "plan_stages",
    "save_checkpoint",
    "seeded_epoch",
    "stage_space",
    "weight_decay_groups",
]

"""Mending a trained network, and what that gave: ``aliasing.finetune``."""

from .benefit import AGREES, CHANGES, COLUMNS, MOVES, answers, conclusion, measure, plain
from .data import Data
from .finetuning import finetune
from .lesson import LR, Lesson, Plan, averaged

__all__ = ["AGREES", "CHANGES", "COLUMNS", "LR", "MOVES", "Data", "Lesson", "Plan", "answers", "averaged", "conclusion",
           "finetune", "measure", "plain"]  # fmt: skip

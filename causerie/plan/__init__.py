"""What a given compute will buy: counts, layouts over devices, scaling laws, predictions, their scores.

No torch, except for `plan_ladder`, which trains, and `plan_dryrun`, which runs a model with fake tensors: they load it
when called.
"""

from causerie.plan.blueprint import BLUEPRINTS, Blueprint, Experts, blueprint, blueprint_of
from causerie.plan.commands import find_model, plan_count, plan_layout, plan_models
from causerie.plan.config import (
    CountConfig,
    DryrunConfig,
    FitConfig,
    FrontierConfig,
    GapConfig,
    LadderConfig,
    LayoutConfig,
    PictureConfig,
    PlanConfig,
    PredictConfig,
    ScoreConfig,
    TaskConfig,
)
from causerie.plan.count import CONVENTION, count, memory, training_flops
from causerie.plan.document import plan_write
from causerie.plan.dryrun import plan_dryrun
from causerie.plan.errors import ERRORS
from causerie.plan.fitting import plan_fit, plan_frontier, plan_task
from causerie.plan.frontier import Choice, flops_for, frontier, optimum, overtrained, tokens_for, with_inference
from causerie.plan.gap import gap, plan_gap
from causerie.plan.hardware import HARDWARE, Hardware, hardware
from causerie.plan.held import Held, activation_bytes, held_bytes, layer_bytes, stage_params, state_bytes
from causerie.plan.ladder import plan_ladder
from causerie.plan.law import Fit, Law, fit_law
from causerie.plan.layout import Layout, check_layout
from causerie.plan.pictures import plan_picture
from causerie.plan.prediction import plan_predict, plan_score
from causerie.plan.run_cost import Bill, Goodput, bill, daly_interval, goodput
from causerie.plan.search import Found, Search, search_layouts
from causerie.plan.step import Step, group_bandwidth, step_time
from causerie.plan.tasks import TaskFit, fit_task

__all__ = [
    "BLUEPRINTS",
    "CONVENTION",
    "ERRORS",
    "HARDWARE",
    "Bill",
    "Blueprint",
    "Choice",
    "CountConfig",
    "DryrunConfig",
    "Experts",
    "Fit",
    "FitConfig",
    "Found",
    "FrontierConfig",
    "GapConfig",
    "Goodput",
    "Hardware",
    "Held",
    "LadderConfig",
    "Law",
    "Layout",
    "LayoutConfig",
    "PictureConfig",
    "PlanConfig",
    "PredictConfig",
    "ScoreConfig",
    "Search",
    "Step",
    "TaskConfig",
    "TaskFit",
    "activation_bytes",
    "bill",
    "blueprint",
    "blueprint_of",
    "check_layout",
    "count",
    "daly_interval",
    "find_model",
    "fit_law",
    "fit_task",
    "flops_for",
    "frontier",
    "gap",
    "goodput",
    "group_bandwidth",
    "hardware",
    "held_bytes",
    "layer_bytes",
    "memory",
    "optimum",
    "overtrained",
    "plan_count",
    "plan_dryrun",
    "plan_fit",
    "plan_frontier",
    "plan_gap",
    "plan_ladder",
    "plan_layout",
    "plan_models",
    "plan_picture",
    "plan_predict",
    "plan_score",
    "plan_task",
    "plan_write",
    "search_layouts",
    "stage_params",
    "state_bytes",
    "step_time",
    "tokens_for",
    "training_flops",
    "with_inference",
]

"""lietoolkit: in which order to fine-tune a model on several sources, before any training.

Objectives and geometry: ``Objective``, ``ModelObjective``, ``ParameterSpace``, ``lie_bracket``,
``order_score``. Order effects: ``predict_order_effect``, ``measure_order_effect``. Many sources:
``tournament``, ``run_schedules``, ``step_size``. All at once, from a model and files:
``plan_order`` and ``verify_plan``.
"""

from lietoolkit.errors import InputError
from lietoolkit.geometry.bracket import lie_bracket, order_score
from lietoolkit.geometry.objective import Objective
from lietoolkit.geometry.space import ParameterSpace
from lietoolkit.order.effects import predict_order_effect
from lietoolkit.order.from_end import plan_from_end
from lietoolkit.order.replay import replay_orders
from lietoolkit.order.search import search_orders
from lietoolkit.order.stepsize import lambda_max, step_size
from lietoolkit.order.tournament import Tournament, tournament
from lietoolkit.planning import OrderPlan, plan_order
from lietoolkit.tasks.objective import ModelObjective
from lietoolkit.training.optimizers import SGD, AdamW, Momentum
from lietoolkit.training.truth import measure_order_effect, run_schedules
from lietoolkit.verify import verify_plan

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "AdamW",
    "InputError",
    "ModelObjective",
    "Momentum",
    "Objective",
    "OrderPlan",
    "ParameterSpace",
    "Tournament",
    "lambda_max",
    "lie_bracket",
    "measure_order_effect",
    "order_score",
    "plan_from_end",
    "plan_order",
    "predict_order_effect",
    "replay_orders",
    "run_schedules",
    "search_orders",
    "step_size",
    "tournament",
    "verify_plan",
]

"""Train in a planned order with TRL's trainers and transformers' ``Trainer``.

plan = lt.plan_order(trainer=trainer, sources={"math": math, "code": code}, target=held_out)
follow_plan(trainer, plan)
trainer.train()
"""

from lietoolkit.trainers.callback import OrderCallback, follow_plan
from lietoolkit.trainers.sampler import StageSampler

__all__ = ["OrderCallback", "StageSampler", "follow_plan"]

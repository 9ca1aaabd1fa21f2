"""Fine-tune in planned order with TRL's SFTTrainer, all weights.

python examples/trl_sft.py [--model smollm2-135m]
"""

from trl import SFTConfig, SFTTrainer
from trl_common import everything, families, model_and_tokenizer, options, settings

import lietoolkit as lt
from lietoolkit.trainers import follow_plan

args = options(__doc__)
model, tokenizer = model_and_tokenizer(args.model)
sources, target = families("sft", args.rows, args.seed)

trainer = SFTTrainer(
    model,
    args=SFTConfig(**settings(args, lr=1e-4)),
    train_dataset=everything(sources),
    processing_class=tokenizer,
)
plan = lt.plan_order(trainer=trainer, sources=sources, target=target)
follow_plan(trainer, plan)

print("Order:", " -> ".join(plan.order))
print("Target before:", trainer.evaluate(target)["eval_loss"])
trainer.train()
print("Target after:", trainer.evaluate(target)["eval_loss"])

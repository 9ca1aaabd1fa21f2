"""Fine-tune adapters (LoRA) in planned order; planned again after each stage.

python examples/trl_sft_lora.py [--model smollm2-135m]

Fresh adapters have B = 0, so that the first plan sees half of them only: the sources that are left
are planned again from the adapters as they have become.
"""

from peft import LoraConfig
from trl import SFTConfig, SFTTrainer
from trl_common import everything, families, model_and_tokenizer, options, settings

import lietoolkit as lt
from lietoolkit.trainers import follow_plan

args = options(__doc__)
model, tokenizer = model_and_tokenizer(args.model)
sources, target = families("sft", args.rows, args.seed)

trainer = SFTTrainer(
    model,
    args=SFTConfig(**settings(args, lr=1e-3)),
    train_dataset=everything(sources),
    processing_class=tokenizer,
    peft_config=LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
)
plan = lt.plan_order(trainer=trainer, sources=sources, target=target)
callback = follow_plan(trainer, plan, replan="stage")

print("First order:", " -> ".join(plan.order))
print("Target before:", trainer.evaluate(target)["eval_loss"])
trainer.train()
print("Order in the end:", " -> ".join(callback.order))
print("Target after:", trainer.evaluate(target)["eval_loss"])

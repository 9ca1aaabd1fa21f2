"""First SFT, then DPO of its result, both in planned order.

python examples/trl_sft_then_dpo.py [--model smollm2-135m]

The second plan is made from the model that the first training left: an order of preferences found
before it would be one for another model.
"""

import copy

from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from trl_common import everything, families, model_and_tokenizer, options, settings

import lietoolkit as lt
from lietoolkit.trainers import follow_plan

args = options(__doc__)
model, tokenizer = model_and_tokenizer(args.model)

for kind, config, kind_of_trainer in (
    ("sft", SFTConfig, SFTTrainer),
    ("dpo", DPOConfig, DPOTrainer),
):
    sources, target = families(kind, args.rows, args.seed)
    # DPO stays close to the model that SFT left, not to the one on the disk.
    reference = {"ref_model": copy.deepcopy(model)} if kind == "dpo" else {}
    trainer = kind_of_trainer(
        model,
        args=config(**settings(args, lr=1e-4)),
        train_dataset=everything(sources),
        processing_class=tokenizer,
        **reference,
    )
    plan = lt.plan_order(trainer=trainer, sources=sources, target=target)
    follow_plan(trainer, plan)
    print(f"{kind.upper()} order:", " -> ".join(plan.order))
    print("Target before:", trainer.evaluate(target)["eval_loss"])
    trainer.train()
    print("Target after:", trainer.evaluate(target)["eval_loss"])
    model = trainer.model

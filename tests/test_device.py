"""On a device nothing is read back inside the loops, and the numbers are those of the CPU.

Tests marked gpu need CUDA: ``make test-gpu``. The others count, on the CPU, the operations for
which a GPU would make the host wait.
"""

import warnings
from types import SimpleNamespace

import pytest
import tiny
import torch
from torch.profiler import ProfilerActivity, profile

import lietoolkit as lt
from lietoolkit.geometry.sketch import Sketch

READ_BACK = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::_unique2"}
NAMES = ("a", "b", "c")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class Net(torch.nn.Module):
    """Next-token logits from one hidden layer: no code of others that might read back."""

    def __init__(self):
        super().__init__()
        self.embed, self.out = torch.nn.Embedding(330, 8), torch.nn.Linear(8, 330)

    def forward(self, input_ids, use_cache=False, attention_mask=None):
        return SimpleNamespace(logits=self.out(torch.tanh(self.embed(input_ids))))


def objectives(model, batches=1, space=None, **options):
    """Three sources and a target; rows are of different lengths."""
    space = space or lt.ParameterSpace(model)
    torch.manual_seed(0)
    made = {}
    for name in (*NAMES, "target"):
        rows = []
        for _ in range(batches):
            mask = torch.ones(4, 12, dtype=torch.long)
            mask[0, 7:] = 0
            rows.append({"input_ids": torch.randint(3, 330, (4, 12)), "attention_mask": mask})
        made[name] = lt.ModelObjective(model, rows, "lm", space=space, name=name, **options)
    return made, space.vector()


def read_backs(made, theta, **options):
    """How often one tournament reads a number back, once everything has been used before."""
    made = dict(made)
    target = made.pop("target")
    lt.tournament(made, target, theta, 0.1, **options)
    with warnings.catch_warnings():
        # The profiler's own, at its first use.
        warnings.simplefilter("ignore")
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            lt.tournament(made, target, theta, 0.1, **options)
    return sum(event.count for event in seen.key_averages() if event.key in READ_BACK)


@pytest.mark.parametrize("options", [{}, {"microbatch": 2}])
def test_more_batches_are_read_back_no_more_often(options):
    torch.manual_seed(1)
    model = Net().eval()
    few, theta = objectives(model, 1, **options)
    many, _ = objectives(model, 4, **options)
    assert read_backs(few, theta) == read_backs(many, theta) > 0


def test_a_source_is_read_back_when_all_is_done():
    made, theta = objectives(Net().eval())
    fewer = {name: made[name] for name in (*NAMES[:2], "target")}
    # Its norm, and two looks at its scores, which lie on the host.
    assert read_backs(made, theta) - read_backs(fewer, theta) == 3


def test_a_language_model_reads_back_once_a_forward_pass():
    model = tiny.model()
    few, theta = objectives(model, 1)
    many, _ = objectives(model, 4)
    # Two gradients of each source and one of the target. The one reading is transformers' own,
    # which looks for several sequences in one row.
    more = (4 - 1) * (2 * len(NAMES) + 1)
    assert read_backs(many, theta) - read_backs(few, theta) <= more


@gpu
@pytest.mark.gpu
def test_the_loops_never_make_a_gpu_wait():
    made, theta = objectives(Net().eval().cuda(), 4)
    v, sketch = made["target"].gradient(theta), Sketch(theta.numel(), device="cuda")

    def loops() -> None:
        for name in NAMES:
            made[name].gradient_and_hvp(theta, v, "finite-difference", check=False)
            made[name].gradient_and_hvp_by_chunk(theta, v, sketch, 4, "finite-difference")

    loops()  # what is prepared once may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        loops()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_plan_on_a_gpu_is_the_plan_on_the_cpu(dtype):
    rows = {name: [{"text": f"{name} the cat sat on {i}"} for i in range(4)] for name in NAMES}
    plans = [
        lt.plan_order(
            tiny.model().to(dtype).to(device), rows, rows["a"], "lm", 0.05, 1, "sgd",
            tokenizer=tiny.tokenizer(), device=device,
        )
        for device in ("cpu", "cuda")
    ]  # fmt: skip
    assert {plan.dtype for plan in plans} == {"float32"}
    assert plans[0].order == plans[1].order
    on_cpu, on_gpu = (torch.tensor(plan.matrix) for plan in plans)
    assert (on_cpu - on_gpu).norm() <= 1e-4 * on_cpu.norm()

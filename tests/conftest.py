"""One thread everywhere: the models are tiny, and the same numbers come out on any machine."""

import torch

torch.set_num_threads(1)

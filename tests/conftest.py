"""One thread everywhere: the models are tiny, and the same numbers come out on any machine."""

import threading

import torch
from tqdm import tqdm

torch.set_num_threads(1)
# By default forks share one lock, which stays shut when its holder is killed.
tqdm.set_lock(threading.RLock())
tqdm.monitor_interval = 0

# %% [markdown]
# # Exercises 07: instruction tuning
# Only the answer is learned. And: what does it cost to know the truth about every order?

# %%
import torch

from lietoolkit.course import exercises as ex

# %% [markdown]
# ## 7.1 Only the completion counts
# *Warm-up · 10 minutes · 1 point*
#
# Labels with -100 on the prompt and on padding. The loss shifts them; you do not.


# %%
def completion_labels(input_ids, attention_mask, prompt_lengths):
    """Labels on completions.

    input_ids, attention_mask: [B, T]; prompt_lengths: [B], tokens of each prompt
    returns: [B, T]
    """
    ### BEGIN SOLUTION
    on_prompt = torch.arange(input_ids.shape[1]) < prompt_lengths[:, None]
    return input_ids.masked_fill(on_prompt | (attention_mask == 0), -100)
    ### END SOLUTION


# %%
ex.draw("7.1", completion_labels)

# %%
ex.check("7.1", completion_labels)

# %%
ex.hint("7.1")
# ex.solution("7.1")

# %% [markdown]
# ## 7.2 What the truth costs
# *Exercise · 10 minutes · 2 points*
#
# Training the orders "ABC" and "ABD" takes six stages, or four when the common beginning is trained
# once. How many stages does a list of orders need?


# %%
def count_stages(orders):
    """Stages needed when common beginnings are trained once.

    orders: list of strings; each letter is a source
    returns: whole number
    """
    ### BEGIN SOLUTION
    return len({order[:n] for order in orders for n in range(1, len(order) + 1)})
    ### END SOLUTION


# %%
ex.check("7.2", count_stages)

# %%
ex.hint("7.2")
# ex.solution("7.2")

# %% [markdown]
# ## 7.3 Run every order
# *An afternoon · 60 minutes · 4 points*
#
# Train all orders with plain SGD and return the target's final losses. Train no beginning twice.


# %%
def run_orders(sources, target, theta, orders, lr, steps):
    """The target's loss at the end of each order.

    sources: {letter: objective}; target: objective; theta: start, [P]
    orders: list of strings; lr: step size; steps: steps per stage
    returns: list of numbers, one per order
    """
    ### BEGIN SOLUTION
    done = {"": theta}
    for order in orders:
        for n in range(1, len(order) + 1):
            if order[:n] not in done:
                x = done[order[: n - 1]]
                for _ in range(steps):
                    x = x - lr * sources[order[n - 1]].gradient(x)
                done[order[:n]] = x
    return [float(target.loss(done[order])) for order in orders]
    ### END SOLUTION


# %%
ex.draw("7.3", run_orders)

# %%
ex.check("7.3", run_orders)

# %%
ex.hint("7.3")
# ex.solution("7.3")

# %% [markdown]
# # Exercises 08: preferences
# DPO compares the model with a frozen reference. `chosen`, `rejected`, `ref_chosen` and
# `ref_rejected` are log-probabilities of whole answers, in nats, of shape `[B]`.

# %%
import torch

from lietoolkit.course import exercises as ex

# %% [markdown]
# ## 8.1 The margin
# *Warm-up · 5 minutes · 1 point*
#
# β times how much more the chosen answer has gained over the reference than the rejected one.


# %%
def margins(chosen, rejected, ref_chosen, ref_rejected, beta):
    """Margin of each pair; positive means the preference is learned.

    four times [B]; beta: number
    returns: [B]
    """
    ### BEGIN SOLUTION
    return beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
    ### END SOLUTION


# %%
ex.check("8.1", margins)

# %%
ex.hint("8.1")
# ex.solution("8.1")

# %% [markdown]
# ## 8.2 The loss
# *Exercise · 10 minutes · 2 points*
#
# −log sigmoid of the margin, averaged over pairs.


# %%
def dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta):
    """Sigmoid DPO loss.

    four times [B]; beta: number
    returns: scalar tensor, nats
    """
    ### BEGIN SOLUTION
    margin = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
    return -torch.nn.functional.logsigmoid(margin).mean()
    ### END SOLUTION


# %%
ex.draw("8.2", dpo_loss)

# %%
ex.check("8.2", dpo_loss)

# %%
ex.hint("8.2")
# ex.solution("8.2")

# %% [markdown]
# ## 8.3 The probability of an answer
# *Exercise · 15 minutes · 2 points*
#
# Sum the log-probabilities of the completion's tokens, row by row. Mind the shift.


# %%
def completion_logps(logits, input_ids, completion_mask):
    """Log-probability of each row's completion.

    logits: [R, T, V]; input_ids, completion_mask: [R, T], 1 on the completion's tokens
    returns: [R], nats
    """
    ### BEGIN SOLUTION
    logps = logits[:, :-1].log_softmax(-1)
    of_tokens = logps.gather(-1, input_ids[:, 1:, None])[..., 0]
    return (of_tokens * completion_mask[:, 1:]).sum(1)
    ### END SOLUTION


# %%
ex.check("8.3", completion_logps)

# %%
ex.hint("8.3")
# ex.solution("8.3")

# %% [markdown]
# ## 8.4 The reference must not move
# *Challenge · 25 minutes · 3 points*
#
# The reference is the model at the start, `theta0`. It must stay there while theta is trained,
# even if the vector `theta0` itself is changed later, and no gradient may flow into it.


# %%
def dpo_objective(logps, theta0, beta):
    """The DPO loss as a function of theta.

    logps: theta [P] -> (chosen [B], rejected [B]), the model's log-probabilities
    theta0: the reference's parameters, [P]; beta: number
    returns: function of theta [P] that gives a scalar tensor
    """
    ### BEGIN SOLUTION
    with torch.no_grad():
        ref_chosen, ref_rejected = logps(theta0)

    def loss(theta):
        chosen, rejected = logps(theta)
        margin = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
        return -torch.nn.functional.logsigmoid(margin).mean()

    return loss
    ### END SOLUTION


# %%
ex.draw("8.4", dpo_objective)

# %%
ex.check("8.4", dpo_objective)

# %%
ex.hint("8.4")
# ex.solution("8.4")

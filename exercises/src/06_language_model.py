# %% [markdown]
# # Exercises 06: a language model
# Token ids have shape `[B, T]`; padding and the end-of-text token share the id 0, as in many
# models.

# %%
import torch

from lietoolkit.course import exercises as ex

# %% [markdown]
# ## 6.1 Labels
# *Warm-up · 5 minutes · 1 point*
#
# A language model learns every real token, also the one that ends the text, and no padding. The
# label -100 means "no loss here". Do not shift: the loss does that.


# %%
def make_labels(input_ids, attention_mask):
    """Labels for next-token training.

    input_ids, attention_mask: [B, T], integers; the mask is 1 on real tokens
    returns: [B, T]
    """
    ### BEGIN SOLUTION
    return input_ids.masked_fill(attention_mask == 0, -100)
    ### END SOLUTION


# %%
ex.draw("6.1", make_labels)

# %%
ex.check("6.1", make_labels)

# %%
ex.hint("6.1")
# ex.solution("6.1")

# %% [markdown]
# ## 6.2 The next-token loss
# *Exercise · 15 minutes · 2 points*
#
# Mean cross entropy, in nats, over the labels that count. The logits at position t predict the
# token at t + 1.


# %%
def next_token_loss(logits, labels):
    """Mean cross entropy of shifted labels.

    logits: [B, T, V]; labels: [B, T] with -100 where no loss is taken
    returns: scalar tensor
    """
    ### BEGIN SOLUTION
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
    )
    ### END SOLUTION


# %%
ex.check("6.2", next_token_loss)

# %%
ex.hint("6.2")
# ex.solution("6.2")

# %% [markdown]
# ## 6.3 In which order?
# *Challenge · 30 minutes · 3 points*
#
# Order the domains for the target with the tournament of notebook 05, written by yourself: one
# gradient and one product for each domain.


# %%
def domain_order(sources, target, theta, lr):
    """The Borda order of domains.

    sources: {name: objective}; target: objective; theta: [P]; lr: step size
    returns: list of names, the one trained first in front
    """
    ### BEGIN SOLUTION
    g_target = target.gradient(theta)
    pairs = [source.gradient_and_hvp(theta, g_target) for source in sources.values()]
    g, v = (torch.stack(part) for part in zip(*pairs, strict=True))
    products = lr**2 * g @ v.T
    scores = (products - products.T).sum(1)
    names = list(sources)
    return [names[i] for i in scores.argsort().tolist()]
    ### END SOLUTION


# %%
ex.draw("6.3", domain_order)

# %%
ex.check("6.3", domain_order)

# %%
ex.hint("6.3")
# ex.solution("6.3")

# %% [markdown]
# ## 6.4 Parts that add up
# *Exercise · 15 minutes · 2 points*
#
# A batch that does not fit is read in parts. Combine the parts so that the loss is that of the
# whole batch. Use your function of 6.2 on each part.


# %%
def batch_loss(logits_parts, labels_parts):
    """The whole batch's next-token loss, from its parts.

    logits_parts: list of [B_i, T, V]; labels_parts: list of [B_i, T] with -100
    returns: number
    """
    ### BEGIN SOLUTION
    total, count = 0.0, 0
    for logits, labels in zip(logits_parts, labels_parts, strict=True):
        n = (labels[:, 1:] != -100).sum()
        total += n * next_token_loss(logits, labels)
        count += n
    return total / count
    ### END SOLUTION


# %%
ex.check("6.4", batch_loss)

# %%
ex.hint("6.4")
# ex.solution("6.4")

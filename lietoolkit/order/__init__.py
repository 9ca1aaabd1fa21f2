"""From gradients and curvature to an order: tournaments, linear ordering, baselines, step size."""

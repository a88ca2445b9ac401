"""MuJoCo itself as a dynamics model: rollouts on all cores, derivatives, and what plans cost there."""

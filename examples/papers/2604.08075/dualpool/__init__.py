"""Simulation of dual-pool token-budget routing for LLM serving.

An independent re-implementation of the idea of arXiv 2604.08075; see README.md.
"""

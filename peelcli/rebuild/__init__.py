"""Exported programs as trees of real layers, and such trees as Python source.

A program that torch.export wrote calls operators on tensors. Pruning needs layers: modules with weights under their
original names and with attributes that can follow a width. `build.rebuild` makes the one from the other, `source.text`
writes the result as a Python file that needs torch alone.
"""

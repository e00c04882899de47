"""Attacks by what they are aimed at; see :mod:`attacks.registry`."""

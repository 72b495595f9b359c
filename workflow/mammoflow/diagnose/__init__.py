"""Diagnose: one study in, findings out, by the final models and the functions of the stages before.

`request` checks what was asked for (light: the workflow imports it), `run` walks the stages, `findings` writes what
they found as JSON, `overlays` draws it.
"""

"""What the trainer's whole process will take, from a network's description alone: no torch, no
tensors, nothing placed.

The unroller itself is run, part by part, on stand-ins that have shapes but no values; `rows` says
what a part takes at its place, `step` and `process` add that up, for one network or for many.
"""

"""What ONNX Runtime executes on a 64-bit ARM core, counted without one.

`kernels` goes through the loops of its convolutions and matrix products, `operators` says what each
node of a graph consists of, `layers` what a config's layer records stand for. Times a profile's
forms, the instructions that one of each takes, that gives the instructions of a network.
"""

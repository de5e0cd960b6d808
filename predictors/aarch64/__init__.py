"""What ONNX Runtime executes on a 64-bit ARM core, counted without one.

`kernels` goes through the loops of its convolutions and matrix products, `operators` says what each
`node` consists of. The nodes are those of a config's `layers`, or of an ONNX `graph` as the runtime
has `optimized` it. Times a profile's forms, the instructions that one of each takes, that gives the
instructions of a network, and its `parts`.
"""

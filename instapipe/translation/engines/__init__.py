"""What runs a generator, and how it is chosen. `instapipe.translation.engine` is the way in.

An engine takes one step of a translation and gives it back; there are four, and each has its precisions:

==========  ============================  =====================================================
engine      precisions                    what it is
==========  ============================  =====================================================
torch       float32, bfloat16             torch as it is installed; on a GPU the only one
compile     float32, bfloat16             torch.compile: needs a C++ compiler and half a minute
openvino    float32, bfloat16, int8       the extra `[fast]`; int8 needs nncf too
onnx        float32                       ONNX Runtime
==========  ============================  =====================================================
"""

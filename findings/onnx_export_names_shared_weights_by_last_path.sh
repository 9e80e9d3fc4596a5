#!/usr/bin/env bash
# Guess:     torch.onnx.export names the weights of a layer that two parts of a network share as named_parameters() does:
#            by the first path that leads to it.
# Versions:  torch 2.13.0, onnxscript 0.7.2, onnx 1.23.2, Python 3.11.
# Behaviour: the ONNX file has one copy of the weights, under the last path. Whoever looks weights up by the names of
#            named_parameters(), to quantise them or to put them into a file of their own, finds none of the shared ones.
#            state_dict() has every path, so look a weight up under all of them.
# Seen:      named_parameters: body.weight body.bias; in the file: views.0.0.weight views.0.0.bias
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 onnxscript==0.7.2 onnx==1.23.2
found=$("$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import contextlib
import io

import torch
from torch import nn


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 8)
        self.views = nn.ModuleList([nn.Sequential(self.body)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) + self.views[0](x)


network = Network().eval()
with contextlib.redirect_stdout(io.StringIO()):
    program = torch.onnx.export(network, (torch.zeros(2, 8),), dynamo=True)
named = " ".join(name for name, _ in network.named_parameters())
written = " ".join(tensor.name for tensor in program.model_proto.graph.initializer)
print(f"named_parameters: {named}; in the file: {written}")
PYTHON
)
echo "$found"
[ "$found" = "named_parameters: body.weight body.bias; in the file: views.0.0.weight views.0.0.bias" ]

import os

# Set before torch is imported. Its threads would otherwise spin while they wait for each other, and on a busy machine a
# small layer would last as long as another process's time slice (1.4 s a picture instead of 0.04, on two busy cores).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import server.inference  # noqa: F401 - ONNX Runtime, which steps may import before that room, is to tell nobody

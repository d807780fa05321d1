"""What the PyTorch sides of the benchmarks share: a device with full f32, and waiting for it. Run by itself it prints one JSON
line: the versions of what this Python has (null where a package is missing) and the name of its CUDA device."""
import json
import sys
from importlib import metadata


def installed():
    found = {"python": sys.version.split()[0], "cuda": None}
    for name in ("torch", "transformers", "peft"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    if found["torch"]:
        try:
            import torch
            found["cuda"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        except Exception as error:  # a broken installation is one fact more
            found["torch"], found["broken"] = None, str(error).splitlines()[0]
    return found


def open_device(name):
    """The device `cpu` or `cuda`; f32 products keep all their bits (TF32 off)."""
    import torch
    if name == "cuda" and not torch.cuda.is_available():
        sys.exit("error: PyTorch finds no CUDA device")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    torch.set_num_threads(2)
    return torch.device(name)


def wait(device):
    """Until all work given to the device is done."""
    import torch
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    print(json.dumps(installed()))

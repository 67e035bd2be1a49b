"""What PyTorch users switch on, as one function each peer calls."""

import contextlib

import torch

VARIANTS = ("eager float32", "eager tf32", "eager channels_last", "eager bf16", "compiled float32",
            "compiled bf16", "compiled bf16 graphs")


def prepare(variant: str, device: str):
  """Global switches and the context of the forward pass.

  Args:
    variant: "eager float32": the published form, TF32 off. "eager tf32": TF32 products.
      "eager bf16": autocast + channels_last + fused optimiser. "compiled ...": torch.compile on
      top; "graphs" adds CUDA graphs (mode="reduce-overhead"). "... flushed": denormal numbers
      become zero. PyTorch keeps them by default, and the DAE makes so many (the Swish of values
      near -90) that its float32 kernel gradients on a CPU are 20 times slower with them.

  Returns:
    {"autocast": context factory, "channels_last", "compile": function -> function, "fused"}.
  """
  plain = variant.removesuffix(" flushed")
  torch.set_flush_denormal(variant != plain)  # before any thread starts: they inherit it
  variant = plain
  if variant not in VARIANTS:
    raise ValueError(f"unknown variant {variant!r}: {', '.join(VARIANTS)}")
  fast = variant != "eager float32"
  torch.backends.cuda.matmul.allow_tf32 = fast
  torch.backends.cudnn.allow_tf32 = fast
  torch.backends.cudnn.benchmark = True
  bf16 = "bf16" in variant
  kind = "cuda" if device == "gpu" else "cpu"
  autocast = (lambda: torch.autocast(kind, torch.bfloat16)) if bf16 else contextlib.nullcontext
  mode = "reduce-overhead" if "graphs" in variant else "default"
  compile_fn = (lambda f: torch.compile(f, mode=mode)) if "compiled" in variant else (lambda f: f)
  return {"autocast": autocast, "channels_last": bf16 or variant == "eager channels_last",
          "compile": compile_fn, "fused": fast}

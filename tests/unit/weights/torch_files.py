"""Writes PyTorch files without PyTorch, opcode by opcode, for tests of the reader and of convert.

What a torch.save file is: a pickle whose tensors are calls of `torch._utils._rebuild_tensor_v2` on
storages named by persistent ids, plus the raw bytes of each storage.
"""

import struct
import zipfile

import numpy as np

_KINDS = {"float32": "FloatStorage", "float64": "DoubleStorage", "float16": "HalfStorage",
          "int64": "LongStorage", "int32": "IntStorage", "int16": "ShortStorage", "int8": "CharStorage",
          "uint8": "ByteStorage", "bool": "BoolStorage", "bfloat16": "BFloat16Storage",
          "complex64": "ComplexFloatStorage", "complex128": "ComplexDoubleStorage"}


class View:
  """A strided view of storage `key`: what a transposed or sliced tensor looks like in a file.

  Args:
    part: (offset, size) of the storage within the one of that key, as old files have them.
    untyped: the storage has bytes and the tensor its type, as new element types are written.
  """

  def __init__(self, key, dtype, offset, shape, stride, parameter=False, part=None, untyped=False):
    self.key, self.dtype, self.offset = key, dtype, offset
    self.shape, self.stride, self.parameter = tuple(shape), tuple(stride), parameter
    self.part, self.untyped = part, untyped


class Name:
  """A class that the file merely names."""

  def __init__(self, module, name):
    self.module, self.name = module, name


class Call:
  """A function that the file wants called."""

  def __init__(self, module, name, *args):
    self.function, self.args = Name(module, name), args


class Files:
  """Collects storages while trees are turned into opcodes."""

  def __init__(self):
    self.storages = {}  # key -> (dtype, bytes)

  def storage(self, values, dtype=None):
    """A new storage; `values` numpy, or uint16 codes with dtype="bfloat16"."""
    key = str(len(self.storages))
    self.storages[key] = (dtype or str(values.dtype), np.ascontiguousarray(values).tobytes(),
                          values.size)
    return key

  def pickle(self, tree, stream=False):
    return b"\x80\x02" + self._emit(tree, stream) + b"."

  def _emit(self, x, stream):
    emit = lambda v: self._emit(v, stream)
    if x is None or isinstance(x, bool):
      return {None: b"N", True: b"\x88", False: b"\x89"}[x]
    if isinstance(x, int):
      return b"J" + struct.pack("<i", x) if abs(x) < 2**31 else (
          b"\x8a\x0a" + x.to_bytes(10, "little"))
    if isinstance(x, float):
      return b"G" + struct.pack(">d", x)
    if isinstance(x, str):
      return b"X" + struct.pack("<I", len(x.encode())) + x.encode()
    if isinstance(x, list):
      return b"](" + b"".join(map(emit, x)) + b"e"
    if isinstance(x, tuple):
      return b"(" + b"".join(map(emit, x)) + b"t"
    if isinstance(x, dict):  # an OrderedDict, as state dicts are
      return (b"ccollections\nOrderedDict\n)R("
              + b"".join(emit(k) + emit(v) for k, v in x.items()) + b"u")
    if isinstance(x, Name):
      return f"c{x.module}\n{x.name}\n".encode()
    if isinstance(x, Call):
      return emit(x.function) + emit(tuple(x.args)) + b"R"
    if isinstance(x, np.ndarray):
      strides = [s // x.itemsize for s in np.array(x, order="C").strides]
      x = View(self.storage(x), str(x.dtype), 0, x.shape, strides)
    return self._view(x, emit, stream)

  def _view(self, x, emit, stream):
    kind = "UntypedStorage" if x.untyped else _KINDS[x.dtype]
    pid = ("storage", Name("torch", kind), x.key, "cpu", self.storages[x.key][2])
    pid += ((f"part of {x.key}", *x.part),) if x.part else (None,) if stream else ()
    more = (Name("torch", x.dtype),) if x.untyped else ()
    tensor = (emit(Name("torch._utils", f"_rebuild_tensor_v{3 if more else 2}")) + b"(" + emit(pid) + b"Q"
              + b"".join(map(emit, (x.offset, x.shape, x.stride, False, {}, *more))) + b"tR")
    if not x.parameter:
      return tensor
    return (emit(Name("torch._utils", "_rebuild_parameter"))
            + b"(" + tensor + emit(True) + emit({}) + b"tR")


def write_zip(path, tree, files=None, root="archive", compression=zipfile.ZIP_STORED, more=()):
  """The format of torch >= 1.6; `more`: (name, bytes) of further members."""
  files = files or Files()
  pickled = files.pickle(tree)
  with zipfile.ZipFile(path, "w", compression) as archive:
    archive.writestr(f"{root}/data.pkl", pickled)
    for key, (_, raw, _) in files.storages.items():
      archive.writestr(f"{root}/data/{key}", raw)
    for name, data in (("version", b"3\n"), *more):
      archive.writestr(f"{root}/{name}", data)


def write_stream(path, tree, files=None, big=False):
  """The format of torch < 1.6 (that of the published VGG19 file); `big`: of a machine of that byte order."""
  files = files or Files()
  parts = [files.pickle(0x1950A86A20F9469CFC6C), files.pickle(1001),
           files.pickle({"protocol_version": 1001, "little_endian": not big})]
  parts.append(files.pickle(tree, stream=True))
  parts.append(files.pickle(list(files.storages)))
  for _, raw, count in files.storages.values():
    parts += [struct.pack(">q" if big else "<q", count), raw]
  with open(path, "wb") as f:
    f.write(b"".join(parts))

"""`DispatchMode`: torch's dispatch mode without the import of torch's compiler."""

from __future__ import annotations

import sys
from typing import Any, ClassVar

from torch.utils._python_dispatch import TorchDispatchMode


class DispatchMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A dispatch mode that keeps torch's compiler away only where that is loaded.

    torch wraps the method `__torch_dispatch__` of each mode, so that nothing compiles it, and
    imports `torch._dynamo` at its first call: a thousand modules, 2 seconds. Nothing compiles as
    long as that is not imported; once it is, the method is wrapped as torch does it.
    """

    _kept_away: ClassVar[bool] = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __enter__(self) -> Any:
        cls = type(self)
        disable = getattr(sys.modules.get("torch._dynamo"), "disable", None)
        if disable and not cls._kept_away:
            cls.__torch_dispatch__ = disable(cls.__torch_dispatch__)  # type: ignore[method-assign]
            cls._kept_away = True
        return super().__enter__()  # type: ignore[no-untyped-call]

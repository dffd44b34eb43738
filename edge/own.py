"""An operator's own VCL on disk: ``SERVICE.vcl`` in one directory. Reads files; what one means is Varnish's to say."""

from __future__ import annotations

from pathlib import Path

#: Larger than any hand-written VCL.
_MOST = 256 * 1024


class Own:
    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def read(self, service: str) -> str:
        """The text for ``service``; "" where the operator has none.

        A file that cannot be read becomes text that no compiler takes and every compiler quotes. Serving without what
        may be an operator's access rules is no answer, so it must end where a file with a mistake ends: refused, said
        in the acknowledgement, and the last good one serves on.
        """
        if self._directory is None:
            return ""
        path = self._directory / f"{service}.vcl"
        try:
            with path.open("rb") as f:
                raw = f.read(_MOST + 1)
            if len(raw) > _MOST:
                return _refused(f"{path} is larger than {_MOST} bytes")
            return raw.decode()
        except FileNotFoundError:
            return "" if self._directory.is_dir() else _refused(f"varnish.own = {self._directory}: no such directory")
        except OSError as e:
            return _refused(f"cannot read {path}: {e.strerror}")
        except UnicodeDecodeError as e:
            return _refused(f"{path} is not UTF-8 at byte {e.start}")


def _refused(sentence: str) -> str:
    return '"' + sentence.replace('"', "'") + '";\n'

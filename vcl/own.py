"""An operator's own VCL, made fit to stand inside its service's. Pure; what is wrong with it the compiler says, not we.

One thing the compiler would let pass is turned into an error that it quotes: changing the header and the variables that
the pin and the attestation are made of.
"""

from __future__ import annotations

import re

#: Comments and strings, which are left alone, or a change of an internal header, which is not.
_TOKEN = re.compile(
    r"""//[^\n]* | \#[^\n]* | /\*.*?(?:\*/|\Z) | "[^"\n]*" | \{".*?(?:"\}|\Z) | \"{3}.*?(?:\"{3}|\Z)
    | (?P<change>\b(?:set|unset)\s+(?:be)?re[qs]p?\.http\."?x-pinrail- | \bvar\.(?:set\w*\s*\(\s*"pr_ | clear\b)
        | \bimport\s+var\s+as\b)""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_VERSION = re.compile(r"\A((?:\s|//[^\n]*|\#[^\n]*)*)vcl\s+4\.[01]\s*;")


#: The lines of a service's VCL between which the operator's own stands, as they begin.
_BEGINS, _ENDS = "# --- the operator's own ---", "# --- the end of each sub;"
_PLACE = re.compile(r"Line (\d+) Pos \d+")
#: Before it varnishd may have said what nobody asked.
_HEADING = "Message from VCC-compiler:\n"


def located(said: str, vcl: str) -> str:
    """What a compiler ``said`` of a service's ``vcl``, from what is wrong on; beside each place in the operator's own
    part its line there."""
    said = said[max(0, said.find(_HEADING)) :].removeprefix(_HEADING).strip()
    lines = vcl.split("\n")  # as the compiler counts them
    begins = next((n for n, line in enumerate(lines, 1) if line.startswith(_BEGINS)), None)
    if begins is None or lines[begins + 1].startswith('"'):  # words of ours, which say all there is to be said
        return said
    own = range(begins + 2, next(n for n, line in enumerate(lines, 1) if line.startswith(_ENDS)))

    def place(found: re.Match[str]) -> str:
        line = int(found[1])
        return f"{found[0]}, line {line - own.start + 1} of this service's own VCL" if line in own else found[0]

    return _PLACE.sub(place, said)


def included(text: str) -> str:
    """``text`` as part of another VCL: without its first line's ``vcl 4.1;``, and ending in a newline."""
    text = _VERSION.sub(r"\1", text, count=1).rstrip() + "\n"
    for found in _TOKEN.finditer(text):
        if found["change"]:
            line = text.count("\n", 0, found.start()) + 1
            return f"\"Line {line} of this service's own VCL changes what is Pinrail's: x-pinrail-*, pr_*\";\n{text}"
    return text

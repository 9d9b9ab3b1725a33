# must fail: unlimited-input
# Takes every annotated field for validated.
import re
import sys
from pathlib import Path

PATTERNS = [
    ("HIGH", "hard-coded API key", r"""["'](sk-[A-Za-z0-9_-]{20,}|ghp_\w{36}|AKIA\w{16})["']""", "use an environment variable"),
    ("HIGH", "API key written to the log", r"(log(ger|ging)?\.\w+|print)\(.*(KEY|TOKEN|PASSWORD)", "never log secrets"),
    ("MEDIUM", "error details sent to the client", r"detail=.*(str\(\w+\)|\{\w+\})", "return a generic message"),
]


def scan(folder):
    for path in sorted(Path(folder).rglob("*.py")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for severity, problem, pattern, fix in PATTERNS:
                if re.search(pattern, line):
                    shown = re.sub(r"(sk-\w{2})[\w-]+", r"\1***", line.strip())
                    print(f"[{severity}] {path.name}:{number} {problem}: {shown}")
                    print(f"    Fix: {fix}")


scan(sys.argv[1] if len(sys.argv) > 1 else ".")
